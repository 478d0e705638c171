"""Keep the state of a training: the last checkpoint, the best one, and what signals ask for."""

import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint

from cyclenet.models.stored import load_checkpoint
from cyclenet.processes import requeue_signals, stop_signals
from cyclenet.training.metrics_csv import MetricsCSV
from cyclenet.training.non_finite import StopAtNonFinite

LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"
"""Where checkpoints lie in a run folder."""


ONE_SIGNAL_SECONDS = 1.0
"""Signals so near to each other are one: a cgroup and a sweep may both send it."""


class KeepLast(L.Callback):
    """Keep the state of a training, so that a stop costs little and changes nothing.

    ``last.ckpt`` is written at epoch ends, every ``every_steps`` optimizer steps, when
    ``every_minutes`` have passed, and when a signal or an error ends the training between two
    steps; ``previous.ckpt`` is the one before. Only states between two optimizer steps are saved,
    because only these can be continued exactly. After an epoch's last step, saving waits for the
    validation, which Lightning would skip otherwise. The first process writes alone, so no other
    waits for it.

    Args:
        folder: folder of the checkpoints.
        every_steps: optimizer steps between checkpoints; 0 for none.
        every_minutes: minutes between checkpoints; 0 for none.
    """

    def __init__(self, folder: Path, every_steps: int, every_minutes: float) -> None:
        self.path = folder / "last.ckpt"
        self.every_steps, self.every_seconds = every_steps, 60 * every_minutes
        self.between_steps = False
        self.position: Any = None
        self.step = 0
        self.signal: int | None = None
        self.signalled_at = 0.0
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.step, self.saved_at = trainer.global_step, time.monotonic()
        self._listen()
        if trainer.world_size > 1:
            steps: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(steps, self.step)
            # A process may have failed to read a checkpoint, or read it while it was replaced.
            if len(set(steps)) > 1:
                raise ValueError(
                    f"The processes continue from different steps ({steps}): "
                    "run the same command again."
                )

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._listen()  # `trainer.validate` after the training calls no `on_train_start`.

    def _listen(self) -> None:
        # This replaces Lightning's own handlers, which wait for all processes inside the handler,
        # and hang. Lightning puts back what was there before it.
        for number in stop_signals():
            if signal.getsignal(number) != self._on_signal:
                self.handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        again = time.monotonic() - self.signalled_at
        if self.signal is not None and again > ONE_SIGNAL_SECONDS:  # The second does not wait.
            raise SystemExit(128 + number)
        if self.signal is None:
            self.signal, self.signalled_at = number, time.monotonic()

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self.between_steps = False

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        ends = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        self.between_steps = stepped and not ends  # At an end, `on_train_epoch_end` saves.
        self.position = trainer.datamodule.state_dict()  # type: ignore[attr-defined]
        if self.between_steps:
            by_steps = self.every_steps and self.step % self.every_steps == 0
            waited = time.monotonic() - self.saved_at
            if by_steps or (self.every_seconds and waited > self.every_seconds):
                self._save(trainer)
        if self.signal is not None and self.between_steps:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if self.signal is not None:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._save(trainer)
        if self.signal is not None:
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.signal is not None:  # It came after the last save.
            self._stop(trainer)

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        # If the next batch was read already, the position in the data has passed a batch that was
        # never trained on: such a state must not be saved.
        position = trainer.datamodule.state_dict()  # type: ignore[attr-defined]
        if self.between_steps and position == self.position:
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        self.saved_at = time.monotonic()
        if not trainer.is_global_zero:
            return
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, StopAtNonFinite) and not callback.is_finite():
                return  # The next step stops there.
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.flush()  # A resumed run keeps the rows up to here.
        checkpoint = trainer._checkpoint_connector.dump_checkpoint()
        trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.path)

    def _stop(self, trainer: L.Trainer) -> None:
        """End the program at the request of a signal. The first process ends, the others with it.

        SLURM's announcements go to submitit's handler or to `cyclenet.processes.requeue`, which
        queue the job again, and exit.
        """
        assert self.signal is not None
        if not trainer.is_global_zero:
            return
        number = signal.Signals(self.signal)
        if self.between_steps:
            self._save(trainer)
            self.between_steps = False
        print(
            f"Stopped by {number.name} at step {self.step}. The same command continues, unless it "
            "says resume=never.",
            flush=True,
        )
        handler = self.handlers[number]
        if number in requeue_signals() and callable(handler):
            handler(number, None)
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
            save_on_train_epoch_end=False,  # At the validation's end, so that `KeepLast` knows.
        )
        self.path = folder / "best.ckpt"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # There is no best yet, or it belongs to another run that this one continues (ckpt_path).
        if not self.path.exists():
            return
        path, score = str(self.path), state_dict["best_model_score"]
        known: dict[str, Any] = {}
        if score is not None:
            known = {"best_model_path": path, "kth_best_model_path": path}
            known["best_k_models"] = {path: score}
        super().load_state_dict({**state_dict, **known, "dirpath": self.dirpath})

    def consider(self, trainer: L.Trainer, score: float) -> None:
        """Keep the weights if they are the best of a validation after the training.

        Lightning keeps nothing of such a validation.
        """
        new = torch.tensor(score)  # In float32, as Lightning keeps the best.
        if self.best_model_score is not None and new <= self.best_model_score.cpu():
            return
        self.best_model_score = new
        last = self.path.with_name("last.ckpt")
        if not trainer.is_global_zero or not last.exists():  # `RunFolder.check_saved` tells.
            return
        checkpoint = trainer._checkpoint_connector.dump_checkpoint()
        if "current_model_state" in checkpoint:  # The network holds the weights' average by now.
            checkpoint["current_model_state"] = load_checkpoint(last)["current_model_state"]
        trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.path)
