"""The compared systems: parameters and multiply-adds to the last one, outputs of the reference."""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from conftest import ROOT, tiny_model
from cyclenet.config.load import compose_config
from cyclenet.lab.cost.count import count_cost, meta_model, total
from cyclenet.models.backbone import Backbone
from cyclenet.models.contexts.ccnet import CCNet, CrissCrossAttention
from cyclenet.models.contexts.danet import DANet
from cyclenet.models.contexts.deeplabv3plus import SeparableASPP
from cyclenet.models.contexts.denseaspp_net import DenseASPPNet
from cyclenet.models.contexts.encnet import EncNet, Encoding
from cyclenet.models.contexts.ocrnet import OCRNet
from cyclenet.models.contexts.psanet import PSANet
from cyclenet.models.contexts.pspnet import PSPNet
from cyclenet.models.contexts.reseg import ReSeg
from cyclenet.models.cyclenet import build_model
from cyclenet.models.decoders.alignseg import warp
from cyclenet.models.decoders.deeplabv3plus import DeepLabV3Plus
from cyclenet.models.decoders.dupsampling import LearnedUpsampling
from cyclenet.models.decoders.fapn import FeatureAlign
from cyclenet.models.decoders.gff import GFF
from cyclenet.models.decoders.upernet import UPerNet
from cyclenet.models.layers import initialise
from cyclenet.training.losses import occurrence_loss
from made import awake, small_arm

# Parameters with a classifier of 19 classes, and multiply-adds (10^9) at 769 x 769, of the parts
# after ResNet-101's features, the auxiliary head not among them. Where the authors' or
# mmsegmentation's modules were counted, these are their numbers (docs/design.md).
PINS = {
    "pspnet": (23_083_539, 177.73),
    "psanet": (33_246_739, 232.74),
    "encnet": (10_000_006, 91.35),
    "danet": (23_954_619, 281.27),
    "ccnet": (23_934_100, 230.35),
    "spnet": (15_623_699, 117.97),
    "ocrnet": (10_632_211, 97.09),
    "deeplabv3plus": (17_697_923, 172.6),
    "upernet": (40_523_283, 488.09),
    "fapn": (10_613_915, 96.15),
    # With the backbone 66,846,310 but for 512 biases before batch norms.
    "alignseg": (66_846_310 - 512 - 42_623_936, 275.01 - 22.15 - 111.32),
    "gff": (24_133_907, 325.99),
    "refinenet": (118_047_827 - 42_500_160, 508.65),  # Less a ResNet-101 with a 7x7 stem.
    # Both paths, the head's convolution, the classifier, and two classifiers for training alone.
    "bisenet": (4_419_648 + 590_336 + 4_883 + 2 * (128 * 64 * 9 + 128 + 64 * 19 + 19), 15.45),
    # With the backbone 35,395,427.
    "denseaspp161": (35_395_427 - 26_472_000, 348.60 - 266.57),
    "reseg": (912_000 + 2048 * 512 + 1024 + 200 * 19 + 19, 18.44),
    "dupsampling": (17_682_689, 161.40),
}


@pytest.mark.parametrize("name", PINS)
def test_parameters_and_multiply_adds(name):
    corners = name not in ("dupsampling", "denseaspp161")
    overrides = [f"arm=zoo/{name}", "model=cyclenet", f"model.align_corners={corners}"]
    cfg = compose_config("train", overrides)
    side = 768 if name == "denseaspp161" else 769
    parts = count_cost(cfg.model, side, side, 19)
    head = total([cost for part, cost in parts.items() if part not in ("backbone", "aux")])
    parameters, gmacs = PINS[name]
    assert head.parameters == parameters
    # What only training uses (extra classifiers) is in the parameters, but not executed.
    executed = head.executed / 1e9
    if name == "encnet":  # The pin has residuals, which are no products; ours are two products.
        executed -= 2 * 97**2 * 512 * 32 / 1e9
    assert executed == pytest.approx(gmacs, rel=0.001)


def test_the_input_of_denseasppnets_layers_is_rectified_once():
    """The authors' first layer does it in place, so later layers and the output see it too."""
    torch.manual_seed(0)
    net = DenseASPPNet(16, (1, 2), bottleneck_channels=8, growth_channels=4).eval()
    x = torch.randn(1, 16, 9, 9)
    base = net(x)[:, -8:]
    assert torch.equal(base, net.reduce_conv(x).relu()) and (net.reduce_conv(x) < 0).any()


