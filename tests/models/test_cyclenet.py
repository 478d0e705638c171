import itertools
import re

import pytest
import torch

from conftest import tiny_model
from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.models.cyclenet import build_model
from cyclenet.models.layers import avoid_slow_cpu_kernels

# Every context module and every decoder: beside none, and the paper's own beside each other.
PAPERS = ("none", "aspp", "cycleaspp"), ("none", "skip", "adc")
ARMS = [
    (context, decoder)
    for context, decoder in itertools.product(CONTEXTS, DECODERS)
    if "none" in (context, decoder) or (context in PAPERS[0] and decoder in PAPERS[1])
]


@pytest.mark.parametrize(("context", "decoder"), ARMS)
def test_every_parameter_of_every_arm_gets_a_gradient(context, decoder):
    """Every arm builds only what it uses, so DDP needs no find_unused_parameters."""
    net = build_model(tiny_model(context=context, decoder=decoder), 5, (64, 64)).train()
    for name, parameter in net.named_parameters():
        if name.endswith("gamma"):  # It starts at 0, and hides what an attention computes.
            parameter.data.fill_(0.7)
    logits, extras = net(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    own = {*net.context.extra_weights, *net.decoder.extra_weights}
    assert set(extras) == {"aux", *own}
    sum((each.square().mean() for each in extras.values()), logits.square().mean()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert not without
    # Nor is one multiplied by zero, but for what starts behind a zero: the offset branch, and
    # timm's residual blocks, FaPN's and AlignSeg's displacements.
    dead = [name for name, p in net.named_parameters() if not p.grad.any()]
    behind = re.compile(r"backbone\.|.*(offset_conv|difference|move|move_high|move_low)\.0")
    assert all(behind.match(name) or ".difference." in name for name in dead)


@pytest.mark.parametrize("size", [(33, 47), (64, 64)])
@pytest.mark.parametrize(("context", "decoder"), ARMS)
def test_any_size_and_batch_one(context, decoder, size):
    net = build_model(tiny_model(context=context, decoder=decoder), 5, (64, 64))
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    if context == "psanet":
        with pytest.raises(ValueError, match="evaluate by windows"):
            net.eval()(torch.zeros(1, 3, 64, 72))
    logits, extras = net.eval()(image)
    stride = {"none": 8, "bisenet": 8, "dupsampling": 1}.get(decoder, 4)
    height, width = (side // stride for side in net.grid.padded(size))
    assert logits.shape == (1, 5, height, width) and extras == {}
    if context in ("pspnet", "deeplabv3plus") or decoder == "bisenet":
        with pytest.raises(ValueError, match="needs 2 images"):
            net.train()(image)
        return
    net.train()(image)[0].sum().backward()


@pytest.mark.parametrize("context", ["reseg", "identity"])
def test_a_decoder_has_the_width_of_its_context(context):
    net = build_model(tiny_model(context=context, decoder="adc"), 5).eval()
    assert net.decoder.out_channels == net.context.out_channels != 16
    assert net(torch.zeros(1, 3, 64, 64))[0].shape == (1, 5, 16, 16)


def test_an_image_smaller_than_the_crop_is_padded_to_it_where_the_context_needs_that():
    """PSANet on a small image equals PSANet on the image in a crop of the mean colour."""
    torch.manual_seed(0)
    net = build_model(tiny_model(context="psanet", decoder="none"), 5, (64, 64)).eval()
    image = torch.randint(0, 256, (1, 3, 33, 50)).float()
    crop = (net.mean.view(1, 3, 1, 1)).expand(1, 3, 64, 64).clone()
    crop[..., :33, :50] = image
    torch.testing.assert_close(net(image)[0], net(crop)[0][..., :5, :7])


def test_normalisation_is_in_the_model():
    net = build_model(tiny_model(), 5).eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    mean, std = (
        torch.tensor(net.backbone.mean).view(3, 1, 1),
        torch.tensor(net.backbone.std).view(3, 1, 1),
    )
    by_hand = net.backbone((image / 255.0 - mean) / std)
    for a, b in zip(net.features(image), by_hand, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert {"mean", "std"} <= net.state_dict().keys()


def test_paper_widths():
    """resnet101s at 1/8, 256 channels at 1/4, offsets for 9 taps."""
    with torch.device("meta"):
        from cyclenet.config.model import ModelConfig

        net = build_model(ModelConfig(backbone_weights="none"), 19).eval()
    assert net.backbone.channels == [256, 512, 1024, 2048]
    assert [layer.atrous.dilation[0] for layer in net.context.layers] == [3, 6, 12, 18, 24, 30]
    assert net.context.fuse_conv[0].in_channels == 1024 + 6 * 128
    assert net.decoder.offset_conv[-1].out_channels == 27


def test_convolutions_that_break_in_bfloat16_on_a_cpu_compute_in_float32():
    """torch 2.14.1 gives NaN gradients for dilated convolutions of 87 channels, channels-last, in
    bfloat16 hardware, which this test cannot assume: it looks at the dtype that they compute in.
    """
    net = build_model(tiny_model(bottleneck_channels=87, growth_channels=43), 4)
    seen: dict[str, torch.dtype] = {}
    for name, module in net.context.named_modules():
        if isinstance(module, torch.nn.Conv2d) and name.endswith("atrous"):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = net(torch.zeros(2, 3, 64, 64))
    logits.float().sum().backward()
    # The filter of rate 1 is not dilated.
    assert [seen[f"layers.{n}.atrous"] for n in range(3)] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_taps_far_apart_are_computed_in_the_layout_of_their_filter():
    """A depthwise 5x5 filter at rate 4 gives what a plain one gives."""
    conv = torch.nn.Conv2d(8, 8, 5, padding=8, dilation=4, groups=8, bias=False)
    x = torch.randn(2, 8, 20, 20).to(memory_format=torch.channels_last)
    expected = conv(x)
    module = torch.nn.Sequential(conv).to(memory_format=torch.channels_last)
    avoid_slow_cpu_kernels(module)
    assert torch.allclose(module(x), expected, atol=1e-5)
    assert module(x).is_contiguous()
