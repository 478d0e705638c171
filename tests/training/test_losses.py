import pytest
import torch
import torch.nn.functional as F

from cyclenet.config.schema import LossConfig
from cyclenet.models.resize import Grid
from cyclenet.training.losses import SegmentationLoss


def example(ignored=0.3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 5, dtype=torch.float64, generator=generator).requires_grad_()
    mask = torch.randint(0, 4, (2, 6, 5), generator=generator)
    mask[torch.rand(2, 6, 5, generator=generator) < ignored] = 255
    return logits, mask.byte()


def test_plain_is_torchs():
    logits, mask = example()
    loss = SegmentationLoss(LossConfig(), 4, Grid(1, False))(logits, mask)
    torch.testing.assert_close(loss, F.cross_entropy(logits, mask.long(), ignore_index=255))


def test_class_weights_are_torchs():
    logits, mask = example()
    weights = [1.0, 0.5, 3.0, 2.0]
    loss = SegmentationLoss(LossConfig(class_weights=weights), 4, Grid(1, False)).double()(
        logits, mask
    )
    expected = F.cross_entropy(
        logits, mask.long(), torch.tensor(weights, dtype=torch.float64), ignore_index=255
    )
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match="3 values for 4 classes"):
        SegmentationLoss(LossConfig(class_weights=[1, 1, 1]), 4, Grid(1, False))


def test_logits_are_upsampled_to_the_mask():
    logits, _ = example()
    mask = torch.zeros(2, 24, 20, dtype=torch.uint8)
    for align_corners in (False, True):
        upsampled = F.interpolate(logits, (24, 20), mode="bilinear", align_corners=align_corners)
        loss = SegmentationLoss(LossConfig(), 4, Grid(1, align_corners))(logits, mask)
        torch.testing.assert_close(loss, F.cross_entropy(upsampled, mask.long()))


@pytest.mark.parametrize(
    "cfg",
    [
        LossConfig(),
        LossConfig(ohem_threshold=0.7, ohem_min_kept=3),
        LossConfig(class_weights=[1, 2, 3, 4]),
    ],
)
def test_a_batch_without_a_valid_pixel_has_loss_zero(cfg):
    logits, mask = example(ignored=2.0)
    loss = SegmentationLoss(cfg, 4, Grid(1, False)).double()(logits, mask)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


@pytest.mark.parametrize("min_kept", [1, 10, 10_000])
def test_ohem_keeps_the_hard_and_at_least_so_many(min_kept):
    logits, mask = example()
    loss = SegmentationLoss(
        LossConfig(ohem_threshold=0.2, ohem_min_kept=min_kept), 4, Grid(1, False)
    )(logits, mask)
    valid = mask != 255
    each = F.cross_entropy(logits, mask.long(), ignore_index=255, reduction="none")[valid]
    hard = (-each).exp() <= 0.2
    hardest = each.sort(descending=True).values[: max(min_kept, int(hard.sum()))]
    torch.testing.assert_close(loss, hardest.mean())


def test_half_precision_logits_are_summed_in_float32():
    logits, mask = example()
    low = SegmentationLoss(LossConfig(), 4, Grid(1, False))(logits.bfloat16(), mask)
    assert (
        low.dtype == torch.float32
        and abs(low - F.cross_entropy(logits, mask.long(), ignore_index=255)) < 0.01
    )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(37, 50), (16, 16), (5, 80), (6, 5), (1, 1)])
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 3.0, 2.0]])
def test_strips_are_the_whole_in_value_and_gradient(size, weights, align_corners):
    """More and fewer rows than a strip has, up and down, with ignored pixels."""
    logits, _ = example()
    generator = torch.Generator().manual_seed(1)
    mask = torch.randint(0, 4, (2, *size), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < 0.3] = 255
    mask[0, 0, 0] = 1
    loss = 3 * SegmentationLoss(
        LossConfig(class_weights=weights), 4, Grid(1, align_corners)
    ).double()(logits, mask.byte())
    upsampled = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    each = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = 3 * F.cross_entropy(upsampled, mask, each, ignore_index=255)
    # PyTorch interpolates double tensors in double, but computes the scale in a way of its own.
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (a,), (b,) = (torch.autograd.grad(value, logits) for value in (loss, expected))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_under_autocast_the_loss_is_float32s():
    logits, mask = example()
    exact = SegmentationLoss(LossConfig(), 4, Grid(1, False))(logits.detach().float(), mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            SegmentationLoss(LossConfig(), 4, Grid(1, False))(logits.detach().float(), mask), exact
        )


def test_only_a_strip_of_upsampled_logits_is_held():
    """Of 64 x 64 logits for a 1024 x 1024 mask, no tensor has more elements than a strip."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for value in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(value, torch.Tensor):
                    self.elements = max(self.elements, value.numel())
            return out

    logits = torch.randn(1, 8, 64, 64, requires_grad=True)
    mask = torch.zeros(1, 1024, 1024, dtype=torch.uint8)
    with Largest() as largest:
        SegmentationLoss(LossConfig(), 8, Grid(1, False))(logits, mask).backward()
    assert (
        largest.elements <= 1024 * 1024
    )  # Of the mask; whole logits would be eight times as many.
