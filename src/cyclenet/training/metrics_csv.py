"""The file metrics.csv of a run: a row for each logged step, never half a file."""

import csv
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from cyclenet.files import atomic_write
from cyclenet.training.curves import read_metrics

FLUSH_SECONDS = 10.0


class MetricsCSV(Logger):
    """One row a call of `log_metrics`, one column a metric.

    The file is replaced as a whole every ten seconds, at validations and with every checkpoint, so
    it is never half a file. Where the disk is full, rows wait in memory.

    Args:
        path: the file.
        before: earlier rows of the file are kept up to this step of a checkpoint; 0 keeps none.
    """

    def __init__(self, path: Path, before: int) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.columns = {"step"}
        self.written, self.saved_at = 0, 0.0
        if before and path.exists():
            for row in read_metrics(path):
                if int(row["step"]) < before:
                    self._add(row)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._add({**metrics, "step": step or 0})
        if any(key.startswith("val/") for key in metrics):
            self.flush()

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.columns |= row.keys()

    @rank_zero_only
    def save(self) -> None:
        if time.monotonic() - self.saved_at > FLUSH_SECONDS:
            self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Write all rows now."""
        self.saved_at = time.monotonic()
        if self.written == len(self.rows):
            return
        try:
            with (
                atomic_write(self.path) as part,
                part.open("w", encoding="utf-8", newline="") as file,
            ):
                writer = csv.DictWriter(file, sorted(self.columns))
                writer.writeheader()
                writer.writerows(self.rows)
        except OSError as error:
            warnings.warn(
                f"{self.path} could not be written ({error.strerror}); its rows are kept for "
                "later.",
                stacklevel=1,
            )
            return
        self.written = len(self.rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()
