"""Where a run's numbers go: metrics.csv always, wandb and TensorBoard if asked for.

A resumed run continues in the same places.
"""

import csv
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from cyclenet.config.identity import arm_name
from cyclenet.config.schema import TrainConfig
from cyclenet.files import atomic_write, read_text, write_text
from cyclenet.plots.pictures import PanelRow
from cyclenet.scoring.metrics import Scores
from cyclenet.scoring.results import EvaluationResult
from cyclenet.training.curves import read_metrics

FLUSH_SECONDS = 10.0
REACHABLE_SECONDS = 5.0
MOST_CLASSES_IN_A_CHART = 100
"""wandb draws charts of 10000 rows at most, and a confusion matrix has a row for each pair."""


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
            with atomic_write(self.path) as part, part.open("w", newline="") as file:
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
        files = folder.glob(f"wandb/offline-run-*-{_wandb_id(folder)}/*.wandb")
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


def build_loggers(cfg: TrainConfig, folder: Path, step: int, first: bool) -> list[Logger]:
    """Build the loggers of a run folder.

    Args:
        cfg: the configuration; ``logger`` says which.
        folder: the run folder.
        step: step of the checkpoint that the run continues from; 0 where it begins.
        first: whether this is the process that writes.
    """
    metrics = MetricsCSV(folder / "metrics.csv", step if first else 0)
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        if metrics.rows:
            metrics.flush()  # The rows that come after the checkpoint go.
        else:
            metrics.path.unlink(missing_ok=True)
    loggers: list[Logger] = [metrics]
    if cfg.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    mode = choose_wandb_mode(cfg.logger.wandb)
    if mode != "disabled":
        loggers.append(_build_wandb(cfg, folder, metrics.rows, first, mode == "online"))
    for logger in loggers[1:]:
        about = {"arm": arm_name(cfg), "run_folder": folder.name}
        logger.log_hyperparams(asdict(cfg) | about)
    return loggers


def choose_wandb_mode(wanted: str) -> str:
    """Resolve ``logger.wandb`` to online, offline or disabled.

    wandb's own variables count too. ``auto`` goes offline where the server cannot be reached.

    Raises:
        ValueError: ``online`` is wanted, and the server cannot be reached.
    """
    said = os.environ.get("WANDB_MODE", "")
    if wanted == "disabled" or said == "disabled":
        return "disabled"
    if said in ("offline", "dryrun") or wanted == "offline":
        return "offline"
    if wanted == "auto" and said != "online" and "WANDB_API_KEY" not in os.environ:
        return "offline"
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if _is_reachable(server):
        return "online"
    if wanted == "online":
        raise ValueError(
            f"{server} cannot be reached: give logger.wandb=offline, and `wandb sync` later."
        )
    warnings.warn(f"{server} cannot be reached: wandb runs offline.", stacklevel=1)
    return "offline"


def _is_reachable(server: str) -> bool:
    if {"https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"} & os.environ.keys():
        return True  # Only the proxy can tell.
    url = urlsplit(server)
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname or "", port), REACHABLE_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _build_wandb(
    cfg: TrainConfig, folder: Path, rows: list[dict[str, Any]], first: bool, online: bool
) -> ResumableWandb:
    wandb = ResumableWandb(
        save_dir=folder,
        project=cfg.logger.wandb_project,
        # A sweep is a group, its arms are job types: grouped by both, wandb averages an arm over
        # its seeds.
        name=f"{arm_name(cfg)}, seed {cfg.seed}",
        group=f"{cfg.name}-{cfg.dataset.name}",
        job_type=arm_name(cfg),
        tags=[cfg.dataset.name, cfg.model.backbone, cfg.model.context, cfg.model.decoder],
        id=_wandb_id(folder) if first else None,
        resume="allow",
        offline=not online,
    )
    if first and not online:
        wandb.replay(folder, rows)
    return wandb


def _wandb_id(folder: Path) -> str:
    """Return the id under which wandb knows the run, from its beginning on."""
    path = folder / "wandb-id.txt"
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    return read_text(path)


def close_loggers() -> None:
    """End the wandb run, so that the next job of a sweep begins its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
