"""Compare runs in one report: Markdown, CSV, and an HTML page that needs no network and no other file."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy.stats import t as student

from cyclenet.lab.cost.count import complexity, total
from cyclenet.lab.paper import TABLE1, describe, find, is_papers, name_of
from cyclenet.lab.report.comparison import Arm, Difference, Run, comparable, difference, group_arms, read_curve
from cyclenet.lab.report.live import progress
from cyclenet.lab.report.page import markdown_table, write_page
from cyclenet.plots.charts import Curve, cost_picture, curves_picture, dots_picture, heat_map
from cyclenet.scoring.metrics import class_iou

Row = tuple[Arm, str]
"""An arm and the protocol it was evaluated by."""


class Claim(NamedTuple):
    """A hypothesis that was written down before the runs: one arm scores higher than another.

    Attributes:
        text: the claim, in words.
        arm: name of the arm, or a part of it that no arm before it has; followed by ``, <protocol>`` where it has several.
        than: of the other.
        score: ``mIoU``, ``boundary`` (IoU) or ``edges`` (mIoU within a narrow band around them).
        seeds: planned for each of the two; with fewer, what follows is said to be provisional.
    """

    text: str
    arm: str
    than: str
    score: str
    seeds: int = 2


def read_plan(path: Path) -> list[Claim]:
    """Read claims from a YAML list of mappings: claim, arm, than, score, and seeds if it likes. Raises `ValueError`."""
    try:
        rows = yaml.safe_load(path.read_text())
        claims = [Claim(str(r["claim"]), str(r["arm"]), str(r["than"]), r["score"], int(r.get("seeds", 2))) for r in rows]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{path} is not a list of claims with the keys claim, arm, than and score: {problem}.") from error
    for claim in claims:
        if claim.score not in SCORES:
            raise ValueError(f"{path}: score must be one of {', '.join(SCORES)}; got {claim.score!r}.")
    return claims


def write_report(
    runs: list[Run],
    output: Path,
    title: str,
    baseline: str = "",
    images: int = 3,
    refresh: float = 0,
    plan: list[Claim] | None = None,
    block: int = 1,
) -> Path:
    """Write ``report.md``, ``report.csv``, the plots, and last ``report.html``; the files there are replaced.

    Args:
        runs: in the order of the table; those that did not finish are listed as such.
        output: folder.
        title: of the report.
        baseline: a part of the label of the arm that the others are compared with; the first arm if empty.
        images: in the qualitative panel, which needs the checkpoints and the data.
        refresh: seconds after which a browser loads the page again; 0: it does not. With it, runs in progress have a section
            of their own, and none needs to have finished.
        plan: claims to be judged, each in a sentence with its interval.
        block: above 1, claims have a second interval, by stretches of so many neighbouring images.

    Returns:
        The HTML page.

    Raises:
        ValueError: no run has finished, the runs are of different data, or there is no such baseline.
    """
    arms = group_arms(runs)
    if not arms and not refresh:
        states = "; ".join(f"{run.folder.name}: {run.status}{', ' + run.problem if run.problem else ''}" for run in runs[:3])
        raise ValueError(f"None of the {len(runs)} runs has finished with an evaluation that can be read ({states}).")
    if arms and baseline:
        first = [arm for arm in arms if baseline in arm.label]
        if not first and not refresh:  # It may be in progress.
            raise ValueError(f"No arm's name holds {baseline!r}; there are: {'; '.join(arm.label for arm in arms)}.")
        arms = first[:1] + [arm for arm in arms if arm not in first[:1]]
    output.mkdir(parents=True, exist_ok=True)
    if not arms:
        return write_page([f"# {title}", *progress(runs, output)], output, title, refresh)
    rows = [(arm, protocol) for arm in arms for protocol in arm.protocols]
    costs = _costs(arms)
    _write_csv(output / "report.csv", runs, arms, costs)
    parts = [
        f"# {title}",
        *(progress(runs, output) if refresh else []),
        _summary(runs, arms),
        "## Results",
        _results(rows, output),
        *(["## What was claimed", _claims(plan, rows, block)] if plan else []),
        "## At boundaries",
        _boundaries(rows, output),
        "## By class",
        _by_class(rows, output),
        *(["## Inside the networks", inside] if (inside := _inside(arms)) else []),
        "## Cost",
        _cost(runs, arms, costs, output),
        "## Training",
        _training(arms, output),
        "## The same images for all arms",
        _panel(arms, output, images),
        "## Runs",
        _runs(runs),
    ]
    return write_page(parts, output, title, refresh)


def _percent(values: list[float]) -> str:
    mean = 100 * float(np.mean(values))
    return f"{mean:.2f} ± {100 * float(np.std(values, ddof=1)):.2f}" if len(values) > 1 else f"{mean:.2f}"


def _signed(change: Difference | None) -> str:
    if change is None:
        return "–"
    return f"{100 * change.value:+.2f} [{100 * change.low:+.2f}, {100 * change.high:+.2f}]"


def _compare(row: Row, other: Row, key: str, band: int | None = None, block: int = 1) -> Difference | None:
    """Compare two rows by the counts ``key``; None where they are not of the same images or have no such counts."""
    a, b = row[0].evaluations(row[1]), other[0].evaluations(other[1])
    if row == other or not comparable(a, b) or any(key not in evaluation.counts for evaluation in (*a, *b)):
        return None
    a_counts, b_counts = ([e.counts[key] if band is None else e.counts[key][:, band] for e in side] for side in (a, b))
    seeds = [row[0].seeds(row[1]) for row in (row, other)]
    return difference(a_counts, b_counts, paired=seeds[0] == seeds[1], block=block)


def _row_name(row: Row) -> str:
    arm, protocol = row
    return f"{arm.label}, {protocol}"


def _papers(row: Row) -> float | None:
    """Return the paper's mIoU, percent, of an arm that differs from its others in nothing."""
    paper = find(row[0].cfg.model, row[1]) if row[0].label == describe(row[0].cfg.model) else None
    return paper.miou if paper else None


