"""Where a run's numbers go: metrics.csv, and wandb and TensorBoard if asked for. A resumed run goes on in the same places."""

import csv
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from cyclenet.config import TrainConfig, identity
from cyclenet.lab.paper import describe

FLUSH_SECONDS = 10.0


class MetricsCSV(Logger):
    """One row a call of `log_metrics`, a column a metric; the file is replaced as a whole, so that it is never half a file.

    Written every ten seconds, at validations and with every checkpoint. Where the disk is full, rows wait in memory.

    Args:
        path: the file.
        before: go on from a checkpoint at this step: earlier rows of the file are kept. 0: start afresh.
    """

    def __init__(self, path: Path, before: int) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.columns = {"step"}
        self.written, self.saved_at = 0, 0.0
        if before and path.exists():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    # (The logger of earlier versions could leave half a row.)
                    if (row["step"] or "").isdigit() and int(row["step"]) < before:
                        self._add({key: value for key, value in row.items() if value})

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
        part = self.path.with_name(self.path.name + ".tmp")
        try:
            with part.open("w", newline="") as file:
                writer = csv.DictWriter(file, sorted(self.columns))
                writer.writeheader()
                writer.writerows(self.rows)
            part.replace(self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            warnings.warn(f"{self.path} could not be written ({error.strerror}); its rows are kept for later.", stacklevel=1)
            return
        self.written = len(self.rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()


class ResumableWandb(WandbLogger):
    """A wandb run that goes on under its id, with each row once.

    A killed process loses the end of wandb's file, and a resumed one passes some steps again. `replay` writes what was lost;
    what is there already is not logged again.
    """

    present: frozenset[tuple[int, str]] = frozenset()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        new = {key: value for key, value in metrics.items() if (step or 0, key) not in self.present}
        if new.keys() - {"epoch"}:
            super().log_metrics(new, step)

    @rank_zero_only
    def replay(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        """Read what earlier processes logged offline in a run folder, and log the rows of metrics.csv that are not there."""
        self.present = frozenset().union(*(logged(path) for path in folder.glob("wandb/offline-run-*/*.wandb")))
        for row in rows:
            self.log_metrics({key: float(value) for key, value in row.items() if key != "step"}, int(row["step"]))

    @rank_zero_only
    def log_evaluation(self, folder: Path, step: int) -> None:
        """Log what an evaluation wrote into ``folder`` (`cyclenet.runs.evaluate.write`): scores as a summary, tables and charts.

        Everything lies under ``final/<protocol>/``, so that one saved workspace fits all runs.
        """
        import wandb

        scores = json.loads((folder / "scores.json").read_text())
        name, classes = f"final/{scores['protocol_name']}", list(scores["IoU"])
        values = {key: scores[key] for key in ("mIoU", "pixel_accuracy", "mean_accuracy")}
        charts: dict[str, Any] = {"confusion": wandb.Image(str(folder / "confusion.png"))}
        if len(classes) <= 100:  # wandb draws charts of 10000 rows at most.
            pairs = [[a, b, scores["confusion"][i][j]] for i, a in enumerate(classes) for j, b in enumerate(classes)]
            table = wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=pairs)
            fields: dict[str, Any] = {str(key): key for key in table.columns}
            charts["confusion_matrix"] = wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": "pixels"})
        columns: list[str | int] = ["class", "IoU"]
        rows = [[key, scores["IoU"][key]] for key in classes]
        if "trimap" in scores:
            values["boundary_IoU"] = scores["boundary"]["mIoU"]
            widths, curve = scores["trimap"]["widths"], scores["trimap"]["mIoU"]
            table = wandb.Table(columns=["width", "mIoU"], data=[list(pair) for pair in zip(widths, curve, strict=True)])
            charts["trimap"] = wandb.plot.line(table, "width", "mIoU", title="mIoU in a band around edges, by its width")
            columns += ["boundary IoU", *(f"within {width} px" for width in widths)]
            for row in rows:
                row += [scores["boundary"]["IoU"][row[0]], *scores["trimap"]["IoU"][row[0]]]
        charts["per_class"] = wandb.Table(columns=columns, data=rows)
        self.experiment.log({f"{name}/{key}": chart for key, chart in charts.items()} | {"trainer/global_step": step})
        self.experiment.summary.update({f"{name}/{key}": value for key, value in values.items()})


def logged(path: Path) -> set[tuple[int, str]]:
    """Read (``trainer/global_step``, key) of all rows of an offline wandb file, as far as it is whole."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        reason = "" if done.returncode == 0 or done.stdout else (done.stderr.strip().splitlines() or ["no output"])[-1]
    except subprocess.TimeoutExpired:
        done, reason = None, "it took too long"
    if done is None or reason:
        warnings.warn(f"{path} could not be read ({reason}): rows that it has are logged again.", stacklevel=1)
        return set()
    found = set()
    for line in done.stdout.splitlines():
        record = json.loads(line)
        if record.get("type") == "history":
            item = record["history"]["item"]
            # Media have several entries, as "val/per_class._type".
            found |= {(int(item.get("trainer/global_step", -1)), key.split("._")[0]) for key in item}
    return found


def build_loggers(cfg: TrainConfig, folder: Path, step: int, first: bool) -> list[Logger]:
    """Build the loggers of a run folder.

    Args:
        cfg: which.
        folder: of the run.
        step: of the checkpoint that the run goes on from; 0: it begins.
        first: whether this is the process that writes.
    """
    metrics = MetricsCSV(folder / "metrics.csv", step if first else 0)
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        if metrics.rows:
            metrics.flush()  # Without those that come after the checkpoint.
        else:
            metrics.path.unlink(missing_ok=True)
    loggers: list[Logger] = [metrics]
    if cfg.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    if cfg.logger.wandb != "disabled":
        online = cfg.logger.wandb == "online" or (cfg.logger.wandb == "auto" and "WANDB_API_KEY" in os.environ)
        wandb = ResumableWandb(
            save_dir=folder,
            project=cfg.logger.wandb_project,
            # A sweep is a group, its arms are job types: grouped by both, wandb averages an arm over its seeds.
            name=f"{arm_name(cfg)}, seed {cfg.seed}",
            group=f"{cfg.name}-{cfg.dataset.name}",
            job_type=arm_name(cfg),
            tags=[cfg.dataset.name, cfg.model.backbone, cfg.model.context, cfg.model.decoder],
            id=wandb_id(folder) if first else None,
            resume="allow",
            offline=not online,
        )
        if first and not online:
            wandb.replay(folder, metrics.rows)
        loggers.append(wandb)
    for logger in loggers[1:]:
        logger.log_hyperparams(asdict(cfg) | {"arm": arm_name(cfg), "run_folder": folder.name})
    return loggers


def arm_name(cfg: TrainConfig) -> str:
    """Name what a run has in common with its other seeds: what it is made of, and a digest of all that changes its result."""
    same = identity(asdict(cfg))
    for key in ("seed", "name", "ckpt_path"):
        same.pop(key)
    digest = hashlib.blake2b(json.dumps(same, sort_keys=True).encode(), digest_size=2).hexdigest()
    return f"{describe(cfg.model)} {digest}"


def wandb_id(folder: Path) -> str:
    """Return the id under which a run folder's run is known to wandb, from its beginning on."""
    path = folder / "wandb-id.txt"
    if not path.exists():
        path.write_text(secrets.token_hex(8))
    return path.read_text()


def close_loggers() -> None:
    """End the wandb run, so that the next job of a sweep begins its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
