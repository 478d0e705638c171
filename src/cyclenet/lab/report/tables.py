"""The report's tables of scores: results, boundaries, classes, runs, and the CSV of all."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from cyclenet.files import write_text
from cyclenet.lab.intervals import Difference
from cyclenet.lab.markdown import NONE, Markup, code, interval, markdown_table, plain, spread
from cyclenet.lab.report.arms import NOT_IN_ALL, Arm, Row
from cyclenet.lab.report.charts import Curve, curves_chart, dots_chart, heat_map
from cyclenet.lab.report.compare import EDGE, compare
from cyclenet.lab.report.cost import ArmCost
from cyclenet.lab.report.evaluations import Evaluation
from cyclenet.lab.report.runs import Run
from cyclenet.scoring.metrics import class_iou, mean_iou

MOST_CLASSES = 30  # Classes that the heat map shows: those that differ most.

RESULTS_NOTE = (
    "Mean ± standard deviation over seeds. The paper's numbers are of Cityscapes val and "
    "ResNet-101, whatever the data here. Differences are of mIoU in percentage points, with a "
    "paired bootstrap interval over images. Where there are several seeds, it is widened by "
    "Student's t over them: seed by seed where both arms have the same ones, else after Welch; an "
    "arm with one seed is assumed to vary as the other does. In cross-validation the seeds' "
    "deviations are pooled over the folds. Images are taken as independent "
    "in this table: where they are frames of one video, its intervals are too narrow, and "
    "`block=20` draws stretches of 20 frames for the claims."
)


def describe_results(rows: list[Row], output: Path) -> str:
    """Describe the scores of all rows, with their differences and a dot for each seed."""
    changes = [compare(row, rows[0]) for row in rows]
    lines = []
    for number, row in enumerate(rows):
        above = compare(row, rows[number - 1]) if number > 1 else None
        accuracies = [e.scores.pixel_accuracy for e in row.evaluations]
        lines.append(
            [
                row.name,
                str(len(row.evaluations)),
                spread(row.scores, 2, 100),
                f"{row.papers:.2f}" if row.papers else NONE,
                interval(changes[number]),
                interval(above),
                spread(accuracies, 2, 100),
            ]
        )
    head = ["arm", "seeds", "mIoU, %", "paper", "to the first row [95 %]"]
    head += ["to the row above [95 %]", "pixel accuracy, %"]
    dots = [(row.name, [100 * score for score in row.scores]) for row in rows]
    dots_chart(output / "seeds.svg", dots, "mIoU, %")
    parts = [markdown_table(head, lines), _describe_sides(rows, changes), _describe_noise(rows)]
    parts += [RESULTS_NOTE, "![mIoU of every seed](seeds.svg)"]
    return "\n\n".join(part for part in parts if part)


def _describe_noise(rows: list[Row]) -> str:
    """Say how far another seed moves mIoU, pooled over arms, and how wide that makes intervals.

    A run that was evaluated by several protocols counts once. In cross-validation, where intervals
    pool the folds instead, nothing is said.
    """
    if rows[0].arm.cfg.dataset.fold is not None:
        return ""
    first = [row for row in rows if row.protocol == row.arm.protocols[0]]
    several = [row.scores for row in first if len(row.scores) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return ""
    squares = sum(float(np.var(values)) * len(values) for values in several)
    moved = 100 * float(np.sqrt(squares / freedom))
    half = [float(stats.t.ppf(0.975, n - 1)) * moved * np.sqrt(2 / n) for n in (3, 5)]
    return (
        f"Training again with another seed moves mIoU by {moved:.2f} points (standard deviation, "
        f"pooled over {len(several)} arms, {freedom} degrees of freedom). By that alone, the "
        f"interval of a difference reaches about {half[0]:.1f} points to each side with three "
        f"seeds an arm, {half[1]:.1f} with five."
    )


def _describe_sides(rows: list[Row], changes: Sequence[Difference | None]) -> str:
    """Say which rows with several seeds are above the first and which below."""
    sides: dict[str, list[str]] = {"higher": [], "lower": [], "not decided": []}
    for row, change in zip(rows, changes, strict=True):
        if change is None or min(len(row.evaluations), len(rows[0].evaluations)) < 2:
            continue
        if change.low > 0:
            sides["higher"].append(row.name)
        elif change.high < 0:
            sides["lower"].append(row.name)
        else:
            sides["not decided"].append(row.name)
    found = "; ".join(f"{side}: {', '.join(names)}" for side, names in sides.items() if names)
    return f"Beside {plain(rows[0].name)}, by their intervals, {plain(found)}." if found else ""


def describe_boundaries(rows: list[Row], output: Path) -> str:
    """Describe boundary IoU and scores within a band around edges, with their curves."""
    rows = [row for row in rows if all(e.scores.boundary for e in row.evaluations)]
    if not rows:
        return "There are no boundary scores: the evaluations were made with boundary=false."
    changes = [compare(row, rows[0], "edges") for row in rows]
    lines, curves = [], []
    for row, change in zip(rows, changes, strict=True):
        found = [e.scores for e in row.evaluations]
        boundaries = [s.boundary.mIoU for s in found if s.boundary]
        trimaps = [s.trimap for s in found if s.trimap]
        near = [trimap.mIoU[EDGE] for trimap in trimaps]
        change_of_boundary = interval(compare(row, rows[0], "boundary"))
        scores = [spread(boundaries, 2, 100), change_of_boundary, spread(near, 2, 100)]
        lines.append([row.name, *scores, interval(change)])
        widths = [[float(width) for width in trimap.widths] for trimap in trimaps]
        percents = [[100 * value for value in trimap.mIoU] for trimap in trimaps]
        curves.append(Curve(row.name, widths, percents))
    label = "width of the band on each side of an edge, pixels"
    curves_chart(output / "trimap.svg", curves, label, "mIoU in the band, %")
    width, ratio = _band_and_ratio(rows[0].evaluations[0])
    band = f"mIoU within {width} px of an edge, %"
    to_first = "to the first row [95 %]"
    sides = _describe_sides(rows, changes)
    parts = [
        markdown_table(["arm", "boundary IoU, %", to_first, band, to_first], lines),
        f"Within {width} px of an edge. {sides}" if sides else "",
        f"Boundary IoU is that of Cheng et al., with {100 * ratio:g} % of the image's diagonal.",
        "![mIoU in a band around the true edges, by its width](trimap.svg)",
    ]
    return "\n\n".join(part for part in parts if part)


def _band_and_ratio(evaluation: Evaluation) -> tuple[int, float]:
    trimap, boundary = evaluation.scores.trimap, evaluation.scores.boundary
    assert trimap is not None and boundary is not None
    return trimap.widths[EDGE], boundary.ratio


def describe_classes(rows: list[Row], output: Path) -> str:
    """Describe IoU by class as a heat map."""
    classes = list(rows[0].evaluations[0].scores.IoU)
    values = np.stack([_class_means(row) for row in rows])
    note = "Numbers are IoU in percent; colours are differences to the first row."
    if len(classes) > MOST_CLASSES:
        differs = np.nan_to_num(np.abs(values - values[:1])).max(0)
        order = differs.argsort()[::-1][:MOST_CLASSES]
        values, classes = values[:, order], [classes[i] for i in order]
        note += f" The {MOST_CLASSES} classes that differ most are shown; report.csv has all."
    names = [row.name for row in rows]
    heat_map(output / "classes.svg", values, names, classes, "IoU by class, %")
    return f"{note}\n\n![IoU by class](classes.svg)"


def _class_means(row: Row) -> np.ndarray:
    """Return the mean IoU of each class, percent, over the seeds in which it occurs.

    A class that occurs in no seed, in masks or predictions, has NaN.
    """
    pixels = [e.counts["pixels"].sum(0, dtype=np.int64) for e in row.evaluations]
    iou = np.stack([100 * class_iou(each) for each in pixels])
    means: np.ndarray = np.ma.masked_invalid(iou).mean(0).filled(np.nan)
    return means


def describe_folds(rows: list[Row], runs: list[Run]) -> str:
    """Describe mIoU by fold and by drive, over the mean counts of the seeds; "" without folds."""
    if all(row.arm.cfg.dataset.fold is None for row in rows):
        return ""
    left_out = sum(run.problem == NOT_IN_ALL for run in runs)
    text = "Scores above are of counts that are summed over the folds."
    if left_out:
        text += (
            f" {left_out} finished runs are left out, because not all arms have their fold and "
            "seed."
        )
    first = rows[0]
    folds = [run.config.dataset.fold for run in first.arm.runs]
    fold_of = np.repeat(list(dict.fromkeys(folds)), first.arm.folds(first.protocol))
    names = [str(name).split("_")[0] for name in first.evaluations[0].counts["names"]]
    parts = [text, _table_of_groups(rows, "fold", list(map(str, fold_of)))]
    if len(set(names)) < min(len(names), 20):  # Names begin with the drive, as CamVid's do.
        parts.append(_table_of_groups(rows, "drive", names))
    return "\n\n".join(parts)


def _table_of_groups(rows: list[Row], what: str, groups: list[str]) -> str:
    kinds = list(dict.fromkeys(groups))
    members: dict[str, np.ndarray] = {kind: np.array(groups) == kind for kind in kinds}
    head = ["mIoU, %", *(f"{what} {plain(kind)} ({members[kind].sum()})" for kind in kinds)]
    lines = []
    for row in rows:
        mean: np.ndarray = np.stack([e.counts["pixels"] for e in row.evaluations]).mean(0)
        scores = [100 * float(mean_iou(mean[members[kind]].sum(0))) for kind in kinds]
        lines.append([row.name, *(f"{score:.2f}" for score in scores)])
    return markdown_table(head, lines)


def describe_runs(runs: list[Run]) -> str:
    """List all runs with their states."""
    lines = []
    for run in runs:
        status = run.status
        if not run.finished:
            status = Markup(f"**{status}**" if status != "finished" else "**not compared**")
        seconds = run.result.seconds
        lines.append(
            [
                code(run.folder.name),
                str(run.cfg.seed) if run.cfg else NONE,
                status,
                NONE if seconds is None else f"{seconds / 60:.1f}",
                run.problem or NONE,
            ]
        )
    return markdown_table(["run", "seed", "status", "minutes, last start", "error"], lines)


def write_csv(path: Path, runs: list[Run], arms: list[Arm], costs: list[ArmCost]) -> None:
    """Write a line for each run and protocol, and one for each run that did not finish."""
    known = {
        run.folder: (arm, cost) for arm, cost in zip(arms, costs, strict=True) for run in arm.runs
    }
    lines = []
    for run in runs:
        arm, cost = known.get(run.folder, (None, None))
        common: dict[str, object] = {
            "run": run.folder.name,
            "status": run.status,
            "arm": arm.label if arm else "",
            "seed": run.cfg.seed if run.cfg else None,
            "split": run.cfg.dataset.validation_split if run.cfg else None,
            "parameters_M": cost.parameters if cost else None,
            "GFLOPs_once": cost.once if cost else None,
            "GFLOPs_executed": cost.executed if cost else None,
            "train_seconds": run.result.train_seconds,
        }
        if not run.finished:
            lines.append(common)
            continue
        lines += [common | _csv_scores(each) for each in run.evaluations.values()]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def _csv_scores(evaluation: Evaluation) -> dict[str, object]:
    scores = evaluation.scores
    line: dict[str, object] = {
        "protocol": scores.protocol,
        "images": scores.images,
        "mIoU": scores.mIoU,
        "pixel_accuracy": scores.pixel_accuracy,
    }
    if scores.boundary and scores.trimap:
        line["boundary_IoU"] = scores.boundary.mIoU
        bands = zip(scores.trimap.widths, scores.trimap.mIoU, strict=True)
        line |= {f"mIoU_within_{width}px": value for width, value in bands}
    return line | {f"IoU/{name}": value for name, value in scores.IoU.items()}
