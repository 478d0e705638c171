"""Checkpoints: written whole or not at all, read without executing anything in them."""

import os
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf.errors import OmegaConfBaseException

from cyclenet.config import TrainConfig, differences, restore
from cyclenet.training.task import SegmentationTask


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, flush to the disk, then rename: a kill leaves the old file or the new one.

    (Lightning writes to $TMPDIR and moves, which is a copy where that is another file system.) Of ``last.ckpt`` the one before
    is kept as ``previous.ckpt``. Where the disk is full, the old
    file stays, training goes on, and a warning says so.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint. Raises `ValueError` where its weights are not finite: it would replace one that can be used."""
        target = Path(path)
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(
                    f"{name} is not finite at step {checkpoint['global_step']}: training has diverged, lower optim.lr. "
                    f"{target} is from before."
                )
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.tmp{os.getpid()}")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name == "last.ckpt":
                keep_previous(target)
            part.replace(target)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except (OSError, RuntimeError) as error:
            # The writer's own error hides the system's: it says that the position in the file is not the expected one.
            if not isinstance(error, OSError) and "inline_container" not in str(error):
                raise
            reason = (isinstance(error, OSError) and error.strerror) or "is the disk full?"
            warnings.warn(f"{target} could not be written ({reason}). Training goes on; the one before stays.", stacklevel=1)
        finally:
            part.unlink(missing_ok=True)


def keep_previous(last: Path) -> None:
    """Give ``last.ckpt``, which is about to be replaced, its second name. At no moment is there none."""
    if not last.exists():
        return
    previous = last.with_name("previous.ckpt")
    part = previous.with_name(f"{previous.name}.tmp{os.getpid()}")
    part.unlink(missing_ok=True)
    try:
        os.link(last, part)
    except OSError:  # A file system without links.
        shutil.copyfile(last, part)
    part.replace(previous)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project, of which nothing is executed, and every byte checked.

    Raises:
        ValueError: there is no such file, or it is damaged, or not one.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {path}: give the .ckpt file in a run's checkpoints folder as ckpt_path.")
    try:
        with zipfile.ZipFile(path) as file:  # torch.load itself takes no notice of the checksums.
            damaged = file.testzip()
        if damaged:
            raise ValueError(damaged)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["hyper_parameters"]["cfg"]["model"], checkpoint["state_dict"]
    except (OSError, MemoryError):  # Of this moment, not of the file.
        raise
    except Exception as error:
        raise ValueError(f"{path} is not a whole checkpoint of this project ({type(error).__name__}).") from error
    return checkpoint


def load_newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the last checkpoint of a run's checkpoints folder, or the one before where the last is damaged.

    Returns:
        Its path and its content; None where the run has none.

    Raises:
        ValueError: all that there are are damaged.
    """
    found = [path for path in (folder / "last.ckpt", folder / "previous.ckpt") if path.exists()]
    for path in found:
        try:
            return path, load_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"{error} Going back to the one before.", stacklevel=1)
    if found:
        raise ValueError(f"The checkpoints in {folder} are damaged: start afresh with resume=never.")
    return None


def check_same(checkpoint: dict[str, Any], path: Path, cfg: TrainConfig) -> None:
    """Raise `ValueError` where a checkpoint was made with another configuration, naming what differs and changes the result."""
    if found := differences(stored_config(checkpoint), cfg):
        raise ValueError(f"{path} was made with another {', '.join(found)}: give force=true to go on from it anyway.")


def stored_config(checkpoint: dict[str, Any]) -> TrainConfig:
    """Return the configuration that a checkpoint was trained with. Raises `ValueError` if this version does not know it."""
    try:
        return restore(checkpoint["hyper_parameters"]["cfg"])
    except OmegaConfBaseException as error:
        raise ValueError(f"The checkpoint was made by another version: {str(error).splitlines()[0]}.") from error


def load_task(checkpoint: dict[str, Any]) -> SegmentationTask:
    """Rebuild the trained model from the checkpoint alone, in evaluation mode."""
    cfg = stored_config(checkpoint)
    cfg.model.backbone_weights = "none"  # They are in the checkpoint.
    hyper = checkpoint["hyper_parameters"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        task = SegmentationTask(cfg, hyper["classes"], hyper["palette"])
    try:
        task.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(
            "The checkpoint's weights do not fit this version of the model; use the version it was made by."
        ) from error
    return task.eval()


def run_of(path: str | Path) -> Path:
    """Return the run folder of a checkpoint, or the folder it lies in."""
    path = Path(path).resolve()
    return path.parents[1] if path.parent.name == "checkpoints" else path.parent
