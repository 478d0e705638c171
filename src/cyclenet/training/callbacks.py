"""What happens around the training steps: seeds, checkpoints, stops, pictures, progress."""

import json
import random
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from cyclenet.data.loader import derive
from cyclenet.plots.pictures import panel, save_png
from cyclenet.training.loggers import MetricsCSV, ResumableWandb
from cyclenet.training.task import SegmentationTask

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that end a training at its next step. SLURM sends one of the last two before the time limit (conf/hydra/launcher)."""


class SeedPerStep(L.Callback):
    """Seed the random generators from (seed, batch) before each batch, alike in all processes.

    Dropout is then a function of the step alone: a resumed run draws what an uninterrupted one draws, and the processes draw
    one mask for the joined batch (`cyclenet.models.layers.ChannelDropout`).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        epoch_loop = trainer.fit_loop.epoch_loop
        # (The last 0 stands where earlier versions had the process; so one process draws what it always drew.)
        value = derive(self.seed, "step", epoch_loop.total_batch_idx, 0)
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)


class ValidateLastEpoch(L.Callback):
    """Validate the last epoch too, whatever the interval, so that the final weights compete for the best checkpoint."""

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class LogSteps(L.Callback):
    """Log the losses and the learning rates of an optimizer step, in one row.

    Before `KeepLast` saves the state after that step: Lightning itself logs later, and a kill in between would lose the row.

    Args:
        every_steps: optimizer steps between rows.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        # Groups are of the backbone and of the head, with and without weight decay.
        self.rates = [group["lr"] for group in trainer.optimizers[0].param_groups]

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if stepped and self.step % self.every_steps == 0:
            row = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
            row |= {"train/lr": self.rates[0], "train/lr_head": self.rates[-1], "epoch": trainer.current_epoch}
            for logger in trainer.loggers:
                logger.log_metrics(row, self.step - 1)


class KeepLast(L.Callback):
    """Keep the state of a training, so that a stop costs little and changes nothing.

    Writes ``last.ckpt`` at epoch ends, every ``every_steps`` optimizer steps, when ``every_minutes`` have passed, and when a
    signal (`STOPS`) or an error ends the training between two steps; ``previous.ckpt`` is the one before. Only states between
    two optimizer steps are saved, for only these can be gone on from exactly. Not the last step of an epoch either: Lightning
    would skip the validation that follows. The first process writes alone, so no other waits for it.

    Args:
        folder: of the checkpoints.
        every_steps: optimizer steps between checkpoints; 0: none for that reason.
        every_minutes: minutes between them; 0: none for that reason.
    """

    def __init__(self, folder: Path, every_steps: int, every_minutes: float) -> None:
        self.path = folder / "last.ckpt"
        self.every_steps, self.every_seconds = every_steps, 60 * every_minutes
        self.between_steps = False
        self.position: Any = None
        self.step = 0
        self.signal: int | None = None
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.step, self.saved_at = trainer.global_step, time.monotonic()
        self._listen()
        if trainer.world_size > 1:
            steps: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(steps, self.step)
            if len(set(steps)) > 1:  # One could not read the file that another read, or read it while it was replaced.
                raise ValueError(f"The processes go on from different steps ({steps}): run the same command again.")

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._listen()  # It may be one without a training around it.

    def _listen(self) -> None:
        # After Lightning's own handlers, which wait for all processes inside the handler, and hang. Lightning puts back what
        # was there before it.
        for number in STOPS:
            if signal.getsignal(number) != self._note:
                self.handlers[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self.signal is not None:  # The second one does not wait.
            raise SystemExit(128 + number)
        self.signal = number

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self.between_steps = False

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        self.between_steps = stepped and not trainer.is_last_batch
        self.position = trainer.datamodule.state_dict()  # type: ignore[attr-defined]
        if self.between_steps:
            due = self.every_steps and self.step % self.every_steps == 0
            if due or (self.every_seconds and time.monotonic() - self.saved_at > self.every_seconds):
                self._save(trainer)
        if self.signal is not None and (self.between_steps or trainer.is_last_batch):
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if self.signal is not None:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._save(trainer)
        if self.signal is not None:
            self._stop(trainer)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        # As when the next batch could not be read; but not if it was: its step would be left out.
        if self.between_steps and trainer.datamodule.state_dict() == self.position:  # type: ignore[attr-defined]
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        self.saved_at = time.monotonic()
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.flush()  # The rows up to here, which a resumed run keeps.
        checkpoint = trainer._checkpoint_connector.dump_checkpoint()
        trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.path)

    def _stop(self, trainer: L.Trainer) -> None:
        """End the program at the request of a signal. Of several processes, the first; the others end with it."""
        assert self.signal is not None
        if not trainer.is_global_zero:
            return
        number = signal.Signals(self.signal)
        if self.between_steps:
            self._save(trainer)
            self.between_steps = False
        print(
            f"Stopped by {number.name} at step {self.step}. The same command goes on, unless it says resume=never.", flush=True
        )
        handler = self.handlers[number]
        if number in (signal.SIGUSR1, signal.SIGUSR2) and callable(handler):
            handler(number, None)  # submitit's or `cyclenet.processes.requeue`: queues the job again, and exits.
        raise SystemExit(128 + number)


class KeepBest(ModelCheckpoint):
    """Keep ``best.ckpt``, by val mIoU, also where the run folder has been moved since."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "best",
            monitor="val/mIoU",
            mode="max",
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=False,  # At the validation's end, so that `KeepLast` knows of it.
        )
        self.path = folder / "best.ckpt"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self.path.exists():  # None yet, or it is another run's that this one goes on from (ckpt_path).
            return
        path, score = str(self.path), state_dict["best_model_score"]
        paths = {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: score}}
        known = paths if score is not None else {}
        super().load_state_dict({**state_dict, **known, "dirpath": self.dirpath})

    def consider(self, trainer: L.Trainer, score: float) -> None:
        """Keep the weights if they are the best: of a validation after the training, of which Lightning keeps nothing."""
        if self.best_model_score is None or score > self.best_model_score.item():
            self.best_model_score = torch.tensor(score)
            trainer.save_checkpoint(self.path)


