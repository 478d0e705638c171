"""Read run folders and compare their arms: what a sweep found, with its uncertainty."""

import csv
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cyclenet.config import TrainConfig, identity
from cyclenet.metrics import mean_iou
from cyclenet.paper import describe


@dataclass
class Evaluation:
    """One evaluation of a run's last checkpoint on its validation split: ``scores.json``, and the counts of ``images.npz``."""

    scores: dict[str, Any]
    counts: dict[str, np.ndarray]


@dataclass
class Run:
    """A run folder.

    Attributes:
        cfg: its configuration; None where there is no readable one.
        status: ``finished``, ``failed``, ``interrupted``, or ``unfinished`` where there is no result file.
        evaluations: by the protocol's name, the run's own first.
    """

    folder: Path
    cfg: TrainConfig | None
    status: str
    result: dict[str, Any]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Tell whether there is something to compare."""
        return self.status == "finished" and bool(self.evaluations)


def find_runs(paths: list[Path]) -> list[Run]:
    """Read run folders, or all that lie below a folder, in the order they were finished.

    Raises:
        ValueError: a path does not exist, or nothing below it is a run.
    """
    folders: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"There is no folder {path}: give run folders, or a folder that holds them.")
        found = _search(path)
        if not found:
            raise ValueError(f"{path} holds no runs (folders with a config.yaml and a result.json).")
        folders += [folder for folder in found if folder not in folders]
    return sorted(map(read_run, folders), key=lambda run: run.result.get("finished_at", float("inf")))


def _search(path: Path) -> list[Path]:
    # Not below a run, where loggers have config.yaml files of their own.
    if any((path / name).is_file() for name in ("config.yaml", "result.json", ".hydra/config.yaml")):
        return [path]
    return [run for folder in sorted(path.iterdir()) if folder.is_dir() for run in _search(folder)]


def read_run(folder: Path) -> Run:
    """Read what a run left, however far it came."""
    try:
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        result = {}
    cfg: TrainConfig | None = None
    for name in ("config.yaml", ".hydra/config.yaml"):
        try:
            merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(folder / name))
            cfg = OmegaConf.to_object(merged)  # type: ignore[assignment]
            break
        except (OSError, ValueError, OmegaConfBaseException, YAMLError):
            continue  # Not there, cut off, or the wrong configuration that the job failed for.
    run = Run(folder, cfg, result.get("status", "unfinished"), result)
    if cfg is not None:
        found = []
        for path in (folder / "evaluate").glob("last-*/scores.json"):
            scores = json.loads(path.read_text())
            if (scores["dataset"], scores["split"]) == (cfg.dataset.name, cfg.dataset.val_split):
                with np.load(path.with_name("images.npz")) as arrays:
                    found.append(Evaluation(scores, dict(arrays)))
        found.sort(key=lambda e: (e.scores["protocol"] != result.get("protocol"), e.scores["protocol"]))
        run.evaluations = {evaluation.scores["protocol_name"]: evaluation for evaluation in found}
    return run


@dataclass
class Arm:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: what the arm is made of, and what tells it from the first arm that is made of the same.
        cfg: the configuration of its first run.
        runs: the finished ones, by seed.
    """

    label: str
    cfg: TrainConfig
    runs: list[Run]

    def evaluations(self, protocol: str) -> list[Evaluation]:
        """Return an evaluation for each seed that has one."""
        return [run.evaluations[protocol] for run in self.runs if protocol in run.evaluations]

    @property
    def protocols(self) -> list[str]:
        """Return the names of the protocols, the runs' own first."""
        return list(dict.fromkeys(name for run in self.runs for name in run.evaluations))


