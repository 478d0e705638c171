"""Open what a command is given as ``ckpt_path``: a run, a checkpoint, or an exported file."""

from collections.abc import Sequence
from pathlib import Path

import torch

from cyclenet.deploy.load import find, load, read_checkpoint, read_weights
from cyclenet.deploy.model import Model
from cyclenet.training.checkpoint import load_task
from cyclenet.training.task import SegmentationTask


def open_model(path: str | Path, precision: str = "32-true") -> SegmentationTask | Model:
    """Return the trained network; of an ONNX file a `Model`, which computes on the CPU.

    Raises:
        ValueError: it is missing, damaged, or not of this project, or an ONNX file does not
            compute in this precision.
    """
    found = find(path)
    if found.suffix == ".onnx":
        return load(found, precision=precision)
    return load_task(read_checkpoint(found))


def open_tasks(paths: Sequence[str | Path], device: torch.device) -> list[SegmentationTask]:
    """Return the trained networks of checkpoints.

    Raises:
        ValueError: one is missing, damaged, or not of this project; it is an ONNX file; or its
            classes are not those of the first.
    """
    tasks: list[SegmentationTask] = []
    for path in paths:
        task = load_task(read_weights(path)[1])
        if tasks and task.classes != tasks[0].classes:
            raise ValueError(f"{path} was trained on other classes than {paths[0]}.")
        tasks.append(task.to(device))
    return tasks
