"""A wandb run that a resumed training continues, with each row once."""

import json
import secrets
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from cyclenet.files import read_text, write_text
from cyclenet.plots.pictures import PanelRow
from cyclenet.scoring.metrics import Scores
from cyclenet.scoring.results import EvaluationResult

MOST_CLASSES_IN_A_CHART = 100
"""wandb draws charts of 10000 rows at most, and a confusion matrix has a row for each pair."""


class ResumableWandb(WandbLogger):
    """A wandb run that continues under its id, with each row once.

    A killed process loses the end of wandb's file, and a resumed one passes some steps again.
    `replay` writes what was lost; what is there already is not logged again.
    """

    present: frozenset[tuple[int, str]] = frozenset()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        new = {k: v for k, v in metrics.items() if (step or 0, k) not in self.present}
        if new.keys() - {"epoch"}:
            super().log_metrics(new, step)

    @rank_zero_only
    def replay(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        """Log the rows of metrics.csv that earlier processes' offline files do not hold."""
        files = folder.glob(f"wandb/offline-run-*-{wandb_id(folder)}/*.wandb")
        self.present = frozenset().union(*(read_logged(path) for path in files))
        for row in rows:
            values = {key: float(value) for key, value in row.items() if key != "step"}
            self.log_metrics(values, int(row["step"]))

    @rank_zero_only
    def log_pictures(
        self,
        pictures: list[tuple[str, PanelRow]],
        classes: list[str],
        scores: Scores | None,
        step: int,
    ) -> None:
        """Log named predictions with their masks, and a table of IoU by class, once a step."""
        import wandb

        if scores is None or (step, "val/per_class") in self.present:
            return
        labels = dict(enumerate(classes))
        images = []
        for name, row in pictures:
            masks = {"prediction": row.predictions[0], "ground_truth": row.truth}
            shown = {k: {"mask_data": m, "class_labels": labels} for k, m in masks.items()}
            images.append(wandb.Image(row.image, caption=name, masks=shown))
        columns: list[str | int] = ["class", "IoU"]
        table = wandb.Table(columns, data=[list(item) for item in scores.IoU.items()])
        values = {"val/pictures": images, "val/per_class": table, "trainer/global_step": step}
        self.experiment.log(values)

    @rank_zero_only
    def log_evaluation(self, result: EvaluationResult, folder: Path, step: int) -> None:
        """Log an evaluation: scores as a summary, tables and charts.

        All is under ``final/<protocol>/``, so that one saved workspace fits all runs.
        """
        name = f"final/{result.protocol_name}"
        charts = {f"{name}/{key}": chart for key, chart in _charts(result, folder).items()}
        self.experiment.log(charts | {"trainer/global_step": step})
        values = {"mIoU": result.mIoU, "pixel_accuracy": result.pixel_accuracy}
        values["mean_accuracy"] = result.mean_accuracy
        if result.boundary:
            values["boundary_IoU"] = result.boundary.mIoU
        self.experiment.summary.update({f"{name}/{k}": value for k, value in values.items()})


def _charts(result: EvaluationResult, folder: Path) -> dict[str, Any]:
    import wandb

    classes = list(result.IoU)
    charts: dict[str, Any] = {"confusion": wandb.Image(str(folder / "confusion.png"))}
    if len(classes) <= MOST_CLASSES_IN_A_CHART:
        pairs = [
            [actual, predicted, result.confusion[i][j]]
            for i, actual in enumerate(classes)
            for j, predicted in enumerate(classes)
        ]
        columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
        table = wandb.Table(columns, data=pairs)
        charts["confusion_matrix"] = wandb.plot_table(
            "wandb/confusion_matrix/v1",
            table,
            {str(key): key for key in table.columns},
            {"title": "pixels"},
        )
    head: list[str | int] = ["class", "IoU"]
    rows: list[list[Any]] = [[name, result.IoU[name]] for name in classes]
    if result.trimap and result.boundary:
        widths = result.trimap.widths
        points = [list(pair) for pair in zip(widths, result.trimap.mIoU, strict=True)]
        title = "mIoU in a band around edges, by its width"
        table = wandb.Table(columns=["width", "mIoU"], data=points)
        charts["trimap"] = wandb.plot.line(table, "width", "mIoU", title=title)
        head += ["boundary IoU", *(f"within {width} px" for width in widths)]
        for row in rows:
            row += [result.boundary.IoU[row[0]], *result.trimap.IoU[row[0]]]
    charts["per_class"] = wandb.Table(columns=head, data=rows)
    return charts


def read_logged(path: Path) -> set[tuple[int, str]]:
    """Read (``trainer/global_step``, key) of all rows of an offline wandb file, as far as whole."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        output = done.stdout
        reason = ""
        if done.returncode and not output:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
    except subprocess.TimeoutExpired:
        output, reason = "", "it took too long"
    if reason:
        warnings.warn(
            f"{path} could not be read ({reason}): rows that it has are logged again.", stacklevel=1
        )
    found = set()
    for line in output.splitlines():
        record = json.loads(line)
        if record.get("type") == "history":
            item = record["history"]["item"]
            step = int(item.get("trainer/global_step", -1))
            # Media have several entries, such as "val/per_class._type".
            found |= {(step, key.split("._")[0]) for key in item}
    return found


def wandb_id(folder: Path) -> str:
    """Return the id under which wandb knows the run, from its beginning on."""
    path = folder / "wandb-id.txt"
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    return read_text(path)
