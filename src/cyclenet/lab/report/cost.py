"""The report's section on cost: parameters, GFLOPs, time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cyclenet.config.identity import network_name
from cyclenet.config.naming import context_name
from cyclenet.files import read_json
from cyclenet.lab.cost.count import count_cost, total
from cyclenet.lab.markdown import NONE, interval, markdown_table, plain
from cyclenet.lab.paper import TABLE1, find_row, has_papers_costs
from cyclenet.lab.report.arms import Arm, Row
from cyclenet.lab.report.charts import CostPoint, cost_chart
from cyclenet.lab.report.compare import compare
from cyclenet.lab.report.runs import Run

LATENCY = "latency.json"
"""What ``bench/latency.py`` measured, in the folder that holds the run folders."""


class ArmCost(NamedTuple):
    """Parameters in millions, GFLOPs with each module once, GFLOPs executed, for a crop."""

    parameters: float
    once: float
    executed: float


@dataclass
class LatencyOfArm:
    """The median of the seconds that one image takes, and the network (`network_name`)."""

    s: float
    network: str = ""


@dataclass
class Latency:
    """The part of ``latency.json`` that the report reads."""

    image: str
    threads: int
    rounds: int
    arms: dict[str, LatencyOfArm]


def cost_of_arms(arms: Sequence[Arm]) -> list[ArmCost]:
    """Count the cost of each arm for a training crop."""
    found = []
    for arm in arms:
        classes = len(next(iter(arm.runs[0].evaluations.values())).scores.IoU)
        height, width = arm.cfg.dataset.crop_size
        cost = total(count_cost(arm.cfg.model, height, width, classes))
        found.append(ArmCost(cost.parameters / 1e6, cost.once / 1e9, cost.executed / 1e9))
    return found


def describe_cost(runs: list[Run], arms: list[Arm], costs: list[ArmCost], output: Path) -> str:
    """Describe what each arm costs, beside the paper's GFLOPs and what it gains."""
    first = Row(arms[0], arms[0].protocols[0])
    latency = _read_latency(runs)
    lines, points = [], []
    for arm, cost in zip(arms, costs, strict=True):
        row = Row(arm, arm.protocols[0])
        paper = find_row(arm.cfg.model, "whole") if has_papers_costs(arm.cfg.model) else None
        gflops = paper.gflops if paper else None
        lines.append(
            [
                arm.label,
                *(f"{value:.2f}" for value in cost),
                f"{gflops:.1f}" if gflops else NONE,
                _milliseconds(latency, row),
                _mean_minutes([run.result.train_seconds for run in arm.runs]),
                _mean_minutes([run.result.cpu_seconds for run in arm.runs]),
                interval(compare(row, first)),
            ]
        )
        score = 100 * float(np.mean(row.scores))
        points.append(CostPoint(arm.label, cost.once, cost.executed, score))
    table1 = [(context_name(r.context, r.rates), r.gflops, r.miou) for r in TABLE1 if r.gflops]
    cost_chart(output / "cost.svg", points, table1)
    head = ["arm", "parameters, M", "GFLOPs once", "GFLOPs executed"]
    head += ["paper's GFLOPs (769 x 769)", "an image, ms", "training, min", "CPU, min"]
    head.append(f"mIoU to {arms[0].label} [95 %]")
    notes = _notes(runs, arms, latency)
    return "\n\n".join([markdown_table(head, lines), notes, "![mIoU against GFLOPs](cost.svg)"])


def _notes(runs: list[Run], arms: list[Arm], latency: Latency | None) -> str:
    crop = " x ".join(map(str, arms[0].cfg.dataset.crop_size))
    notes = [
        "GFLOPs are multiply-adds of convolutions and matrix products for one image of "
        f"{crop}: a module counts once, as in the paper, and as executed, where a filter that "
        "feedback uses again counts again. Training is wall time, with validation and the "
        "evaluations at the end, on the machine as it was; CPU is that of all the run's processes."
    ]
    if latency:
        notes.append(
            f"The time of an image is that of one of {plain(latency.image)}, in float32 on "
            f"{latency.threads} threads, the median of {latency.rounds} turns "
            "(`bench/latency.py`)."
        )
    spent = [r.result.cpu_seconds for r in runs if r.result.cpu_seconds is not None]
    if spent:
        notes.append(f"All {len(spent)} runs together took {sum(spent) / 3600:.1f} CPU hours.")
    return " ".join(notes)


def _mean_minutes(seconds: Sequence[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    return f"{np.mean(known) / 60:.1f}" if known else NONE


def time_of_image(runs: list[Run], row: Row) -> str:
    """Return the milliseconds that an image was measured to take, as text."""
    return _milliseconds(_read_latency(runs), row)


def _milliseconds(latency: Latency | None, row: Row) -> str:
    found = latency.arms.get(row.name) if latency else None
    # A label depends on what else lies in the folder; the network's name does not.
    if not found or found.network not in ("", network_name(asdict(row.arm.cfg.model))):
        return NONE
    return f"{1000 * found.s:.0f}"


def _read_latency(runs: list[Run]) -> Latency | None:
    paths = sorted({run.folder.parent / LATENCY for run in runs})
    return next((found for path in paths if (found := read_json(Latency, path))), None)