def test_strip_pooling_in_the_backbone():
    """SPM adds 6,117,056 parameters and 8.83 GMACs to a ResNet-101."""
    costs = []
    for on in (False, True):
        overrides = ["model=cyclenet", "arm=zoo/spnet", "model.align_corners=true"]
        cfg = compose_config("train", [*overrides, f"model.strip_pooling={on}"])
        costs.append(count_cost(cfg.model, 769, 769)["backbone"])
    plain, pooled = costs
    assert pooled.parameters - plain.parameters == 6_117_056
    assert (pooled.executed - plain.executed) / 1e9 == pytest.approx(8.83, rel=0.001)


def test_multi_grid_dilates_the_blocks_of_the_last_stage():
    body = Backbone("resnet50", "none", 8, multi_grid=[1, 2, 4]).body
    assert [block.conv2.dilation[0] for block in body.layer4] == [4, 8, 16]
    assert [block.conv2.padding[0] for block in body.layer4] == [4, 8, 16]
    assert [block.conv2.dilation[0] for block in body.layer3] == [1, 2, 2, 2, 2, 2]
    with pytest.raises(ValueError, match=r"a factor for each block .* resnet10t has 1"):
        Backbone("resnet10t", "none", 8, multi_grid=[1, 2])


def test_criss_cross_attention_saves_what_its_authors_say():
    """85 % fewer FLOPs than non-local attention, at 97 x 97: 16.5 against 108.1 GFLOPs."""
    from cyclenet.lab.cost.count import flop_counter

    x = torch.empty(1, 512, 97, 97, device="meta")
    with torch.device("meta"):
        modules = (CrissCrossAttention(512), DANet(512, 19).branches["position"][1])
    flops = []
    for module in modules:
        with flop_counter() as counter:
            module(x)
        flops.append(counter.get_total_flops())
    # CCNet applies its attention twice.
    assert 1 - 2 * flops[0] / flops[1] == pytest.approx(0.85, abs=0.02), flops


def test_attention_of_criss_cross_is_over_row_and_column_alone():
    """A pixel off the cross changes nothing in one pass, and all in two."""
    torch.manual_seed(0)
    module = CrissCrossAttention(16).double()
    module.gamma.data.fill_(1.0)
    x = torch.randn(1, 16, 5, 7, dtype=torch.float64, requires_grad=True)
    once = torch.autograd.grad(module(x)[0, :, 1, 2].sum(), x)[0].abs().sum(1)[0]
    cross = torch.zeros(5, 7, dtype=torch.bool)
    cross[1], cross[:, 2] = True, True
    assert (once[cross] > 0).all() and not once[~cross].any()
    twice = torch.autograd.grad(module(module(x))[0, :, 1, 2].sum(), x)[0].abs().sum(1)
    assert (twice > 0).all()


def test_encoding_equals_the_residuals_it_expands():
    torch.manual_seed(0)
    module = Encoding(8, 4).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    residuals = x.flatten(2).transpose(1, 2)[:, :, None] - module.codewords
    weights = (module.scale * residuals.square().sum(-1)).softmax(-1)
    expected = (weights[..., None] * residuals).sum(1)
    torch.testing.assert_close(module(x), expected)


def test_attentions_of_psanet_are_over_all_pixels_and_transposed():
    """Gathered by hand: pixel p's mask at q - p says how much it collects from, or gives to, q."""
    torch.manual_seed(0)
    net = PSANet(6, (7, 7), 4).double().eval()
    x = torch.randn(1, 6, 7, 7, dtype=torch.float64)
    for attention in net.attentions:
        side = attention.side
        reduced = nn.functional.interpolate(
            attention.reduce_conv(x), (side, side), mode="bilinear", align_corners=True
        )
        masks = attention.predict(reduced).view(2 * side - 1, 2 * side - 1, side, side)
        weights = torch.empty(side, side, side, side, dtype=torch.float64)  # (q, p)
        for qy, qx, py, px in torch.cartesian_prod(*[torch.arange(side)] * 4).tolist():
            value = masks[qy - py + side - 1, qx - px + side - 1, py, px]
            if attention.collect:
                weights[qy, qx, py, px] = value
            else:
                weights[py, px, qy, qx] = value
        weights = weights.reshape(side**2, side**2).softmax(0)
        expected = (reduced[0].flatten(1) @ weights).view(4, side, side)
        torch.testing.assert_close(attention(x, True)[0], expected)


