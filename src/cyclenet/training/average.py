"""The moving average of the weights, by Lightning's own callback."""

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class AverageWeights(WeightAveraging):
    """Average weights and statistics after each optimizer step; validate and keep the average.

    A checkpoint holds the average as its weights, so whatever reads it uses the average, and the
    weights that are trained beside it, so a resumed run continues with those.

    Args:
        decay: what is kept of the average at a step. It begins lower, as in timm and TensorFlow: at
            step n it is at most (1 + n) / (10 + n), so that the random beginning is soon forgotten.
    """

    def __init__(self, decay: float) -> None:
        def average(before: Tensor, now: Tensor, steps: Tensor | int) -> Tensor:
            kept = min(decay, float(1 + steps) / float(10 + steps))
            # What does not change, such as a frozen backbone, stays as it is to the last bit.
            return torch.lerp(before, now, 1 - kept) if now.is_floating_point() else now

        super().__init__(avg_fn=average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # The module is moved there later.
        super().setup(trainer, pl_module, stage)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run that continues after its last step trains no more, and Lightning copies the average
        # only where training ends.
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)
