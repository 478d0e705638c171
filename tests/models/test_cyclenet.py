import itertools

import pytest
import torch

from conftest import tiny_model
from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.models.cyclenet import build_model

ARMS = list(itertools.product(CONTEXTS, DECODERS))


@pytest.mark.parametrize(("context", "decoder"), ARMS)
def test_every_parameter_of_every_arm_gets_a_gradient(context, decoder):
    """Every arm builds only what it uses, so DDP needs no find_unused_parameters."""
    net = build_model(tiny_model(context=context, decoder=decoder), 5).train()
    logits, aux = net(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    (logits.square().mean() + aux.square().mean()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert not without
    # Nor is one multiplied by zero, but for what starts behind a zero: the offset branch, and
    # timm's residual blocks.
    dead = [name for name, p in net.named_parameters() if not p.grad.any()]
    assert all(name.startswith(("backbone.", "decoder.offset_conv.0")) for name in dead)


@pytest.mark.parametrize("size", [(33, 47), (64, 64)])
@pytest.mark.parametrize(("context", "decoder"), ARMS)
def test_any_size_and_batch_one(context, decoder, size):
    net = build_model(tiny_model(context=context, decoder=decoder), 5)
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    logits, aux = net.eval()(image)
    height, width = (side // (8 if decoder == "none" else 4) for side in net.grid.padded(size))
    assert logits.shape == (1, 5, height, width) and aux is None
    net.train()(image)[0].sum().backward()


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
        from cyclenet.config.schema import ModelConfig

        net = build_model(ModelConfig(backbone_weights="none"), 19).eval()
    assert net.backbone.channels == [256, 1024, 2048]
    assert [layer.atrous.dilation[0] for layer in net.context.layers] == [3, 6, 12, 18, 24, 30]
    assert net.context.fuse_conv[0].in_channels == 1024 + 6 * 128
    assert net.decoder.offset_conv[-1].out_channels == 27
