"""Cross entropy over the valid pixels of the whole, global batch; hard example mining."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cyclenet.config import LossConfig
from cyclenet.data.images import IGNORE
from cyclenet.models.layers import resize


class SegmentationLoss(nn.Module):
    """Cross entropy on logits upsampled to the mask's size.

    The sum over pixels is divided by their number (their weight, with ``class_weights``) over *all* processes, so that
    processes with unequal shares of ignored pixels give the gradient of the joined batch; DDP then averages gradients,
    which the factor world_size undoes. The value is the joined batch's on every process. A batch without a valid pixel has
    loss 0 and gradient 0.

    Args:
        cfg: class weights and OHEM (semseg's and CCNet's: of the pixels whose true class has a probability below
            ``ohem_threshold``, and at least the ``ohem_min_kept`` hardest; ours of the joined batch).
        num_classes: checked against the number of class weights.
        align_corners: of the upsampling.

    Raises:
        ValueError: the number of class weights differs from the number of classes.
    """

    class_weights: Tensor | None

    def __init__(self, cfg: LossConfig, num_classes: int, align_corners: bool) -> None:
        super().__init__()
        self.cfg, self.align_corners = cfg, align_corners
        if cfg.class_weights is not None and len(cfg.class_weights) != num_classes:
            raise ValueError(f"loss.class_weights has {len(cfg.class_weights)} values for {num_classes} classes.")
        weights = None if cfg.class_weights is None else torch.tensor(cfg.class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of logits (N, C, h, w) against a mask (N, H, W) with 255 ignored."""
        target = mask.long()
        # In float32 at least: bfloat16 has 8 bits for the sum of thousands of pixels.
        logits = resize(logits if logits.dtype == torch.float64 else logits.float(), target.shape[-2:], self.align_corners)
        losses = F.cross_entropy(logits, target, self.class_weights, ignore_index=IGNORE, reduction="none")
        counted = target != IGNORE
        if self.cfg.ohem_threshold is not None:
            counted = counted & self._hard(logits.detach(), target)
        weights = counted.to(losses.dtype)
        if self.class_weights is not None:
            weights = weights * self.class_weights[target.clamp(max=len(self.class_weights) - 1)]
        losses = losses * counted
        if not _parallel():
            return losses.sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        joined = torch.stack([losses.detach().sum(), weights.sum()])
        dist.all_reduce(joined)
        total = joined[1].clamp(min=torch.finfo(weights.dtype).tiny)
        # This process's gradient, and the value of all.
        loss = losses.sum() * dist.get_world_size() / total
        return loss + (joined[0] / total - loss).detach()

    def _hard(self, logits: Tensor, target: Tensor) -> Tensor:
        # Probability of the true class; ignored pixels are as easy as can be, and counted out by the caller.
        probability = -F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        probability = probability.exp().masked_fill(target == IGNORE, 2.0)
        joined = probability.flatten()
        if _parallel():
            parts = [torch.empty_like(joined) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, joined)
            joined = torch.cat(parts)
        kept = min(self.cfg.ohem_min_kept, joined.numel())
        threshold = joined.kthvalue(kept).values.clamp(min=self.cfg.ohem_threshold)
        return probability <= threshold


def _parallel() -> bool:
    return dist.is_available() and dist.is_initialized()
