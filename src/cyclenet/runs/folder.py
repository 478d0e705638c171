"""The run folder while a training uses it: its lock, its resume point, and its result."""

import time
import warnings
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import lightning as L
import torch
from filelock import BaseFileLock, Timeout
from omegaconf import OmegaConf

from cyclenet.config.errors import sentence
from cyclenet.config.schema import TrainConfig
from cyclenet.data.datamodule import SegmentationData
from cyclenet.deploy.load import find
from cyclenet.files import lock, write_text
from cyclenet.models.stored import Checkpoint, load_checkpoint
from cyclenet.processes import peak_rss_mb
from cyclenet.runs.results import RunResult, data_root, is_marked, mark, read_result
from cyclenet.training.checkpoint import check_resumable, load_newest
from cyclenet.training.keep import BEST, LAST, KeepBest
from cyclenet.training.loggers import close_loggers
from cyclenet.training.task import SegmentationTask
from cyclenet.training.trainer import is_first_process

LOCK_SECONDS = 15.0  # How long a start waits for the lock, which a killed process may still hold.

WRITTEN = (
    "config.yaml",
    "result.json",
    "progress.json",
    "metrics.csv",
    "validation.png",
    "wandb-id.txt",
    "checkpoints/last.ckpt",
    "checkpoints/best.ckpt",
    "checkpoints/previous.ckpt",
    "checkpoints/damaged.ckpt",
    "debug/step-*-rank*.pt",
    "evaluate/*/scores.json",
    "evaluate/*/images*.npz",
    "evaluate/*/confusion.png",
    "evaluate/*/trimap.png",
    "visualize/analysis*",
    "visualize/*/analysis*",
    "tensorboard/events.out.tfevents.*",
)
"""What trainings and evaluations write to a run folder, and a start afresh removes."""


class AlreadyFinishedError(Exception):
    """The run folder holds a run that has finished."""


