"""Read run folders and compare their arms: what a sweep found, with its uncertainty."""

import csv
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from scipy.stats import t as student
from yaml import YAMLError

from cyclenet.config import TrainConfig, flat, identity, restore
from cyclenet.lab.paper import describe
from cyclenet.scoring.metrics import mean_iou


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
        evaluations: those that its result file names, by the protocol's name, the run's own first.
        problem: why there is nothing to compare, "" if there is.
    """

    folder: Path
    cfg: TrainConfig | None
    status: str
    result: dict[str, Any]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    problem: str = ""

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
        found = _search(path.resolve())
        if not found:
            raise ValueError(f"{path} holds no runs (folders with a config.yaml and a result.json).")
        folders += [folder for folder in found if folder not in folders]
    return sorted(map(read_run, folders), key=lambda run: run.result.get("finished_at", float("inf")))


def keep(runs: list[Run], protocols: list[str]) -> None:
    """Leave of each run only the evaluations by these protocols.

    Raises:
        ValueError: runs were evaluated, but none by one of them.
    """
    there = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    for name in protocols:
        if there and name not in there:
            raise ValueError(f"No run was evaluated by {name!r}; there are: {', '.join(there)}.")
    for run in runs:
        run.evaluations = {name: evaluation for name, evaluation in run.evaluations.items() if name in protocols}
        if run.status == "finished" and not run.evaluations:
            run.problem = run.problem or f"was not evaluated by {' or '.join(protocols)}"


def _search(path: Path) -> list[Path]:
    # Not below a run, where loggers have config.yaml files of their own. A sweep's job has a train.log first of all.
    if any((path / name).is_file() for name in ("config.yaml", "result.json", ".hydra/config.yaml", "train.log")):
        return [path]
    return [run for folder in sorted(path.iterdir()) if folder.is_dir() for run in _search(folder)]


def read_run(folder: Path) -> Run:
    """Read what a run left, however far it came."""
    try:
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        result = None
    result = result if isinstance(result, dict) else {}
    run = Run(folder, None, result.get("status", "unfinished"), result, problem=str(result.get("error", "")))
    for name in ("config.yaml", ".hydra/config.yaml"):
        try:
            run.cfg = restore(OmegaConf.load(folder / name))
            break
        except OSError:
            continue
        except (ValueError, OmegaConfBaseException, YAMLError) as error:
            # Cut off, of another version, or the wrong configuration that the job failed for.
            run.problem = run.problem or f"{name}: {str(error).splitlines()[0]}"
    if run.cfg is not None and run.status == "finished":
        # Only these: what was evaluated by hand may be of fewer images, or by other rules under the same name.
        run.problem = "" if result.get("evaluations") else "has no evaluation: made by an earlier version"
        for where in result.get("evaluations", {}).values():
            try:
                scores = json.loads((folder / where / "scores.json").read_text())
                with np.load(folder / where / "images.npz") as arrays:
                    run.evaluations[scores["protocol_name"]] = Evaluation(scores, dict(arrays))
            except (OSError, ValueError, KeyError, BadZipFile) as error:
                run.problem = f"{where} cannot be used ({type(error).__name__}): run src/evaluate.py again"
        own = run.cfg.protocol.describe()
        run.evaluations = dict(sorted(run.evaluations.items(), key=lambda item: item[1].scores["protocol"] != own))
    return run


@dataclass
class Arm:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: what the arm is made of, and what tells it from others that are made of the same.
        cfg: the configuration of its first run.
        runs: the finished ones, by seed.
    """

    label: str
    cfg: TrainConfig
    runs: list[Run]

    def evaluations(self, protocol: str) -> list[Evaluation]:
        """Return an evaluation for each seed that has one."""
        return [run.evaluations[protocol] for run in self.runs if protocol in run.evaluations]

    def seeds(self, protocol: str) -> list[int]:
        """Return the seeds of `evaluations`."""
        return [run.cfg.seed for run in self.runs if protocol in run.evaluations and run.cfg]

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
        raise ValueError(
            f"These runs are of different data ({names}) and cannot be compared; give those of one, as runs/ablation/camvid-*."
        )
    labels = {key: describe(cfg.model) for key, cfg in configs.items()}
    values = {key: flat(json.loads(key)) for key in groups}
    arms = []
    for key, group in groups.items():
        # Told: in what it differs both from one that is made of the same and from most. Not from the first: which of two runs
        # beside each other ends first is chance.
        own = values[key]
        alike = [values[other] for other in groups if labels[other] == labels[key]]
        differs = [name for name in own if any(each.get(name) != own[name] for each in alike)]
        told = [name for name in differs if own[name] != _commonest([each.get(name) for each in values.values()])]
        extra = ", ".join(f"{name}={own[name]}" for name in told)
        label = labels[key] + (f" [{extra}]" if extra else "")
        arms.append(Arm(label, configs[key], sorted(group, key=lambda run: run.cfg.seed if run.cfg else 0)))
    return arms


