"""What happens around the training steps: seeds, logged rows, stops, pictures, progress."""

import math
import random
import time
import warnings
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from cyclenet.plots.pictures import PanelRow, panel, save_png
from cyclenet.seeding import derive, spread
from cyclenet.training.progress import Progress
from cyclenet.training.resumable_wandb import ResumableWandb
from cyclenet.training.task import SegmentationTask


class SeedPerBatch(L.Callback):
    """Seed the random generators from (seed, batch) before each batch, alike in all processes.

    Dropout is then a function of the batch's number alone: a resumed run draws what an
    uninterrupted one draws, and the processes draw one mask for the joined batch
    (`cyclenet.models.layers.ChannelDropout`).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        # The 0 stands where the number of the process once was: without it, published runs would
        # draw other dropout masks.
        number = trainer.fit_loop.epoch_loop.total_batch_idx
        value = derive(self.seed, "step", number, 0)
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)


class EndAtStep(L.Callback):
    """End the training after so many optimizer steps.

    Lightning must not know of ``max_steps`` before it has read a checkpoint: from an epoch's end it
    would then continue with one batch more of that epoch.

    Args:
        max_steps: optimizer steps; -1 for no limit.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps


class ValidateLastEpoch(L.Callback):
    """Validate the last epoch too, whatever the interval.

    The final weights then compete for the best checkpoint.
    """

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # A run that continues within the last epoch does not start it.
        self.on_train_epoch_start(trainer, module)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class StopEarly(EarlyStopping):
    """Stop after so many validations in a row without a better mIoU, also where a run continues.

    It comes before `KeepLast`, so that the last checkpoint knows of the count.
    """

    def __init__(self, patience: int) -> None:
        super().__init__("val/mIoU", patience=patience, mode="max", check_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:  # It had stopped, and was killed afterwards.
            trainer.should_stop = True


class LogSteps(L.Callback):
    """Log the losses and the learning rates of an optimizer step, in one row.

    With accumulated gradients the losses are those of the step's last batch. The row is logged
    before `KeepLast` saves the state after the step. Lightning itself logs later, and a kill in
    between would lose the row.

    Args:
        every_steps: optimizer steps between rows.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.step = trainer.global_step
        trained = [each for each in module.parameters() if each.requires_grad]
        groups = trainer.optimizers[0].param_groups
        # The head's last parameter may be in a group with a block of the backbone.
        self.head = next(
            number
            for number, group in enumerate(groups)
            if any(each is trained[-1] for each in group["params"])
        )

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, *args: Any
    ) -> None:
        # The groups are backbone and head, each with and without weight decay. With a decay by
        # layers, the backbone's rate is logged without it.
        groups = trainer.optimizers[0].param_groups
        first, last = groups[0], groups[self.head]
        optim, rate = cast(SegmentationTask, module).cfg.optim, first["lr"]
        if optim.layer_decay != 1:
            rate = optim.lr * rate / first["initial_lr"]
        self.rates = (rate, last["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if not stepped or self.step % self.every_steps:
            return
        logged = trainer.callback_metrics.items()
        row = {key: value.item() for key, value in logged if key.startswith("train/")}
        if not math.isfinite(row["train/loss"]):
            return  # The next step stops for it (`StopAtNonFinite`, on a GPU).
        row |= {"train/lr": self.rates[0], "train/lr_head": self.rates[1]}
        row["epoch"] = trainer.current_epoch
        for logger in trainer.loggers:
            logger.log_metrics(row, self.step - 1)


class ProgressFile(L.Callback):
    """Keep ``progress.json`` in the run folder (`cyclenet.training.progress.Progress`)."""

    every_seconds = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.score: float | None = None
        self.written = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.began, self.first_step = time.monotonic(), trainer.global_step
        self._write(trainer, "training")

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if time.monotonic() - self.written >= self.every_seconds:
            self._write(trainer, "training")

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":  # Else it is `trainer.validate`, after the training.
            self._write(trainer, "validating")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        found = cast(SegmentationTask, module).val_scores
        self.score = found.mIoU if found else None
        if trainer.state.fn == "fit":
            self._write(trainer, "training")

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._write(trainer, "evaluating")

    def _write(self, trainer: L.Trainer, stage: str) -> None:
        self.written = time.monotonic()
        if not trainer.is_global_zero:
            return
        task = cast(SegmentationTask, trainer.lightning_module)
        step, steps = trainer.global_step, task.total_steps
        done, left = step - self.first_step, None
        if done:
            left = round((self.written - self.began) / done * (steps - step))
        epochs = trainer.max_epochs or 1
        Progress(stage, _epoch(trainer), epochs, step, steps, self.score, left).write(self.folder)


class BroadcastBuffers(L.Callback):
    """Validate all processes' shares with the first one's running statistics.

    This is for batch norm that is not synchronised.
    """

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for buffer in cast(SegmentationTask, module).net.buffers():
            dist.broadcast(buffer, 0)


class ProgressBar(RichProgressBar):
    """Rich's bar without Lightning's version number.

    Args:
        every_steps: optimizer steps between the losses that it shows from a GPU, which the host
            waits for.
    """

    def __init__(self, every_steps: int) -> None:
        super().__init__()
        self.every_steps = every_steps
        self.loss: float | None = None

    def get_metrics(
        self, trainer: L.Trainer, module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        items = super().get_metrics(trainer, module)
        items.pop("v_num", None)
        due = module.device.type == "cpu" or trainer.global_step % self.every_steps == 0
        logged = trainer.callback_metrics.get("train/loss")
        if logged is not None and (due or self.loss is None):
            self.loss = float(logged)
        return items if self.loss is None else items | {"train/loss": self.loss}


class PrintScores(L.Callback):
    """Print a line after each validation, for logs, where a progress bar shows nothing."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        task = cast(SegmentationTask, module)
        if task.val_scores is None:
            return
        loss = trainer.callback_metrics.get("train/loss")  # There is none after the training.
        said = "" if loss is None else f"loss {float(loss):.3f}, "
        score, protocol = 100 * task.val_scores.mIoU, task.cfg.protocol.name
        where = f"epoch {_epoch(trainer)}/{trainer.max_epochs}"
        trainer.print(f"{where}: {said}val mIoU {score:.2f} % ({protocol})")


class ValidationPictures(L.Callback):
    """Keep the predictions of a few validation images, in the run folder and in the loggers.

    Args:
        folder: receives ``validation.png``, drawn anew after each validation.
        every_epochs: epochs between images in the loggers; 0 for none.
        count: number of images, spread evenly over the first process's share of the split.
    """

    def __init__(self, folder: Path, every_epochs: int, count: int = 4) -> None:
        self.folder, self.every_epochs, self.count = folder, every_epochs, count
        self.rows: list[PanelRow] = []
        self.names: list[str] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.rows, self.names = [], []
        self.indices = set(spread(int(trainer.num_val_batches[0]), self.count))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.is_global_zero and batch_idx in self.indices:
            image = batch["image"][0].permute(1, 2, 0).cpu().numpy()
            prediction = outputs[0].to(torch.uint8).cpu().numpy()
            self.rows.append(PanelRow(image, batch["mask"][0].cpu().numpy(), [prediction]))
            self.names.append(batch["name"][0])

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self.rows:
            return
        task, epoch = cast(SegmentationTask, module), _epoch(trainer)
        palette = np.array(task.palette, np.uint8)
        picture = panel(self.rows, [f"epoch {epoch}"], task.classes, palette)
        try:
            save_png(self.folder / "validation.png", picture)
        except OSError as error:
            warnings.warn(f"validation.png was not written: {error}", stacklevel=1)
        every = self.every_epochs
        if not every or (epoch % every and epoch != trainer.max_epochs):
            return
        for logger in trainer.loggers:
            if isinstance(logger, ResumableWandb):
                names = zip(self.names, self.rows, strict=True)
                logger.log_pictures(list(names), task.classes, task.val_scores, trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                step = trainer.global_step
                logger.experiment.add_image("val/pictures", picture, step, dataformats="HWC")


def _epoch(trainer: L.Trainer) -> int:
    # Epochs count from 1. After the fit, `current_epoch` has gone past the end.
    return min(trainer.current_epoch + 1, trainer.max_epochs or 1)