def test_the_channel_energy_does_not_overflow_in_16_bits():
    """Sums over many pixels of large features: infinite in float16, and weights then NaN."""
    net = build_model(tiny_model(context="danet", head_channels=16), 4, (64, 64))
    module = net.context.branches["channel"][1]
    module.gamma.data.fill_(1.0)
    x = torch.full((1, 16, 40, 40), 100.0, dtype=torch.float16)
    assert (x.flatten(2) @ x.flatten(2).transpose(1, 2)).isinf().any()
    assert module(x).isfinite().all()


def test_occurrence_is_of_classes_in_the_crop():
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    mask = torch.tensor([[[0, 2], [255, 0]]], dtype=torch.uint8)
    target = torch.tensor([[1.0, 0.0, 1.0]])
    expected = nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert occurrence_loss(logits, mask) == expected


def oracle(name: str, **options):
    """A head of mmsegmentation; the test is skipped where it is not installed."""
    if importlib.util.find_spec("mmseg") is None or importlib.util.find_spec("mmcv") is None:
        pytest.skip("mmsegmentation is not installed: make test-oracles.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmseg.models import decode_heads

    options |= {"channels": 32, "num_classes": 5, "norm_cfg": {"type": "BN"}}
    options = {"in_channels": 24, "in_index": 0, "align_corners": True} | options
    options["dropout_ratio"] = 0.0
    return getattr(decode_heads, name)(**options)


def compare(ours, classifier, theirs, names: list[str], inputs, run=None, run_theirs=None):
    """Give both the same weights, by order, and compare outputs and gradients of the inputs.

    ``names`` lists their top-level modules in the order of ours; ``inputs`` is a size of square
    features or a list of features; ``run`` and ``run_theirs`` take them.
    """
    if isinstance(inputs, int):
        inputs = [torch.randn(2, 24, inputs, inputs)]
    run, run_theirs = run or (lambda x: ours(x)), run_theirs or (lambda x: theirs([x]))
    torch.manual_seed(0)
    pairs = zip(ordered(nn.Sequential(ours, classifier), []), ordered(theirs, names), strict=True)
    for (name, value), (other, target) in pairs:
        assert value.shape == target.shape, (name, other)
        if name.endswith("running_var"):
            target.data.uniform_(0.5, 2)
        elif name.endswith("gamma"):
            target.data.fill_(0.7)
        elif target.is_floating_point():
            target.data.copy_(0.2 * torch.randn(target.shape))
        value.data.copy_(target)
    ours.eval(), theirs.eval()
    inputs = [each.requires_grad_() for each in inputs]
    outputs = [classifier(run(*inputs)), run_theirs(*inputs)]
    outputs[1] = outputs[1][0] if isinstance(outputs[1], tuple) else outputs[1]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5 * outputs[0].abs().max().item())
    direction = torch.randn(outputs[0].shape)
    found = [torch.autograd.grad(each, inputs, direction) for each in outputs]
    for grads in zip(*found, strict=True):
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5 * grads[0].abs().max().item())


def ordered(module: nn.Module, names: list[str]) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers but for counters, in the order of the named parts."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    keys = [key for key in module.state_dict() if not key.endswith("num_batches_tracked")]
    if names:
        keys = [key for name in names for key in keys if key.startswith(name + ".") or key == name]
    return [(key, state[key]) for key in keys]


def classify() -> nn.Module:
    return nn.Conv2d(32, 5, 1)


def test_pspnet_is_mmsegmentations():
    theirs = oracle("PSPHead", pool_scales=(1, 2, 3, 6))
    names = ["psp_modules", "bottleneck", "conv_seg"]
    compare(PSPNet(24, 32), classify(), theirs, names, 13)


def test_danet_is_mmsegmentations():
    theirs = oracle("DAHead", pam_channels=4)
    ours = DANet(24, 5, 32, dropout=0.0)
    ours.classifiers = nn.ModuleDict()  # Their extra classifiers have no part in the output.
    position, channel = (f"{kind}_{{}}" for kind in ("pam", "cam"))
    inner = [f"pam.{name}" for name in ("query_project", "key_project", "value_project")]
    names = [position.format("in_conv"), "pam.gamma", *inner, position.format("out_conv")]
    names += [channel.format("in_conv"), "cam.gamma", channel.format("out_conv"), "conv_seg"]
    compare(ours, classify(), theirs, names, 9)