def group_arms(runs: list[Run]) -> list[Arm]:
    """Group finished runs by all but their seed, in the order given.

    Raises:
        ValueError: the runs are of different data sets.
    """
    groups: dict[str, list[Run]] = {}
    configs: dict[str, TrainConfig] = {}
    for run in runs:
        if run.finished and run.cfg is not None:
            key = json.dumps(_without_seed(run.cfg), sort_keys=True)
            groups.setdefault(key, []).append(run)
            configs.setdefault(key, run.cfg)
    data = {(cfg.dataset.name, cfg.dataset.val_split) for cfg in configs.values()}
    if len(data) > 1:
        names = ", ".join(sorted(f"{name} {split}" for name, split in data))
        raise ValueError(f"These runs are of different data ({names}) and cannot be compared; give those of one.")
    labels = {key: describe(cfg.model) for key, cfg in configs.items()}
    flat = {key: _flatten(json.loads(key)) for key in groups}
    arms = []
    for key, group in groups.items():
        first = next(flat[other] for other in groups if labels[other] == labels[key])
        extra = ", ".join(f"{name}={value}" for name, value in flat[key].items() if first.get(name) != value)
        label = labels[key] + (f" [{extra}]" if extra else "")
        arms.append(Arm(label, configs[key], sorted(group, key=lambda run: run.cfg.seed if run.cfg else 0)))
    return arms


def _without_seed(cfg: TrainConfig) -> dict[str, Any]:
    values = identity(asdict(cfg))
    for key in ("seed", "name"):
        values.pop(key)
    return values


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


class Difference(NamedTuple):
    """A difference of mean IoUs and the bounds of its 95 % interval, in [0, 1]."""

    value: float
    low: float
    high: float


def difference(a: list[np.ndarray], b: list[np.ndarray], draws: int = 2000) -> Difference:
    """Compare two arms by a paired bootstrap over images, and over seeds where there are several.

    In each draw both arms are scored on the same images, drawn with replacement, all their pixels in one matrix as mIoU is
    defined; seeds are drawn with replacement too, the same ones for both arms if both have as many. The interval is the
    percentile one. With a single seed it tells how far the images may mislead, and nothing about training anew.

    Args:
        a: counts of one arm, for each seed (images, C, 3) right, true and predicted pixels.
        b: of the other, of the same images.
        draws: bootstrap samples.

    Returns:
        mIoU of ``a`` minus that of ``b``, each the mean over its seeds.
    """
    rng = np.random.default_rng(0)
    images = len(a[0])
    weights = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)
    samples = []
    paired = rng.integers(0, len(a), (draws, len(a)))
    for arm in (a, b):
        # (seeds, draws). Sums of counts are whole numbers below 2 ** 53.
        scores = np.stack([mean_iou((weights @ c.reshape(images, -1)).reshape(draws, *c.shape[1:])) for c in arm])
        chosen = paired if len(arm) == len(a) else rng.integers(0, len(arm), (draws, len(arm)))
        samples.append(np.take_along_axis(scores.T, chosen, 1).mean(1))
    low, high = np.percentile(samples[0] - samples[1], [2.5, 97.5])
    value = _mean_score(a) - _mean_score(b)
    return Difference(value, float(low), float(high))


def _mean_score(arm: list[np.ndarray]) -> float:
    return float(np.mean([mean_iou(counts.sum(0, dtype=np.int64)) for counts in arm]))


def comparable(a: list[Evaluation], b: list[Evaluation]) -> bool:
    """Tell whether two arms were evaluated on the same images."""
    names = [tuple(evaluation.counts["names"]) for evaluation in (*a, *b)]
    return len(set(names)) == 1


def read_curve(folder: Path, column: str) -> tuple[list[float], list[float]]:
    """Return (optimizer steps, values) of a column of ``metrics.csv``; empty where there is none."""
    steps, values = [], []
    path = folder / "metrics.csv"
    if path.is_file():
        with path.open() as file:
            for row in csv.DictReader(file):
                if row.get(column) and row.get("step"):
                    steps.append(float(row["step"]) + 1)  # Rows are numbered from 0.
                    values.append(float(row[column]))
    return steps, values
