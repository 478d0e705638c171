"""Open what a command is given as ``ckpt_path``: a checkpoint, or an exported file."""

from pathlib import Path

from cyclenet.deploy.load import find, load, read_checkpoint
from cyclenet.deploy.model import Exported
from cyclenet.training.checkpoint import load_task
from cyclenet.training.task import SegmentationTask

Task = SegmentationTask | Exported


def open_model(path: str | Path) -> Task:
    """Return the trained network of a checkpoint or of an exported file.

    Raises:
        ValueError: it is missing, damaged, or not of this project.
    """
    found = find(path)
    if found.suffix == ".onnx":
        return Exported(load(found))
    return load_task(read_checkpoint(found))
