import pytest
import torch
import torch.nn.functional as F
import torchvision.ops

from cyclenet.models.deform import deform_conv2d, grid_sample_conv


def inputs(groups=1, spread=3.0, kernel=3, dtype=torch.float64, size=(7, 9)):
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    taps = kernel * kernel
    tensors = (
        rand(2, 4, *size),
        spread * rand(2, 2 * groups * taps, *size),
        rand(2, groups * taps, *size).sigmoid(),
        rand(5, 4, kernel, kernel),
    )
    return [tensor.detach().requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("spread", [0.0, 1.0, 50.0, 1e6])
@pytest.mark.parametrize("masked", [True, False])
def test_equals_torchvision_in_value_and_gradient(groups, spread, masked):
    x, offset, mask, weight = inputs(groups, spread)
    used = mask if masked else None
    ours = deform_conv2d(x, offset, used, weight, groups)
    theirs = torchvision.ops.deform_conv2d(x, offset, weight, padding=1, mask=used)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    wanted = (x, offset, mask, weight) if masked else (x, offset, weight)
    for a, b in zip(
        torch.autograd.grad(ours, wanted, direction),
        torch.autograd.grad(theirs, wanted, direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (5, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_any_size_and_odd_kernel(size, kernel):
    x, offset, mask, weight = inputs(kernel=kernel, size=size)
    theirs = torchvision.ops.deform_conv2d(x, offset, weight, padding=kernel // 2, mask=mask)
    torch.testing.assert_close(
        deform_conv2d(x, offset, mask, weight, 1), theirs, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("spread", [1.0, 50.0])
def test_grid_sample_gives_the_same(groups, kernel, spread):
    x, offset, mask, weight = inputs(groups, spread, kernel=kernel)
    for used in (mask, None):
        wanted = deform_conv2d(x, offset, used, weight, groups)
        found = grid_sample_conv(x, offset, used, weight, groups)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_finite_differences():
    x, offset, mask, weight = inputs(2, 1.3, size=(2, 3))
    assert torch.autograd.gradcheck(
        lambda *args: deform_conv2d(*args, 2), (x, offset, mask, weight)
    )


def test_zero_offsets_are_a_convolution_and_whole_offsets_a_shifted_one():
    x, offset, mask, weight = inputs()
    plain = F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(deform_conv2d(x, torch.zeros_like(offset), None, weight, 1), plain)
    half = deform_conv2d(x, torch.zeros_like(offset), torch.full_like(mask, 0.5), weight, 1)
    torch.testing.assert_close(half, plain / 2)
    shift = torch.zeros_like(offset)
    shift[:, 0::2], shift[:, 1::2] = 2, -1  # (dy, dx) interleaved
    moved = deform_conv2d(x, shift, None, weight, 1)
    torch.testing.assert_close(moved[..., 1:-3, 2:-1], plain[..., 3:-1, 1:-2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_and_autocast_stay_close(dtype):
    x, offset, mask, weight = inputs(dtype=torch.float32)
    exact = deform_conv2d(x, offset, mask, weight, 1)
    if dtype == torch.float32:
        low = exact
    else:
        with torch.autocast("cpu", dtype):
            low = deform_conv2d(x, offset, mask, weight, 1)
    assert low.dtype == dtype
    low.float().square().sum().backward()
    assert all(
        t.grad is not None and t.grad.isfinite().all() and t.grad.dtype == torch.float32
        for t in (x, offset, mask, weight)
    )
    assert (low.float() - exact).abs().max() < 0.03 * exact.abs().max()


def test_sampling_positions_stay_exact_under_autocast():
    """300 columns: bfloat16 cannot count that far."""
    x = torch.arange(300.0).view(1, 1, 1, 300).bfloat16().float()
    weight = torch.zeros(1, 1, 3, 3)
    weight[..., 1, 1] = 1
    with torch.autocast("cpu", torch.bfloat16):
        same = deform_conv2d(x, torch.zeros(1, 18, 1, 300), None, weight, 1)
    assert torch.equal(same.float(), x)
