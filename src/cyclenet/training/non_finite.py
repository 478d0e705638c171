"""Stop at a loss or a gradient that is not finite, and say where it came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from cyclenet.data.loader import pick
from cyclenet.training.task import SegmentationTask


@dataclass
class _Step:
    """What an optimizer step is computed from, and whether it is finite."""

    number: int
    batches: list[dict[str, Any]]
    losses: list[Tensor]
    weights: list[str]  # These have a gradient.
    finite: Tensor  # It tells this of each loss, then of each gradient.
    arrived: torch.cuda.Event | None  # It happens when `finite` has come from the GPU.

    def is_finite(self) -> bool:
        if self.arrived:
            self.arrived.synchronize()
        return bool(self.finite.all())


class StopAtNonFinite(L.Callback):
    """Stop at a loss or gradient that is not finite, before it reaches the weights.

    The samples are named, or the layer. On a GPU the answer is read during the next step, so that
    the GPU never stands idle; meanwhile the fused optimizer leaves out a step that is not finite
    (``found_inf``). With clipped gradients, which have no fused optimizer
    (`SegmentationTask.configure_optimizers`), and with 16-mixed the host waits in each step. A
    step's batches are held until it is known to be finite.

    Args:
        folder: receives ``step-<n>-rank<r>.pt`` with the batch, the loss and the weights before the
            step (``torch.load(weights_only=True)``). Batch norm's statistics have seen the batch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batches: list[dict[str, Any]] = []  # They are of the step that is computed now.
        self.losses: list[Tensor] = []
        self.step: _Step | None = None  # It is the last one whose answer was not read yet.

    def is_finite(self) -> bool:
        """Tell whether the last step was finite, so that its state may be saved."""
        return self.step is None or self.step.is_finite()

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append(batch)

    def on_before_backward(
        self, trainer: L.Trainer, module: L.LightningModule, loss: Tensor
    ) -> None:
        self.losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: L.Trainer, module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        named = [(name, p.grad) for name, p in module.named_parameters() if p.grad is not None]
        if str(trainer.precision) == "16-mixed":  # Its scaler skips such gradients, and needs some.
            named = []
        norms = torch._foreach_norm([grad for _, grad in named]) if named else []
        finite, arrived = torch.isfinite(torch.stack([*self.losses, *norms])), None
        deferred = self._can_defer(optimizer, str(trainer.precision))
        if deferred:
            cast(Any, optimizer).found_inf = (~finite.all()).float()
            arrived = torch.cuda.Event() if finite.is_cuda else None
            finite = finite.to("cpu", non_blocking=True)
            if arrived:
                arrived.record()
            self._raise_if_not_finite(trainer, module)  # At the step before.
        weights = [name for name, _ in named]
        number = trainer.global_step
        self.step = _Step(number, self.batches, self.losses, weights, finite, arrived)
        self.batches, self.losses = [], []
        if not deferred:
            self._raise_if_not_finite(trainer, module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.is_last_batch or trainer.global_step == trainer.max_steps:
            self._raise_if_not_finite(trainer, module)  # Before a validation, and the end.

    @staticmethod
    def _can_defer(optimizer: torch.optim.Optimizer, precision: str) -> bool:
        first = optimizer.param_groups[0]
        # A gradient scaler has a mark of its own in the place of ours.
        scaled = precision == "16-mixed"
        return bool(first["fused"]) and first["params"][0].is_cuda and not scaled

    def _raise_if_not_finite(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        step = self.step
        if step is None or step.is_finite():
            self.step = None
            return
        # The loss is the joined batch's: all processes stop here, or none.
        for batch, loss in zip(step.batches, step.losses, strict=True):
            if not torch.isfinite(loss):
                self._stop_at_loss(trainer, cast(SegmentationTask, module), step, batch, loss)
        of_weights = step.finite[len(step.losses) :].tolist()
        bad = [name for name, good in zip(step.weights, of_weights, strict=True) if not good]
        raise ValueError(
            f"The gradient of {bad[-1]} ({len(bad)} of {len(step.weights)} weights) is not finite "
            f"at step {step.number}, although the loss is: try trainer.precision=32-true. The "
            "checkpoints are from before."
        )

    def _stop_at_loss(
        self,
        trainer: L.Trainer,
        module: SegmentationTask,
        step: _Step,
        batch: dict[str, Any],
        loss: Tensor,
    ) -> None:
        names = list(batch["name"])
        weights = {name: value.cpu().clone() for name, value in module.state_dict().items()}
        bad = self._bad_samples(trainer, module, batch)
        path = self.folder / f"step-{step.number}-rank{trainer.global_rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        dump = {key: value for key, value in batch.items() if key != "name"}
        dump |= {"names": names, "not_finite": bad, "loss": loss.item()}
        torch.save(dump | {"weights": weights}, path)
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(parts, (names, bad))
            names = [name for part in parts for name in part[0]]
            bad = [name for part in parts for name in part[1]]
        which = f"its samples: {', '.join(names)}"
        if bad:
            which = f"its samples {', '.join(bad)} give outputs that are not finite"
        raise ValueError(
            f"The loss is {loss.item()} at step {step.number}; {which}. The batch and the weights "
            f"before it are in {path}; lower optim.lr, or mend the data. The checkpoints are from "
            "before."
        )

    def _bad_samples(
        self, trainer: L.Trainer, task: SegmentationTask, batch: dict[str, Any]
    ) -> list[str]:
        """Name the samples whose own outputs are not finite."""
        task.eval()  # Each sample stands for itself, because batch norm does not join them.
        for name, value in task.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                # The batch has reached them, and would make the outputs of all samples NaN.
                usual = float(name.endswith("var"))
                value.nan_to_num_(nan=usual, posinf=usual, neginf=usual)
        bad = []
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for number, name in enumerate(batch["name"]):
                if not torch.isfinite(task.outputs(pick(batch, number))[0]).all():
                    bad.append(name)
        return bad
