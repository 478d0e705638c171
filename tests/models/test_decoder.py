import pytest
import torch
import torch.nn.functional as F

from conftest import tiny_adc
from cyclenet.models.decoders.skip import SkipDecoder


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("mask_scale", "factor"), [(0.0, 1.0), (1.0, 0.5), (2.0, 1.0)])
def test_adc_starts_as_a_convolution(groups, mask_scale, factor):
    adc = tiny_adc(6, offset_groups=groups, mask_scale=mask_scale).double()
    adc.norm = torch.nn.Identity()
    high, low = torch.randn(2, 16, 8, 9).double(), torch.randn(2, 6, 8, 9).double()
    offset, mask = adc.offsets(high, low)
    assert not offset.any() and (mask is None or bool((mask == factor).all()))
    torch.testing.assert_close(
        adc.alignment(high, low).aligned, factor * F.conv2d(high, adc.weight, padding=1)
    )


def test_adc_realigns_a_shifted_map():
    """Context features that lie 2 px lower and 3 px to the left of the low-level ones are moved
    back by training.
    """
    torch.manual_seed(0)
    adc = tiny_adc(4, head_channels=4, mask_scale=0.0)
    adc.norm = torch.nn.Identity()
    weight = torch.zeros(4, 4, 3, 3)
    weight[range(4), range(4), 1, 1] = 1
    adc.weight = torch.nn.Parameter(weight, requires_grad=False)  # It passes on what it samples.
    optimizer = torch.optim.Adam(adc.offset_conv.parameters(), 3e-2)

    def pair():
        smooth = F.interpolate(torch.randn(4, 4, 4, 5), (24, 30), mode="bicubic")
        return smooth.roll((2, -3), (2, 3)), smooth

    inside = (..., slice(5, -5), slice(6, -6))
    losses = []
    for _ in range(150):
        high, low = pair()
        loss = (adc.alignment(high, low).aligned - low)[inside].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    high, low = pair()
    offset, _ = adc.offsets(high, low)
    centre = offset[:, 8:10][inside].mean((0, 2, 3))  # (dy, dx) of the middle tap
    assert losses[-1] < 0.1 * losses[0]
    torch.testing.assert_close(centre, torch.tensor([2.0, -3.0]), atol=0.5, rtol=0)


def test_skip_ignores_the_offsets_that_it_does_not_have():
    names = {name for name, _ in SkipDecoder(6, 16).named_parameters()}
    assert all(name.startswith("fuse.") for name in names)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adc_trains_under_autocast(dtype):
    adc = tiny_adc(6)
    with torch.autocast("cpu", dtype):
        out = adc(torch.randn(1, 16, 3, 5), torch.randn(1, 6, 11, 18))
    out.float().sum().backward()
    assert out.shape == (1, 16, 11, 18)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adc.parameters())
