"""The compared systems: parameters and multiply-adds to the last one, outputs of the reference."""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import tiny_model
from cyclenet.config.choices import CONTEXTS
from cyclenet.config.load import compose_config
from cyclenet.lab.cost.count import count_cost, total
from cyclenet.models.contexts.ccnet import CCNet, CrissCrossAttention
from cyclenet.models.contexts.danet import DANet
from cyclenet.models.contexts.encnet import EncNet, Encoding
from cyclenet.models.contexts.psanet import PSANet
from cyclenet.models.contexts.pspnet import PSPNet
from cyclenet.models.cyclenet import build_model
from cyclenet.training.losses import occurrence_loss

# Parameters with a classifier of 19 classes, and multiply-adds (10^9) at 769 x 769, of the parts
# after ResNet-101's features.
PINS = {
    "pspnet": (23_083_539, 177.73),
    "psanet": (33_246_739, 232.74),
    "encnet": (10_000_006, 91.35),
    "danet": (23_954_619, 281.27),
    "ccnet": (23_934_100, 230.35),
    "spnet": (15_623_699, 117.97),
}


@pytest.mark.parametrize("name", PINS)
def test_parameters_and_multiply_adds(name):
    cfg = compose_config("train", [f"arm=zoo/{name}", "model=cyclenet"])
    parts = count_cost(cfg.model, 769, 769, 19)
    head = total([cost for part, cost in parts.items() if part != "backbone"])
    parameters, gmacs = PINS[name]
    assert head.parameters == parameters
    # What only training uses (extra classifiers) is in the parameters, but not executed.
    executed = head.executed / 1e9
    if name == "encnet":  # The pin has residuals, which are no products; ours are two products.
        executed -= 2 * 97**2 * 512 * 32 / 1e9
    assert executed == pytest.approx(gmacs, rel=0.001)


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


def compare(ours: nn.Module, classifier: nn.Module, theirs: nn.Module, names: list[str], size: int):
    """Give both the same weights, by order, and compare outputs and gradients of the input.

    ``names`` lists their top-level modules in the order of ours.
    """
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
    x = torch.randn(2, 24, size, size, requires_grad=True)
    outputs = [classifier(ours(x)), theirs([x])]
    outputs[1] = outputs[1][0] if isinstance(outputs[1], tuple) else outputs[1]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5 * outputs[0].abs().max().item())
    direction = torch.randn(outputs[0].shape)
    grads = [torch.autograd.grad(each, x, direction)[0] for each in outputs]
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


def test_every_compared_system_has_an_arm_that_composes():
    for name in PINS:
        model = compose_config("train", [f"arm=zoo/{name}"]).model
        assert model.context == name and CONTEXTS[name].label
