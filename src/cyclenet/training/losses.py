"""Cross entropy over the valid pixels of the whole, global batch; hard example mining."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cyclenet.config.schema import LossConfig
from cyclenet.labels import IGNORE
from cyclenet.models.layers import is_parallel
from cyclenet.models.resize import Grid, combine_rows, resize_rows, row_weights, strips


class SegmentationLoss(nn.Module):
    """Cross entropy on logits, which it upsamples to the mask's size strip by strip.

    It is the mean over the valid pixels of the batch of *all* processes: each divides its own sum
    by everyone's number of pixels (or their weight, with ``class_weights``). DDP averages gradients
    over processes, so the loss is multiplied by their number. Its value is the joined batch's on
    every process. A batch without a valid pixel has loss 0 and gradient 0.

    Args:
        cfg: class weights and OHEM. As in semseg and CCNet, mining keeps the pixels whose true
            class has a probability below ``ohem_threshold``, and at least the ``ohem_min_kept``
            hardest; here they are those of the joined batch.
        num_classes: number of classes, which the number of class weights must be.
        grid: how the logits lie over the mask.

    Raises:
        ValueError: the number of class weights differs from the number of classes.
    """

    class_weights: Tensor | None

    def __init__(self, cfg: LossConfig, num_classes: int, grid: Grid) -> None:
        super().__init__()
        self.cfg, self.grid = cfg, grid
        weights = None
        if cfg.class_weights is not None:
            weights = torch.tensor(cfg.class_weights, dtype=torch.float32)
            if len(weights) != num_classes:
                raise ValueError(
                    f"loss.class_weights has {len(weights)} values for {num_classes} classes."
                )
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of logits (N, C, h, w) against a mask (N, H, W), 255 ignored."""
        target = mask
        if self.cfg.ohem_threshold is not None:
            target = target.masked_fill(~self._hard(logits.detach(), target), IGNORE)
        losses: Tensor = _StripCrossEntropy.apply(logits, target, self.class_weights, self.grid)
        total, least = self._weight(target, losses), torch.finfo(losses.dtype).tiny
        if not is_parallel():
            return losses / total.clamp(min=least)
        joined = torch.stack([losses.detach(), total])
        dist.all_reduce(joined)
        total = joined[1].clamp(min=least)
        # The gradient is this process's, and the value that of all.
        loss = losses * dist.get_world_size() / total
        return loss + (joined[0] / total - loss).detach()

    def _weight(self, target: Tensor, like: Tensor) -> Tensor:
        """Return the number of pixels that count, or the sum of their weights."""
        if self.class_weights is None:
            return (target != IGNORE).sum().to(like)
        pixels = _count_values(target)
        return (pixels[: len(self.class_weights)] * self.class_weights.to(like.dtype)).sum()

    def _hard(self, logits: Tensor, target: Tensor) -> Tensor:
        """Tell which pixels mining keeps."""
        logits = logits.to(_exact(logits))
        losses = torch.empty(target.shape, dtype=logits.dtype, device=logits.device)
        for rows in strips(target.shape[1], _strip_rows(logits)):
            upsampled = resize_rows(logits, target.shape[-2:], rows, self.grid)
            losses[:, rows] = _cross_entropy(upsampled, target[:, rows], None)
        # The probability of the true class. Ignored pixels get 2, so they are never the hardest.
        probability = (-losses).exp().masked_fill(target == IGNORE, 2.0)
        joined = probability.flatten()
        if is_parallel():
            parts = [torch.empty_like(joined) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, joined)
            joined = torch.cat(parts)
        kept = min(self.cfg.ohem_min_kept, joined.numel())
        threshold = joined.kthvalue(kept).values.clamp(min=self.cfg.ohem_threshold)
        return probability <= threshold


def occurrence_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the binary cross entropy of which classes occur (N, C), against masks (N, H, W).

    The value is the mean over all processes. Source: EncNet's SE loss.
    """
    pixels = torch.stack([_count_values(one) for one in mask])
    occurs = (pixels[:, : logits.shape[1]] > 0).to(_exact(logits))
    loss = F.binary_cross_entropy_with_logits(logits.to(occurs.dtype), occurs)
    if not is_parallel():
        return loss
    joined = loss.detach().clone()
    dist.all_reduce(joined)
    return loss + (joined / dist.get_world_size() - loss).detach()


def _count_values(mask: Tensor) -> Tensor:
    # `bincount` makes the host wait for a GPU.
    values = mask.flatten().long()
    counts = torch.zeros(IGNORE + 1, dtype=torch.long, device=mask.device)
    return counts.scatter_add_(0, values, torch.ones_like(values))


class _StripCrossEntropy(torch.autograd.Function):
    """Sum of the cross entropy of logits upsampled to the target, strip by strip of its rows.

    The gradient is made along with the value, while a strip's upsampled logits are there. Only a
    strip is ever held of the upsampled logits, their softmax and its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, class_weights: Tensor | None, grid: Grid
    ) -> Tensor:
        wanted, exact = ctx.needs_input_grad[0], _exact(logits)
        total = torch.zeros((), dtype=exact, device=logits.device)
        grad = torch.zeros_like(logits, dtype=exact) if wanted else None
        height, width = grid.padded(target.shape[1:])
        for rows in strips(target.shape[1], _strip_rows(logits)):
            needed, matrix = row_weights(
                logits.shape[2], height, rows, grid.align_corners, like=total
            )
            no_autocast = torch.autocast(logits.device.type, enabled=False)
            with torch.set_grad_enabled(wanted), no_autocast:
                part = logits[..., needed, :].to(exact).detach().requires_grad_(wanted)
                wide = combine_rows(part, matrix, width, grid.align_corners)
                upsampled = wide[..., : target.shape[2]]
                loss = _cross_entropy(upsampled, target[:, rows], class_weights).sum()
            total += loss.detach()
            if grad is not None:
                grad[..., needed, :] += torch.autograd.grad(loss, part)[0]
        ctx.save_for_backward(grad)
        ctx.dtype = logits.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * scale).to(ctx.dtype), None, None, None


def _cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None) -> Tensor:
    # It is returned for each pixel, because PyTorch's own sum is in no fixed order on GPUs.
    weights = None if class_weights is None else class_weights.to(logits.dtype)
    return F.cross_entropy(logits, target.long(), weights, ignore_index=IGNORE, reduction="none")


def _exact(logits: Tensor) -> torch.dtype:
    # Sums are float32 at least: bfloat16 has 8 bits for the sum of thousands of pixels.
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _strip_rows(logits: Tensor) -> int:
    # On a CPU a strip stays in the caches; on a GPU, few large operations are fast.
    return 16 if logits.device.type == "cpu" else 256