def test_encnet_is_mmsegmentations():
    listed = {"in_channels": [24], "in_index": [0]}
    theirs = oracle("EncHead", num_codes=6, use_se_loss=True, add_lateral=False, **listed)
    ours = EncNet(24, 5, 32, codes=6)
    names = ["bottleneck", "enc_module.encoding_project", "enc_module.encoding"]
    names += ["enc_module.fc", "se_layer", "conv_seg"]
    compare(ours, classify(), theirs, names, 9)


def cc_attention():
    """mmcv's criss-cross attention in pure PyTorch, whose package needs compiled operators."""
    folder = Path(importlib.util.find_spec("mmcv").origin).parent
    spec = importlib.util.spec_from_file_location("cc_attention", folder / "ops/cc_attention.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CrissCrossAttention


def test_ccnet_is_mmsegmentations(monkeypatch):
    oracle("PSPHead")  # It skips the test where mmsegmentation is missing.
    from mmseg.models.decode_heads import cc_head

    monkeypatch.setattr(cc_head, "CrissCrossAttention", cc_attention())
    theirs = oracle("CCHead", recurrence=2)
    ours = CCNet(24, 32, slope=0.0)
    inner = [f"cca.{name}" for name in ("query_conv", "key_conv", "value_conv")]
    names = ["convs.0", "cca.gamma", *inner, "convs.1", "conv_cat", "conv_seg"]
    compare(ours, classify(), theirs, names, 9)


class GatheredMask(nn.Module):
    """mmcv's PSAMask, whose operator is compiled: the definition of its documentation, by loops."""

    def __init__(self, psa_type, mask_size):
        super().__init__()
        self.collect, self.half = psa_type == "collect", (mask_size[0] - 1) // 2

    def forward(self, masks):
        count, channels, height, width = masks.shape
        side = int(channels**0.5)
        out = masks.new_zeros(count, height, width, height, width)
        views = masks.view(count, side, side, height, width)
        for qy, qx, py, px in torch.cartesian_prod(
            *map(torch.arange, (height, width, height, width))
        ).tolist():
            value = views[:, qy - py + self.half, qx - px + self.half, py, px]
            if self.collect:
                out[:, qy, qx, py, px] = value
            else:
                out[:, py, px, qy, qx] = value
        return out.view(count, height * width, height, width)


def test_psanet_is_mmsegmentations(monkeypatch):
    oracle("PSPHead")
    from mmseg.models.decode_heads import psa_head

    monkeypatch.setattr(psa_head, "PSAMask", GatheredMask)
    theirs = oracle("PSAHead", mask_size=(9, 9), psa_type="bi-direction", shrink_factor=2)
    theirs.proj.conv.padding = (0, 0)  # Theirs pads a 1x1 convolution.
    names = ["reduce", "attention", "reduce_p", "attention_p", "proj", "bottleneck", "conv_seg"]
    compare(PSANet(24, (9, 9), 32), classify(), theirs, names, 9)


def test_ocrnets_guess_lies_where_its_features_do():
    """At 1/32 the guess has cells between; with corner alignment every second is a feature's."""
    torch.manual_seed(0)
    features, guess = torch.randn(2, 24, 5, 9), torch.randn(2, 7, 9, 17)
    net = OCRNet(24, 32, align_corners=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(net((features, guess)), net((features, guess[..., ::2, ::2])))
    cfg = tiny_model(context="ocrnet", decoder="none", output_stride=32, align_corners=True)
    assert build_model(cfg, 7).context.align_corners


def test_ocrnet_is_mmsegmentations():
    theirs = oracle("OCRHead", ocr_channels=16)
    block = "object_context_block"
    inner = [f"{block}.{part}_project" for part in ("query", "key", "value", "out")]
    names = ["bottleneck", *inner, f"{block}.bottleneck", "conv_seg"]
    ours = OCRNet(24, 32)
    inputs = [torch.randn(2, 24, 9, 9), torch.randn(2, 5, 9, 9)]
    compare(
        ours,
        classify(),
        theirs,
        names,
        inputs,
        lambda x, guess: ours((x, guess)),
        lambda x, guess: theirs([x], guess),
    )


def test_deeplabv3plus_is_mmsegmentations():
    theirs = oracle(
        "DepthwiseSeparableASPPHead", c1_in_channels=12, c1_channels=6, dilations=(1, 2, 4, 6)
    )
    ours = nn.ModuleList(
        [
            SeparableASPP(24, 32, rates_at_8=(2, 4, 6)),
            DeepLabV3Plus([12], 32, 32, True, low_channels=6),
        ]
    )
    names = ["image_pool", "aspp_modules", "bottleneck", "c1_bottleneck", "sep_bottleneck"]
    inputs = [torch.randn(2, 24, 9, 9), torch.randn(2, 12, 17, 17)]
    theirs.in_index = 1
    compare(
        ours,
        classify(),
        theirs,
        [*names, "conv_seg"],
        inputs,
        lambda x, low: ours[1](ours[0](x), low),
        lambda x, low: theirs([low, x]),
    )


def test_upernet_is_mmsegmentations():
    channels = [6, 12, 18, 24]
    theirs = oracle("UPerHead", in_channels=channels, in_index=[0, 1, 2, 3])
    ours = nn.ModuleList([PSPNet(24, 32), UPerNet(channels, 32, True)])
    names = ["psp_modules", "bottleneck", "lateral_convs", "fpn_convs", "fpn_bottleneck"]
    inputs = [torch.randn(2, c, n, n) for c, n in zip(channels, (33, 17, 9, 7), strict=True)]
    compare(
        ours,
        classify(),
        theirs,
        [*names, "conv_seg"],
        inputs,
        lambda *levels: ours[1](ours[0](levels[-1]), *levels[:3]),
        lambda *levels: theirs(list(levels)),
    )


def test_alignsegs_warp_moves_by_pixels():
    """At 0 it is the identity; at (1, 0) each pixel takes its right neighbour."""
    x = torch.randn(1, 3, 5, 7, dtype=torch.float64)
    zero = torch.zeros(1, 2, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(warp(x, zero), x)
    right = zero.clone()
    right[:, 0] = 1
    torch.testing.assert_close(warp(x, right)[..., :-1], x[..., 1:])
    # Other sizes are interpolated from corner to corner.
    torch.testing.assert_close(
        warp(x, torch.zeros(1, 2, 9, 13, dtype=torch.float64)),
        nn.functional.interpolate(x, (9, 13), mode="bilinear", align_corners=True),
    )


def test_a_level_of_fapn_starts_as_a_plain_convolution():
    """Offsets start at 0, and the modulation at a half."""
    torch.manual_seed(0)
    level = FeatureAlign(6, 16, False).double().eval()
    initialise(level, "level", 0)
    above, low = (torch.randn(1, c, 4, 6, dtype=torch.float64) for c in (16, 6))
    plain = nn.functional.conv2d(above, level.weight, padding=1) / 2
    torch.testing.assert_close(level(above, low), plain.relu() + level.lateral(low))


def test_gates_of_gff_take_what_a_level_lacks():
    """Where a gate is open, a level keeps its own, twice; where it is shut, it takes the others."""
    net = GFF([4, 4, 4, 4], 4, 4).eval()
    seen = []
    for n, convs in enumerate(net.convs):
        net.reduce_convs[n] = nn.Identity()
        convs.register_forward_pre_hook(lambda _, args, n=n: seen.append((n, args[0])))
        gate = net.gates[n] = nn.Conv2d(4, 4, 1)
        nn.init.zeros_(gate.weight), nn.init.constant_(gate.bias, 100.0 if n < 2 else -100.0)
    levels = [torch.randn(1, 4, 8, 8) for _ in range(4)]
    net(levels[0], *levels)
    found = dict(seen)
    torch.testing.assert_close(found[0], 2 * levels[0])
    torch.testing.assert_close(found[3], levels[3] + levels[0] + levels[1])


def test_sweeps_of_reseg_reach_every_pixel():
    torch.manual_seed(0)
    net = ReSeg(4, 8, hidden=3, layers=1).eval()
    x = torch.randn(1, 4, 4, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x)[0, :, 1, 2].sum(), x)
    assert (grad.abs().sum(1) > 0).all()


def test_dupsampling_predicts_the_pixels_under_a_feature():
    """Filters are ordered by row, column and class, as `nn.PixelShuffle` reads class first."""
    net = LearnedUpsampling(2, 3, 4)
    x = torch.randn(1, 2, 2, 2)
    logits = net(x)
    assert logits.shape == (1, 3, 8, 8)
    values = net.conv(x)[0, :, 1, 0].view(3, 4, 4)
    torch.testing.assert_close(logits[0, :, 4:, :4], values)


def test_dupsampling_starts_from_the_best_linear_code_of_masks():
    torch.manual_seed(0)
    squares = torch.randint(0, 3, (40, 4, 4))
    squares[:5, 0] = 255
    net = LearnedUpsampling(6, 3, 4)
    share = net.fit(squares)
    truth = (squares[:, None] == torch.arange(3).view(-1, 1, 1)).flatten(1).float()
    weight = net.conv.weight.detach()[:, :, 0, 0]
    torch.testing.assert_close(weight.T @ weight, torch.eye(6))
    # No six numbers can reconstruct with a smaller error than the first singular vectors do.
    left = torch.linalg.svdvals(truth)[6:].square().sum()
    torch.testing.assert_close((truth - truth @ weight @ weight.T).square().sum(), left)
    logits = net((truth @ weight)[..., None, None])
    labelled = squares != 255
    torch.testing.assert_close(share, (logits.argmax(1) == squares)[labelled].float().mean().item())


def test_dupsampling_leaves_columns_that_masks_do_not_need():
    torch.manual_seed(0)
    net = LearnedUpsampling(6, 3, 4)
    before = net.conv.weight.detach().clone()
    patterns = torch.randint(0, 3, (2, 4, 4))
    assert net.fit(patterns[torch.arange(20) % 2]) == 1
    changed = (net.conv.weight != before).flatten(2).any(2).any(0)
    assert changed.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("name", PINS)
def test_every_arm_trains(name):
    """Every parameter gets a gradient, at an odd size too, in bfloat16 too; one image or a word."""
    cfg = small_arm(f"zoo/{name}")
    net = awake(cfg, 5)
    size = (64, 64) if name == "psanet" else (40, 70)
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    for low in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits, extras = net.train()(image)
        outputs = [logits, *extras.values()]
        sum((each.float() * torch.randn(each.shape)).sum() for each in outputs).backward()
        zero = [
            key
            for key, value in net.named_parameters()
            if value.grad is None or not value.grad.isfinite().all() or not value.grad.any()
        ]
        assert not zero
    weights = {"aux": 0.4, **net.context.extra_weights}
    weights |= net.decoder.extra_weights
    assert extras.keys() <= weights.keys()
    again = build_model(cfg, 5, (64, 64)).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(image)[0], net.eval()(image)[0])
    try:
        net.train()(image[:1])
    except ValueError as error:
        assert "needs 2 images" in str(error)


def test_what_lies_in_a_resnet_is_left_out_of_other_backbones():
    whole = compose_config("train", ["model=cyclenet", "arm=zoo/spnet"]).model
    assert whole.strip_pooling and whole.multi_grid == [1, 2, 4]
    for other in (["model=cyclenet_lite"], ["model=cyclenet", "model.freeze_backbone=true"]):
        model = compose_config("train", [*other, "arm=zoo/spnet"]).model
        assert not model.strip_pooling and model.multi_grid == []


SWEEPS = ["table3", "table4", "zoo", "zoo_heads", "heads", "heads_scenes", "heads_unfrozen"]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_job_of_a_sweep_can_be_built(name):
    values = yaml.safe_load((ROOT / f"conf/experiment/{name}.yaml").read_text())
    axes = values["hydra"]["sweeper"]["params"]
    others = [f"{key}={str(axes[key]).split(',')[0]}" for key in axes if key != "arm"]
    for arm in axes["arm"].split(","):
        words = [f"experiment={name}", f"arm={arm}", "optim.lr=0.1", *others]
        cfg = compose_config("train", words)
        meta_model(cfg.model, 5, tuple(cfg.dataset.crop_size))


def test_every_arm_is_pinned():
    arms = {path.stem for path in (ROOT / "conf/arm/zoo").glob("*.yaml")}
    assert arms == PINS.keys()