def _summary(runs: list[Run], arms: list[Arm]) -> str:
    cfg, scores = arms[0].cfg, next(iter(arms[0].runs[0].evaluations.values())).scores
    seeds = sorted({run.cfg.seed for arm in arms for run in arm.runs if run.cfg})
    missing = sum(not run.finished for run in runs)
    protocols = sorted({e.scores["protocol"] for arm in arms for run in arm.runs for e in run.evaluations.values()})
    lines = [
        f"{cfg.dataset.name}, {scores['split']} split, {scores['images']} images of original size, last checkpoint. "
        f"Backbone {cfg.model.backbone} at 1/{cfg.model.output_stride}. {len(runs) - missing} finished runs"
        + (f", **{missing} not finished** (listed at the end)" if missing else "")
        + f"; seeds {', '.join(map(str, seeds))}.",
        "Protocols: " + "; ".join(protocols) + ".",
    ]
    if len(seeds) == 1:
        lines.append(
            "**One seed:** the intervals are over images only. They say nothing about training again, which moves mIoU by "
            "0.5 to 0.7 in works like this one, as much as most differences in the paper."
        )
    return "\n\n".join(lines)


def _results(rows: list[Row], output: Path) -> str:
    lines = []
    dots = []
    changes = [_compare(row, rows[0], "pixels") for row in rows]
    for number, row in enumerate(rows):
        arm, protocol = row
        found = arm.evaluations(protocol)
        paper = _papers(row)
        dots.append((_row_name(row), [100 * e.scores["mIoU"] for e in found]))
        lines.append(
            [
                _row_name(row),
                str(len(found)),
                _percent([e.scores["mIoU"] for e in found]),
                f"{paper:.2f}" if paper else "–",
                _signed(changes[number]),
                _signed(_compare(row, rows[number - 1], "pixels") if number > 1 else None),
                _percent([e.scores["pixel_accuracy"] for e in found]),
            ]
        )
    head = ["arm", "seeds", "mIoU, %", "paper", "to the first row [95 %]", "to the row above [95 %]", "pixel accuracy, %"]
    note = (
        "Mean ± standard deviation over seeds. The paper's numbers are of Cityscapes val and ResNet-101, whatever the data "
        "here. Differences are of mIoU in percentage points, with a paired bootstrap interval over images (where there are "
        "several seeds, widened by Student's t over them: seed by seed where both arms have the same ones, else after Welch, "
        "and a single seed is taken to vary as those of the other arm do). Images are taken as independent: where they are "
        "frames of one video, intervals are too narrow."
    )
    dots_picture(output / "seeds.svg", dots, "mIoU, %")
    parts = [markdown_table(head, lines), _sides(rows, changes), _noise(rows), note, "![mIoU of every seed](seeds.svg)"]
    return "\n\n".join(part for part in parts if part)