class RunFolder:
    """Own a run folder for one training; use it in a ``with`` block.

    Entering takes the lock and finds the checkpoint to continue from; where there is none, it
    removes what an earlier run left. Leaving writes ``result.json``, whatever happened, and
    releases the lock. Only the first of several processes writes.

    A resumed run restores, in this order: precision, from here; by Lightning
    (``trainer.fit(ckpt_path=...)``) the weights, the position in the data, the callbacks' states,
    the loops, the optimizer and the schedule; and last, learning rates from the configuration
    (`SegmentationTask.on_train_start`). `check_resumable` and `SegmentationData.check_same` refuse
    what does not fit.

    Args:
        path: the folder.
        cfg: the whole configuration.
        overrides: words of the command line.

    Attributes:
        checkpoint: path of the checkpoint to continue from, the folder's own or ``ckpt_path``; None
            where the run begins.
        step: its optimizer step; 0 where the run begins.
        precision: its precision; None where the run begins.
        data_state: the data module's state in it, by which the data are compared; empty where the
            run begins.
        data_root: where the data were at the last start, if it left a result.

    Raises:
        ValueError: on entering, another process trains in the folder, its checkpoint does not fit,
            or it holds files that no training wrote.
        AlreadyFinishedError: on entering, the run has finished, and is not to be trained anew.
    """

    def __init__(self, path: Path, cfg: TrainConfig, overrides: list[str]) -> None:
        self.path, self.cfg = path, cfg
        self.first = is_first_process()
        self.started = time.time()
        self.result = RunResult("failed", overrides=overrides)
        self.checkpoint: str | None = None
        self.step = 0
        self.precision: str | None = None
        self.data_state: dict[str, Any] = {}
        self.data_root: str | None = None
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> "RunFolder":
        self._check_finished()
        if self.first:
            self._lock = self._take_lock()
        try:  # Another process may have finished it while this one waited for the lock.
            self._check_finished()
        except AlreadyFinishedError:
            if self._lock:
                self._lock.release()
            raise
        try:
            newest = self._find_checkpoint()
            if newest:
                path, checkpoint = newest
                self.checkpoint, self.step = str(path), checkpoint["global_step"]
                self.precision = checkpoint.get("run", {}).get("precision")
                self.data_state = checkpoint.get(SegmentationData.__qualname__, {})
                self.data_root = read_result(self.path).data_root
            if self.first:
                own = newest[0] if newest and self._is_own(newest[0]) else None
                self._claim(own)
                self._clear(own)
                values = OmegaConf.create(asdict(self.cfg))
                write_text(self.path / "config.yaml", OmegaConf.to_yaml(values))
        except BaseException as error:
            self.first = self.first and not self._foreign()  # Another's folder gets no result.
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self.result.status = "interrupted"
        elif error is not None:
            self.result.status = "failed"
            self.result.error = sentence(error)
        if self.first:
            close_loggers()
            self.result.seconds = round(time.time() - self.started, 1)
            self.result.finished_at = time.time()
            self.result.peak_rss_mb = peak_rss_mb()
            self.result.data_root = data_root(self.cfg.dataset)
            mark(self.path)
            self.result.write(self.path)
        if self._lock:
            self._lock.release()

    def _check_finished(self) -> None:
        if self.cfg.resume == "auto" and read_result(self.path).finished:
            raise AlreadyFinishedError

    def _take_lock(self) -> BaseFileLock | None:
        try:
            return lock(self.path / "run.lock", LOCK_SECONDS)
        except Timeout as error:
            raise ValueError(
                f"{self.path} is being trained by another process; wait for it, or end it."
            ) from error
        except PermissionError as error:
            file = self.path / "run.lock"
            why = "cannot be written"
            if file.exists():
                why = "is another user's, who may be training there"
            raise ValueError(f"{file} {why}: give another hydra.run.dir.") from error
        except (NotImplementedError, OSError):
            return None  # The file system has no locks.

    def _find_checkpoint(self) -> tuple[Path, Checkpoint] | None:
        """Find the checkpoint to continue from: the folder's own, then ``ckpt_path``."""
        cfg = self.cfg
        newest = None
        if cfg.resume != "never":
            newest = load_newest(self.path / "checkpoints")
        if cfg.resume == "must" and newest is None:
            raise ValueError(
                f"resume=must, but there is no {self.path / LAST}: "
                "give resume=auto to start afresh."
            )
        if newest is None and cfg.ckpt_path:
            newest = Path(cfg.ckpt_path), load_checkpoint(cfg.ckpt_path)
        if newest:
            check_resumable(newest[1], newest[0], cfg)
        elif cfg.init_from:
            self._check_source(cfg.init_from)
        return newest

    def _check_source(self, source: str) -> None:
        """Look for what the training begins from, before anything here is removed or written."""
        # If the source cannot be used, an existing result must not be replaced by a failure.
        first = self.first
        self.first = first and not (self.path / "result.json").exists()
        if self._is_own(find(source, hub=True)):
            raise ValueError(
                f"init_from={source} would be removed from {self.path}, where the training begins: "
                "give another hydra.run.dir."
            )
        self.first = first

    def _is_own(self, checkpoint: Path) -> bool:
        return checkpoint.resolve().parent == (self.path / "checkpoints").resolve()

    def _claim(self, own: Path | None) -> None:
        """Mark the folder as a run folder, unless it holds files that no training wrote.

        Args:
            own: the folder's checkpoint to continue from, which a training wrote.

        Raises:
            ValueError: naming such a file.
        """
        if own is None and (there := self._foreign()):
            raise ValueError(
                f"{there[0]} would be replaced, and {self.path} is no run folder of this version: "
                "give another hydra.run.dir."
            )
        mark(self.path)

    def _foreign(self) -> list[Path]:
        """Return files of a run that are there although the folder is not marked as one."""
        if is_marked(self.path):
            return []
        found = [path for pattern in WRITTEN for path in self.path.glob(pattern)]
        return [path for path in found if not path.is_dir()]

    def _clear(self, checkpoint: Path | None) -> None:
        """Remove what an earlier run left, which must not pass for this one's.

        Args:
            checkpoint: the folder's own checkpoint to continue from; None where the run begins.
        """
        for name in ("result.json", "progress.json"):
            (self.path / name).unlink(missing_ok=True)
        checkpoints = self.path / "checkpoints"
        for part in checkpoints.glob(".tmp[0-9]*-*.ckpt"):
            part.unlink()
        if checkpoint is None:
            for path in [path for pattern in WRITTEN for path in self.path.glob(pattern)]:
                if not path.is_dir():  # Figures of an image lie in a folder of its name.
                    path.unlink()
        elif checkpoint.name == "previous.ckpt" and (self.path / LAST).exists():
            # The damaged last one must not become the previous one.
            (self.path / LAST).replace(checkpoints / "damaged.ckpt")

    def check_saved(self, trainer: L.Trainer) -> None:
        """Check that the last checkpoint holds the end of the training.

        A best checkpoint that is not the best epoch's causes a warning.

        Raises:
            ValueError: the last checkpoint is of an earlier step.
        """
        if not self.first:
            return
        newest = load_newest(self.path / "checkpoints")
        if newest is None and self.step == trainer.global_step:
            raise ValueError(
                f"{self.checkpoint} is at the end of its training (step {self.step}), so nothing "
                "was left to train: begin another training from it with init_from."
            )
        if newest is None or newest[1]["global_step"] != trainer.global_step:
            raise ValueError(
                f"{self.path / LAST} is not of the last step ({trainer.global_step}): free disk "
                "space, and run the same command again."
            )
        keeper, best = trainer.checkpoint_callback, self.path / BEST
        score = keeper.best_model_score if isinstance(keeper, KeepBest) else None
        if score is None:
            return
        stored = load_checkpoint(best)["run"]["metrics"]["val/mIoU"] if best.exists() else None
        if stored != score.item():
            warnings.warn(
                f"{best} is not of the best epoch: it could not be written then.", stacklevel=1
            )

    def finish(
        self, trainer: L.Trainer, task: SegmentationTask, evaluations: dict[str, str]
    ) -> None:
        """Note that the run came to its end, and what came of it."""
        trainer.print(f"Run folder: {self.path}")
        result = self.result
        result.status, result.metrics = "finished", task.metrics
        result.protocol, result.evaluations = self.cfg.protocol.describe(), evaluations
        result.epochs = trainer.current_epoch
        result.train_seconds = round(task.seconds, 1)
        result.cpu_seconds = round(task.cpu_seconds, 1)
        result.threads = torch.get_num_threads()
        result.precision, result.torch = str(trainer.precision), torch.__version__
