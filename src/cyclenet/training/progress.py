"""``progress.json``: how far a run is, for those who watch it."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cyclenet.files import read_json, write_json


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        stage: training, validating or evaluating.
        epoch: the present epoch, counted from 1.
        epochs: epochs of the whole training.
        step: optimizer steps that are done.
        steps: optimizer steps of the whole training.
        mIoU: score of the last validation; None before the first.
        seconds_left: estimate for the rest of the training; None before the first step.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    mIoU: float | None = None
    seconds_left: int | None = None

    def write(self, folder: Path) -> None:
        """Write it into a run folder. A full disk is no reason to stop a training."""
        with suppress(OSError):
            write_json(folder / "progress.json", self)


def read_progress(folder: Path) -> Progress | None:
    """Read it from a run folder; None where there is none yet."""
    return read_json(Progress, folder / "progress.json")