def _without_seed(cfg: TrainConfig) -> dict[str, Any]:
    values = identity(asdict(cfg))
    for key in ("seed", "name"):
        values.pop(key)
    return values


def _commonest(values: list[Any]) -> Any:
    # Of several, the first. Values may be lists.
    return max(values, key=values.count)


class Difference(NamedTuple):
    """A difference of mean IoUs and the bounds of its 95 % interval, in [0, 1]."""

    value: float
    low: float
    high: float


def difference(a: list[np.ndarray], b: list[np.ndarray], paired: bool = True, draws: int = 2000, block: int = 1) -> Difference:
    """Compare two arms by a paired bootstrap over images and, where there are several seeds, by Student's t over them.

    In each draw both arms are scored on the same images, drawn with replacement, all their pixels in one matrix as mIoU is
    defined; that gives a percentile interval. Seeds are too few to draw from (with 3, an interval of nominal 95 % holds the
    truth 64 times in 100), so their half width, t * s / sqrt(n), is added in quadrature to both sides of it: of the differences
    seed by seed where both arms have the same seeds, else after Welch. If each arm has a single seed, the interval tells how
    far the images may mislead, and nothing about training anew.

    Args:
        a: counts of one arm, for each seed (images, C, 3) right, true and predicted pixels.
        b: of the other, of the same images.
        paired: the seeds of both arms are the same, in the same order.
        draws: bootstrap samples.
        block: images are drawn in stretches of so many neighbours, the last of all being the first one's neighbour (circular
            block bootstrap, Politis and Romano 1992): for frames of a video, of which neighbours say the same.

    Returns:
        mIoU of ``a`` minus that of ``b``, each the mean over its seeds.
    """
    images = len(a[0])
    rng = np.random.default_rng(0)
    if block == 1:
        weights = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)
    else:
        starts = rng.integers(images, size=(draws, -(-images // block), 1))
        drawn_images = ((starts + np.arange(block)) % images).reshape(draws, -1)[:, :images]
        weights = np.stack([np.bincount(row, minlength=images) for row in drawn_images]).astype(np.float64)

    def drawn(arm: list[np.ndarray]) -> np.ndarray:
        # Sums of counts are whole numbers below 2 ** 53.
        scores = [mean_iou((weights @ c.reshape(images, -1)).reshape(draws, *c.shape[1:])) for c in arm]
        return np.mean(scores, 0)

    low, high = np.percentile(drawn(a) - drawn(b), [2.5, 97.5])
    score_a, score_b = (np.array([mean_iou(c.sum(0, dtype=np.int64)) for c in arm]) for arm in (a, b))
    value = score_a.mean() - score_b.mean()
    seeds = _seed_half_width(score_a, score_b, paired)
    return Difference(float(value), float(value - np.hypot(value - low, seeds)), float(value + np.hypot(high - value, seeds)))


def _seed_half_width(a: np.ndarray, b: np.ndarray, paired: bool) -> float:
    if paired and len(a) == len(b) > 1:
        return float(student.ppf(0.975, len(a) - 1) * (a - b).std(ddof=1) / len(a) ** 0.5)
    if len(a) == len(b) == 1:
        return 0.0
    if 1 in (len(a), len(b)):  # The single training is taken to vary as those of the other arm do.
        x = max(a, b, key=len)
        return float(student.ppf(0.975, len(x) - 1) * x.std(ddof=1) * (1 + 1 / len(x)) ** 0.5)
    variances = [(x.var(ddof=1) / len(x), len(x) - 1) for x in (a, b)]
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(variance**2 / n for variance, n in variances)  # Welch and Satterthwaite.
    return float(student.ppf(0.975, freedom) * total**0.5)


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
