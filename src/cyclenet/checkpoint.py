"""Checkpoints: written whole or not at all, read without executing anything in them."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cyclenet.config import TrainConfig
from cyclenet.task import SegmentationTask


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, flush to the disk, then rename: a kill leaves the old file or the new one.

    (Lightning writes to $TMPDIR and moves, which is a copy where that is another file system.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.tmp{os.getpid()}")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            part.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project.

    Raises:
        ValueError: there is no such file, or it is not one.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {path}: give the .ckpt file in a run's checkpoints folder as ckpt_path.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["hyper_parameters"]["cfg"]["model"], checkpoint["state_dict"]
    except Exception as error:
        raise ValueError(f"{path} is not a whole checkpoint of this project ({type(error).__name__}).") from error
    return checkpoint


def stored_config(checkpoint: dict[str, Any]) -> TrainConfig:
    """Return the configuration that a checkpoint was trained with. Raises `ValueError` if this version does not know it."""
    schema = OmegaConf.structured(TrainConfig)
    try:
        return OmegaConf.to_object(OmegaConf.merge(schema, checkpoint["hyper_parameters"]["cfg"]))  # type: ignore[return-value]
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