class StopAtNonFinite(L.Callback):
    """Stop at a loss that is not finite, before it reaches the weights, and say which samples were in the batch.

    Args:
        folder: receives ``step-<n>-rank<r>.pt`` with the batch, the weights before the step and the loss
            (``torch.load(weights_only=True)``).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batch: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = batch

    def on_before_backward(self, trainer: L.Trainer, module: L.LightningModule, loss: Tensor) -> None:
        # The loss is the joined batch's: all processes stop here, or none.
        if torch.isfinite(loss):
            return
        step, names = trainer.global_step, self.batch["name"]
        module.eval()  # Where each sample stands for itself.
        with torch.no_grad():
            finite = [bool(torch.isfinite(module.net(image[None])[0]).all()) for image in self.batch["image"]]  # type: ignore[operator]
        bad = [name for name, good in zip(names, finite, strict=True) if not good]
        path = self.folder / f"step-{step}-rank{trainer.global_rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        dump = {key: value for key, value in self.batch.items() if key != "name"}
        torch.save({**dump, "names": names, "not_finite": bad, "loss": loss.item(), "weights": module.state_dict()}, path)
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(parts, (names, bad))
            names, bad = ([name for part in parts for name in part[i]] for i in (0, 1))
        which = f"its samples {', '.join(bad)} give outputs that are not finite" if bad else f"its samples: {', '.join(names)}"
        raise ValueError(
            f"The loss is {loss.item()} at step {step}; {which}. The batch and the weights before it are in {path}; "
            "lower optim.lr, or mend the data. The checkpoints are from before."
        )


class ProgressFile(L.Callback):
    """Keep ``progress.json`` in the run folder: how far it is, for those who watch (a sweep's table)."""

    every_seconds = 1.0

    def __init__(self, folder: Path) -> None:
        self.path = folder / "progress.json"
        self.score: float | None = None
        self.written = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.began, self.first_step = time.monotonic(), trainer.global_step
        self._write(trainer, module, "training")

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self.written >= self.every_seconds:
            self._write(trainer, module, "training")

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._write(trainer, module, "validating")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if isinstance(module, SegmentationTask):
            self.score = module.val_scores.get("mIoU")
        self._write(trainer, module, "training")

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._write(trainer, module, "evaluating")

    def _write(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self.written = time.monotonic()
        if not trainer.is_global_zero or not isinstance(module, SegmentationTask):
            return
        step, steps = trainer.global_step, module.total_steps
        done = step - self.first_step
        left = round((self.written - self.began) / done * (steps - step)) if done else None
        progress = {"stage": stage, "epoch": _epoch(trainer), "epochs": trainer.max_epochs, "step": step, "steps": steps}
        part = self.path.with_name(self.path.name + ".tmp")
        try:
            part.write_text(json.dumps({**progress, "mIoU": self.score, "seconds_left": left}))
            part.replace(self.path)
        except OSError:  # A full disk is no reason to stop.
            part.unlink(missing_ok=True)


class BroadcastBuffers(L.Callback):
    """Validate all processes' shares with the first one's running statistics, where batch norm is not synchronised."""

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for buffer in module.net.buffers():  # type: ignore[union-attr]
            dist.broadcast(buffer, 0)


class Progress(RichProgressBar):
    """Rich's bar without Lightning's version number."""

    def get_metrics(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, module)
        items.pop("v_num", None)
        return items


def _epoch(trainer: L.Trainer) -> int:
    # From 1; after the fit, when `current_epoch` has gone past the end, the last.
    return min(trainer.current_epoch + 1, trainer.max_epochs or 1)


class PrintScores(L.Callback):
    """Print a line after each validation, for logs, where a progress bar shows nothing."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if isinstance(module, SegmentationTask) and not trainer.sanity_checking:
            protocol = module.cfg.protocol.name
            score, loss = module.val_scores["mIoU"], trainer.callback_metrics.get("train/loss", float("nan"))
            trainer.print(
                f"epoch {_epoch(trainer)}/{trainer.max_epochs}: loss {loss:.3f}, val mIoU {100 * score:.2f} % ({protocol})"
            )


class ValidationPictures(L.Callback):
    """Keep the predictions of a few validation images, as a PNG in the run folder and as images in the loggers.

    Args:
        folder: receives ``validation.png``, drawn anew after each validation.
        every_epochs: epochs between images in the loggers; 0: none.
        count: of images, spread evenly over the first process's share of the validation split.
    """

    def __init__(self, folder: Path, every_epochs: int, count: int = 4) -> None:
        self.folder, self.every_epochs, self.count = folder, every_epochs, count
        self.rows: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]] = []
        self.names: list[str] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.rows, self.names = [], []
        length = int(trainer.num_val_batches[0])
        self.indices = set(np.linspace(0, length - 1, min(self.count, length)).round().astype(int).tolist())

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.is_global_zero and batch_idx in self.indices:
            image = batch["image"][0].permute(1, 2, 0).cpu().numpy()
            prediction = outputs[0].to(torch.uint8).cpu().numpy()
            self.rows.append((image, batch["mask"][0].cpu().numpy(), [prediction]))
            self.names.append(batch["name"][0])

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self.rows or trainer.sanity_checking or not isinstance(module, SegmentationTask):
            return
        palette = np.array(module.palette, np.uint8)
        picture = panel(self.rows, [f"epoch {_epoch(trainer)}"], module.classes, palette)
        try:
            save_png(self.folder / "validation.png", picture)
        except OSError as error:
            warnings.warn(f"No validation.png: {error}", stacklevel=1)
        if not self.every_epochs or (_epoch(trainer) % self.every_epochs and _epoch(trainer) != trainer.max_epochs):
            return
        for logger in trainer.loggers:
            if isinstance(logger, ResumableWandb):
                self._log_wandb(logger, module, trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/pictures", picture, trainer.global_step, dataformats="HWC")

    def _log_wandb(self, logger: ResumableWandb, module: SegmentationTask, step: int) -> None:
        import wandb

        if (step, "val/per_class") in logger.present:
            return
        labels = dict(enumerate(module.classes))
        images = [
            wandb.Image(
                image,
                caption=name,
                masks={
                    "prediction": {"mask_data": predictions[0], "class_labels": labels},
                    "ground_truth": {"mask_data": truth, "class_labels": labels},
                },
            )
            for (image, truth, predictions), name in zip(self.rows, self.names, strict=True)
        ]
        rows = [[name, value] for name, value in module.val_scores["IoU"].items()]
        table = wandb.Table(columns=["class", "IoU"], data=rows)
        logger.experiment.log({"val/pictures": images, "val/per_class": table, "trainer/global_step": step})
