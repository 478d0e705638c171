"""Group runs into arms, and compare the arms."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cyclenet.config.identity import flatten, result_affecting
from cyclenet.config.naming import arm_label
from cyclenet.config.schema import TrainConfig
from cyclenet.lab.paper import find_row
from cyclenet.lab.report.runs import Run
from cyclenet.scoring.intervals import Difference, difference
from cyclenet.scoring.results import Evaluation


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
        return [r.cfg.seed for r in self.runs if protocol in r.evaluations and r.cfg]

    @property
    def protocols(self) -> list[str]:
        """Names of the protocols, the runs' own first."""
        return list(dict.fromkeys(name for run in self.runs for name in run.evaluations))


class Row(NamedTuple):
    """A row of the report: an arm, and the protocol that it was evaluated by."""

    arm: Arm
    protocol: str

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.arm.label}, {self.protocol}"

    @property
    def evaluations(self) -> list[Evaluation]:
        """One evaluation a seed."""
        return self.arm.evaluations(self.protocol)

    @property
    def scores(self) -> list[float]:
        """The mIoU of each seed."""
        return [each.scores.mIoU for each in self.evaluations]

    @property
    def papers(self) -> float | None:
        """The paper's mIoU, percent, where the arm differs from the paper's in nothing."""
        model = self.arm.cfg.model
        found = find_row(model, self.protocol) if self.arm.label == arm_label(model) else None
        return found.miou if found else None


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
    classes = {
        tuple(each.scores.IoU) for run in runs if run.finished for each in run.evaluations.values()
    }
    if len(classes) > 1:
        raise ValueError(
            "These runs have different classes, or another order of them, and cannot be compared; "
            "give those of one data set."
        )
    data = {(cfg.dataset.name, cfg.dataset.val_split) for cfg in configs.values()}
    if len(data) > 1:
        names = ", ".join(sorted(f"{name} {split}" for name, split in data))
        raise ValueError(
            f"These runs are of different data ({names}) and cannot be compared; "
            "give those of one, such as runs/ablation/camvid-*."
        )
    labels = _tell_apart(configs)
    return [
        Arm(
            labels[key], configs[key], sorted(group, key=lambda run: run.cfg.seed if run.cfg else 0)
        )
        for key, group in groups.items()
    ]


def _without_seed(cfg: TrainConfig) -> dict[str, Any]:
    values = result_affecting(cfg)
    for key in ("seed", "name"):
        values.pop(key)
    return values


def _tell_apart(configs: dict[str, TrainConfig]) -> dict[str, str]:
    """Label arms; those made of the same also get the values in which they differ.

    A value is told that differs both from another arm of the same parts and from most arms. It is
    not told from the first arm, because which of two parallel runs ends first is chance.
    """
    labels = {key: arm_label(cfg.model) for key, cfg in configs.items()}
    values = {key: flatten(json.loads(key)) for key in configs}
    told = {}
    for key, own in values.items():
        alike = [values[other] for other in configs if labels[other] == labels[key]]
        extra = [
            f"{name}={own[name]}"
            for name in own
            if any(each.get(name) != own[name] for each in alike)
            and own[name] != _most_common([each.get(name) for each in values.values()])
        ]
        told[key] = labels[key] + (f" [{', '.join(extra)}]" if extra else "")
    return told


def _most_common(values: list[Any]) -> Any:
    # Ties go to the first; values may be unhashable.
    return max(values, key=values.count)


def comparable(a: list[Evaluation], b: list[Evaluation]) -> bool:
    """Tell whether two arms were evaluated on the same images."""
    names = {tuple(evaluation.counts["names"]) for evaluation in (*a, *b)}
    return len(names) == 1


def compare(
    row: Row, other: Row, key: str = "pixels", band: int | None = None, block: int = 1
) -> Difference | None:
    """Compare two rows by their counts.

    Args:
        row: the row that is compared.
        other: the row that it is compared with.
        key: name of the counts: pixels, boundary or trimap.
        band: number of the trimap's band.
        block: as in `cyclenet.scoring.intervals.difference`.

    Returns:
        None where the rows are the same, not of the same images, or without such counts.
    """
    a, b = row.evaluations, other.evaluations
    if row == other or not comparable(a, b) or any(key not in e.counts for e in (*a, *b)):
        return None
    paired = row.arm.seeds(row.protocol) == other.arm.seeds(other.protocol)
    return difference(_counts(a, key, band), _counts(b, key, band), paired, block=block)


def _counts(evaluations: list[Evaluation], key: str, band: int | None) -> list[np.ndarray]:
    counts = [evaluation.counts[key] for evaluation in evaluations]
    return counts if band is None else [each[:, band] for each in counts]