def _noise(rows: list[Row]) -> str:
    """Say what another seed does, pooled over arms (a run evaluated twice counts once), and how wide that makes intervals."""
    scores = [[e.scores["mIoU"] for e in arm.evaluations(protocol)] for arm, protocol in rows if protocol == arm.protocols[0]]
    several = [values for values in scores if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return ""
    spread = 100 * float(np.sqrt(sum(np.var(values) * len(values) for values in several) / freedom))
    half = [float(student.ppf(0.975, n - 1)) * spread * np.sqrt(2 / n) for n in (3, 5)]
    return (
        f"Training again with another seed moves mIoU by {spread:.2f} points (standard deviation, pooled over {len(several)} "
        f"arms, {freedom} degrees of freedom). By that alone, the interval of a difference reaches about {half[0]:.1f} points "
        f"to each side with three seeds an arm, {half[1]:.1f} with five."
    )


def _sides(rows: list[Row], changes: list[Difference | None]) -> str:
    """Sum up in a sentence which rows with several seeds are above the first and which below."""
    sides: dict[str, list[str]] = {"higher": [], "lower": [], "not decided": []}
    for row, change in zip(rows, changes, strict=True):
        if change is not None and min(len(each[0].evaluations(each[1])) for each in (row, rows[0])) > 1:
            sides["higher" if change.low > 0 else "lower" if change.high < 0 else "not decided"].append(_row_name(row))
    found = "; ".join(f"{side}: {', '.join(names)}" for side, names in sides.items() if names)
    return f"Beside {_row_name(rows[0])}, by their intervals, {found}." if found else ""


BAND = 1  # Of TRIMAP_WIDTHS, for the table; the plot has all.
SCORES: dict[str, tuple[str, int | None]] = {
    "mIoU": ("pixels", None),
    "boundary": ("boundary", None),
    "edges": ("trimap", BAND),
}


def _claims(plan: list[Claim], rows: list[Row], block: int) -> str:
    """Judge each claim: it held, the opposite was seen, or the runs cannot tell."""
    lines = []
    for claim in plan:
        row, other = _find_row(claim.arm, rows), _find_row(claim.than, rows)
        counts = SCORES[claim.score]
        change = _compare(row, other, *counts) if row and other else None
        if row is None or other is None or change is None:
            lines.append([claim.text, claim.score, "–", "–", "–", *["–"] * (block > 1), "**not tested**"])
            continue
        seeds = [len(arm.evaluations(protocol)) for arm, protocol in (row, other)]
        # The interval of a single seed says nothing about training again.
        follows = _verdict(change) if min(seeds) > 1 else "**not decided**: one seed"
        wider = []
        if block > 1 and (second := _compare(row, other, *counts, block=block)):
            wider = [_signed(second)]
            if min(seeds) > 1 and change.low * change.high > 0 and second.low * second.high <= 0:
                follows += f"; by blocks of {block} images it would not be decided"
        papers = (_papers(row), _papers(other)) if claim.score == "mIoU" else (None, None)
        gap = f"{papers[0] - papers[1]:+.2f}" if papers[0] and papers[1] else "–"
        if 1 < min(seeds) < claim.seeds:
            follows = f"so far ({claim.seeds} seeds are planned): {follows}"
        lines.append([claim.text, claim.score, " / ".join(map(str, seeds)), gap, _signed(change), *wider, follows])
    note = (
        "A claim held where its whole 95 % interval lies above 0, the opposite was seen where it lies below; else the runs do "
        "not decide, nor does a single seed. Not tested: an arm has no finished run. Differences are percentage points; the "
        f"paper's are of Cityscapes val, one run each. {len(plan)} claims are judged, without a correction for their number."
    )
    columns = ["claim", "score", "seeds", "paper's gap", "difference [95 %]"]
    if block > 1:
        columns.append(f"in blocks of {block}")
        images = rows[0][0].evaluations(rows[0][1])[0].scores["images"]
        note += (
            f" In blocks: the same with stretches of {block} neighbouring images drawn instead of single ones, for neighbours "
            f"may be frames of one video; what follows is said of the first interval. {images} images hold about "
            f"{images // block} such stretches; the fewer, the more this interval is too narrow as well."
        )
    return markdown_table([*columns, "what follows"], lines) + "\n\n" + note


def _verdict(change: Difference) -> str:
    """Say in a sentence what follows from an interval, also what it rules out."""
    value, low, high = (100 * abs(number) for number in change)
    if change.low > 0:
        return f"**held**: higher by {value:.2f}, by no less than {low:.2f}"
    if change.high < 0:
        return f"**the opposite was seen**: lower by {value:.2f}, by no less than {high:.2f}"
    return f"**not decided**: a gain above {high:.2f} and a loss above {low:.2f} are ruled out"


def _find_row(name: str, rows: list[Row]) -> Row | None:
    exact = [row for row in rows if name in (row[0].label, _row_name(row))]
    return next(iter([*exact, *(row for row in rows if name in _row_name(row))]), None)


def _boundaries(rows: list[Row], output: Path) -> str:
    rows = [row for row in rows if all("boundary" in e.scores for e in row[0].evaluations(row[1]))]
    if not rows:
        return "No boundary scores: the evaluations were made with boundary=false."
    first = rows[0][0].evaluations(rows[0][1])[0].scores
    width = first["trimap"]["widths"][BAND]
    lines, curves = [], []
    changes = [_compare(row, rows[0], "trimap", BAND) for row in rows]
    for row, change in zip(rows, changes, strict=True):
        found = row[0].evaluations(row[1])
        lines.append(
            [
                _row_name(row),
                _percent([e.scores["boundary"]["mIoU"] for e in found]),
                _signed(_compare(row, rows[0], "boundary")),
                _percent([e.scores["trimap"]["mIoU"][BAND] for e in found]),
                _signed(change),
            ]
        )
        widths = [list(map(float, e.scores["trimap"]["widths"])) for e in found]
        curves.append(Curve(_row_name(row), widths, [[100 * v for v in e.scores["trimap"]["mIoU"]] for e in found]))
    curves_picture(output / "trimap.svg", curves, "width of the band on each side of an edge, pixels", "mIoU in the band, %")
    band = f"mIoU within {width} px of an edge, %"
    head = ["arm", "boundary IoU, %", "to the first row [95 %]", band, "to the first row [95 %]"]
    note = f"Boundary IoU after Cheng et al., with {100 * first['boundary']['ratio']:g} % of the image's diagonal."
    sides = _sides(rows, changes)
    sides = f"Within {width} px of an edge. {sides}" if sides else ""
    picture = "![mIoU in a band around the true edges, by its width](trimap.svg)"
    return "\n\n".join(part for part in (markdown_table(head, lines), sides, note, picture) if part)


def _by_class(rows: list[Row], output: Path) -> str:
    classes = list(rows[0][0].evaluations(rows[0][1])[0].scores["IoU"])
    values = np.stack([_class_means(arm, protocol) for arm, protocol in rows])
    note = "Numbers are IoU in percent; colours are differences to the first row."
    if len(classes) > 30:
        # The classes that differ most.
        order = np.nan_to_num(np.abs(values - values[:1])).max(0).argsort()[::-1][:30]
        values, classes = values[:, order], [classes[i] for i in order]
        note += " Of all classes, the 30 that differ most are shown; report.csv has the others."
    heat_map(output / "classes.svg", values, [_row_name(row) for row in rows], classes, "IoU by class, %")
    return f"{note}\n\n![IoU by class](classes.svg)"


def _class_means(arm: Arm, protocol: str) -> np.ndarray:
    # Over the seeds in which the class occurs, in masks or predictions; NaN where it does in none.
    iou = np.stack([100 * class_iou(e.counts["pixels"].sum(0, dtype=np.int64)) for e in arm.evaluations(protocol)])
    there = ~np.isnan(iou)
    return np.divide(np.where(there, iou, 0).sum(0), there.sum(0), out=np.full(iou.shape[1], np.nan), where=there.any(0))


def _inside(arms: list[Arm]) -> str:
    """Sum up what ``src/visualize.py`` found over the split with the last checkpoint, of the runs that have it."""
    lines, moved = [], []
    for arm in arms:
        found = [analysis for run in arm.runs if (analysis := _read_analysis(run))]
        for number, part in enumerate(found[0]["parts"]) if found else ():
            seen = [f["similarity"] for f in found]
            alike = [[s[kind][key][number] for s in seen] for kind in ("raw", "centred") for key in ("within", "between")]
            probe = [s["probe"]["mIoU"][number] if s["probe"] else None for s in seen]
            cells = [*(_spread(values, 3) for values in alike), _spread(probe, 2, 100)]
            cells.append(_percent([f["feedback"]["mIoU"][number] for f in found]))
            lines.append([f"{arm.label}, {part}", str(len(found)), *cells])
        offsets = [f["offsets"] for f in found if "offsets" in f]
        if offsets:
            kinds = [key for key in ("length", "modulation") if key in offsets[0]]
            ends = [[each[key][end] for each in offsets] for key in kinds for end in (0, -1)]
            moved.append([arm.label, str(len(offsets)), *(_spread(values, 3) for values in ends)])
    if not lines:
        return ""
    head = ["features", "seeds", "within a class", "between classes", "within, centred", "between, centred"]
    text = markdown_table([*head, "nearest class mean, mIoU, %", "own prediction, mIoU, %"], lines)
    text += "\n\nMean cosine similarity (`src/visualize.py` over the split, whole images)"
    text += "; centred: the image's mean feature is subtracted."
    if moved:
        places = ("0-2 px from edges", "beyond 32 px")
        columns = [f"{what}, {where}" for what in ("displacement in px", "modulation") for where in places]
        text += "\n\n" + markdown_table(["ADC", "seeds", *columns[: len(moved[0]) - 2]], moved)
    return text


def _read_analysis(run: Run) -> dict[str, Any] | None:
    """Return what was found over the images of the evaluation, if all topics that are summed up are there."""
    path = run.folder / "visualize" / "analysis.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    scores = next(iter(run.evaluations.values())).scores
    same = found["split"].split(",")[0] == scores["split"] and found["images"] == scores["images"]
    whole = Path(found["checkpoint"]).name == "last.ckpt" and {"similarity", "feedback"} <= found.keys()
    return found if same and whole else None


def _spread(values: list[float | None], digits: int, scale: float = 1) -> str:
    known = [scale * value for value in values if value is not None]
    if len(known) < len(values):  # Of too few images, or no pixel of the kind.
        return "–"
    mean = f"{np.mean(known):.{digits}f}"
    return f"{mean} ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else mean


def _costs(arms: list[Arm]) -> list[tuple[float, float, float]]:
    """Return (parameters in millions, GFLOPs once, GFLOPs executed) of each arm, for a training crop."""
    found = []
    for arm in arms:
        classes = len(next(iter(arm.runs[0].evaluations.values())).scores["IoU"])
        height, width = arm.cfg.dataset.crop_size
        cost = total(complexity(arm.cfg.model, height, width, classes))
        found.append((cost.parameters / 1e6, cost.once / 1e9, cost.executed / 1e9))
    return found


def _cost(runs: list[Run], arms: list[Arm], costs: list[tuple[float, float, float]], output: Path) -> str:
    lines, points = [], []
    first: Row = (arms[0], arms[0].protocols[0])
    latency = _read_latency(runs)
    for arm, (parameters, once, executed) in zip(arms, costs, strict=True):
        paper = find(arm.cfg.model, "whole") if is_papers(arm.cfg.model) else None
        seconds, spent = (
            [run.result[key] for run in arm.runs if key in run.result] for key in ("train_seconds", "cpu_seconds")
        )
        row = (arm, arm.protocols[0])
        image = latency.get("arms", {}).get(_row_name(row), {}).get("s")
        lines.append(
            [
                arm.label,
                f"{parameters:.2f}",
                f"{once:.2f}",
                f"{executed:.2f}",
                f"{paper.gflops:.1f}" if paper and paper.gflops else "–",
                f"{1000 * image:.0f}" if image else "–",
                f"{np.mean(seconds) / 60:.1f}" if seconds else "–",
                f"{np.mean(spent) / 60:.1f}" if spent else "–",
                _signed(_compare(row, first, "pixels")),
            ]
        )
        score = 100 * float(np.mean([e.scores["mIoU"] for e in arm.evaluations(arm.protocols[0])]))
        points.append((arm.label, once, executed, score))
    table1 = [(name_of(r.context, list(r.rates)), r.gflops, r.miou) for r in TABLE1 if r.gflops]
    cost_picture(output / "cost.svg", points, table1)
    crop = " x ".join(map(str, arms[0].cfg.dataset.crop_size))
    head = ["arm", "parameters, M", "GFLOPs once", "GFLOPs executed", "paper's GFLOPs (769 x 769)"]
    head += ["an image, ms", "training, min", "CPU, min", f"mIoU to {arms[0].label} [95 %]"]
    notes = [
        f"Multiply-adds of convolutions for one image of {crop}: with each module counted once, as the paper does, and as "
        "executed, where a filter that feedback uses again counts again. Training is wall time, with validation and the "
        "evaluations at the end, on the machine as it was; CPU, that of all the run's processes."
    ]
    if any(line[5] != "–" for line in lines):
        notes.append(
            f"An image: one of {latency['image']}, in float32 on {latency['threads']} threads, the median of "
            f"{latency['rounds']} turns (`bench/latency.py`)."
        )
    everything = [run.result["cpu_seconds"] for run in runs if "cpu_seconds" in run.result]
    if everything:
        notes.append(f"All runs together took {sum(everything) / 3600:.1f} CPU hours ({len(everything)} runs).")
    return "\n\n".join([markdown_table(head, lines), " ".join(notes), "![mIoU against GFLOPs](cost.svg)"])


LATENCY = "latency.json"
"""What ``bench/latency.py`` measured, in the folder that holds the run folders."""


def _read_latency(runs: list[Run]) -> dict[str, Any]:
    paths = {run.folder.parent / LATENCY for run in runs}
    return next((json.loads(path.read_text()) for path in sorted(paths) if path.is_file()), {})


def _training(arms: list[Arm], output: Path) -> str:
    parts = []
    for column, name, label in (("val/mIoU", "learning", "val mIoU, %"), ("train/loss", "loss", "training loss")):
        curves = []
        for arm in arms:
            found = [read_curve(run.folder, column) for run in arm.runs]
            scale = 100 if column == "val/mIoU" else 1
            if all(x for x, _ in found):
                curves.append(Curve(arm.label, [x for x, _ in found], [[scale * v for v in y] for _, y in found]))
        if curves:
            curves_picture(output / f"{name}.svg", curves, "optimizer step", label)
            parts.append(f"![{label} by step]({name}.svg)")
    return "\n\n".join(parts) or "No metrics.csv was found."


def _panel(arms: list[Arm], output: Path, count: int) -> str:
    """Predict images on which the arms' pixel accuracies differ most, with each arm's first seed."""
    import torch

    from cyclenet.data.base import build_source
    from cyclenet.plots.pictures import disagreement, panel, save_png
    from cyclenet.training.checkpoint import load_checkpoint, load_task

    runs = [arm.runs[0] for arm in arms]
    evaluations = [next(iter(run.evaluations.values())) for run in runs]
    if count < 1 or not comparable(evaluations[:1], evaluations[1:]):
        return "Left out." if count < 1 else "Left out: the arms were evaluated on different images."
    cfg = arms[0].cfg
    try:
        tasks = [load_task(load_checkpoint(run.folder / "checkpoints" / "last.ckpt")) for run in runs]
        source = build_source(cfg.dataset, cfg.dataset.val_split)
        pixels = np.stack([e.counts["pixels"].sum(1) for e in evaluations])  # (arms, images, 3)
        accuracy = pixels[..., 0] / np.maximum(pixels[..., 1], 1)
        # One of each stretch of the split, for neighbours may be frames of one video.
        stretches = np.array_split(np.arange(accuracy.shape[1]), min(count, accuracy.shape[1]))
        chosen = [int(part[np.ptp(accuracy, 0)[part].argmax()]) for part in stretches]
        rows, boxes = [], []
        for index in chosen:
            image, truth = source.image(index), source.mask(index)
            tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
            predictions = [task.predict(tensor)[0].numpy() for task in tasks]
            rows.append((image, truth, predictions))
            boxes.append(disagreement(predictions, truth))
    except (ValueError, OSError) as error:
        return f"Left out: {error}"
    titles = [arm.label for arm in arms]
    save_png(output / "panel.png", panel(rows, titles, source.classes, source.palette, 360, boxes))
    names = ", ".join(source.name(index) for index in chosen)
    note = (
        f"Of each part of the split, the image on which the arms' pixel accuracies differ most ({names}), so not typical ones; "
        "each arm's first seed. Red squares: where most pixels are right in some arms and wrong in others."
    )
    return f"{note}\n\n![image, truth, predictions and their errors](panel.png)"


def _runs(runs: list[Run]) -> str:
    lines = []
    for run in runs:
        seed = str(run.cfg.seed) if run.cfg else "–"
        seconds = run.result.get("seconds")
        error = run.problem.replace("|", "\\|").replace("\n", " ")
        minutes = f"{seconds / 60:.1f}" if seconds is not None else "–"
        status = run.status if run.finished else f"**{run.status}**" if run.status != "finished" else "**not compared**"
        lines.append([f"`{run.folder.name}`", seed, status, minutes, error or "–"])
    return markdown_table(["run", "seed", "status", "minutes, last start", "error"], lines)


def _write_csv(path: Path, runs: list[Run], arms: list[Arm], costs: list[tuple[float, float, float]]) -> None:
    """Write a line for each run and protocol, and one for each run that did not finish."""
    label = {str(run.folder): (arm.label, cost) for arm, cost in zip(arms, costs, strict=True) for run in arm.runs}
    with path.open("w", newline="") as file:
        writer = None
        lines = []
        for run in runs:
            name, (parameters, once, executed) = label.get(str(run.folder), ("", (None, None, None)))
            common = {
                "run": run.folder.name,
                "status": run.status,
                "arm": name,
                "seed": run.cfg.seed if run.cfg else None,
                "parameters_M": parameters,
                "GFLOPs_once": once,
                "GFLOPs_executed": executed,
                "train_seconds": run.result.get("train_seconds"),
            }
            if not run.finished:
                lines.append(common)
            for evaluation in run.evaluations.values() if run.finished else ():
                s = evaluation.scores
                line = common | {"protocol": s["protocol"], "images": s["images"], "mIoU": s["mIoU"]}
                line["pixel_accuracy"] = s["pixel_accuracy"]
                if "boundary" in s:
                    line["boundary_IoU"] = s["boundary"]["mIoU"]
                    line |= {f"mIoU_within_{w}px": v for w, v in zip(s["trimap"]["widths"], s["trimap"]["mIoU"], strict=True)}
                lines.append(line | {f"IoU/{name}": value for name, value in s["IoU"].items()})
        columns = list(dict.fromkeys(key for line in lines for key in line))
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
