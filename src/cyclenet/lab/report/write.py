"""Compare runs in one report: Markdown, CSV, and an HTML page that needs no other file."""

from pathlib import Path

from cyclenet.config.reach import untrained_taps
from cyclenet.lab.markdown import plain
from cyclenet.lab.report.arms import Arm, Row, group_arms, pick_by_name, training_differences
from cyclenet.lab.report.charts import Curve, curves_chart
from cyclenet.lab.report.claims import Claim, describe_claims
from cyclenet.lab.report.compare import comparable
from cyclenet.lab.report.cost import cost_of_arms, describe_cost
from cyclenet.lab.report.inside import describe_inside
from cyclenet.lab.report.live import describe_progress
from cyclenet.lab.report.page import check_replaceable, write_page
from cyclenet.lab.report.panel import describe_panel
from cyclenet.lab.report.published import describe_published
from cyclenet.lab.report.runs import Run, read_curve
from cyclenet.lab.report.tables import (
    describe_boundaries,
    describe_classes,
    describe_folds,
    describe_results,
    describe_runs,
    write_csv,
)


def write_report(
    runs: list[Run],
    output: Path,
    title: str,
    baseline: str | None = None,
    images: int = 3,
    refresh: float = 0,
    plan: list[Claim] | None = None,
    block: int = 1,
) -> Path:
    """Write ``report.csv``, the plots, ``report.html`` and ``report.md``.

    Args:
        runs: runs in the order of the table; those that did not finish are listed as such.
        output: folder; an earlier report there is replaced.
        title: title of the report.
        baseline: a part of the label of the arm that the others are compared with; None takes the
            first arm.
        images: images in the qualitative panel, which needs the checkpoints and the data.
        refresh: seconds after which a browser loads the page again; 0 for never. With it, runs in
            progress have a section of their own, and none needs to have finished.
        plan: claims to be judged, each in a sentence with its interval.
        block: above 1, claims have a second interval, by stretches of so many neighbouring images.

    Returns:
        The HTML page.

    Raises:
        ValueError: no run has finished, the runs are of different data, there is no such
            baseline, or ``output`` holds a report that may be the user's own.
    """
    check_replaceable(output)
    arms = _arms_with_baseline_first(runs, baseline, in_progress=bool(refresh))
    output.mkdir(parents=True, exist_ok=True)
    progress = describe_progress(runs, output) if refresh else []
    if not arms:
        return write_page([f"# {plain(title)}", *progress], output, title, refresh)
    rows = [Row(arm, protocol) for arm in arms for protocol in arm.protocols]
    costs = cost_of_arms(arms)
    write_csv(output / "report.csv", runs, arms, costs)
    sections = {
        "Results": describe_results(rows, output),
        "What was claimed": describe_claims(plan, rows, block) if plan else "",
        "By fold": describe_folds(rows, runs),
        "At boundaries": describe_boundaries(rows, output),
        "By class": describe_classes(rows, output),
        "Inside the networks": describe_inside(arms),
        "Cost": describe_cost(runs, arms, costs, output),
        "Beside published numbers": describe_published(rows, costs, runs),
        "Training": _describe_training(arms, output),
        "The same images for all arms": describe_panel(arms, output, images),
        "Runs": describe_runs(runs),
    }
    parts = [f"# {plain(title)}", *progress, _describe_data(runs, arms)]
    for heading, text in sections.items():
        parts += [f"## {heading}", text] if text else []
    return write_page(parts, output, title, refresh)


def _arms_with_baseline_first(
    runs: list[Run], baseline: str | None, in_progress: bool
) -> list[Arm]:
    arms = group_arms(runs)
    if not arms and not in_progress:
        if any(run.finished for run in runs):
            raise ValueError(
                "There is no fold that all arms have finished, so nothing can be compared."
            )
        first = [f"{run.folder.name}: {run.status}, {run.problem}" for run in runs[:3]]
        states = "; ".join(state.rstrip(", ") for state in first)
        raise ValueError(
            f"None of the {len(runs)} runs has finished with an evaluation that can be read "
            f"({states})."
        )
    if not arms or not baseline:
        return arms
    found = pick_by_name(baseline, arms, [arm.label for arm in arms])
    if found is None and not in_progress:  # It may be among those in progress.
        labels = "; ".join(arm.label for arm in arms)
        raise ValueError(f"No arm's name holds {baseline!r}; there are: {labels}.")
    return [arm for arm in arms if arm is found] + [arm for arm in arms if arm is not found]


def _describe_data(runs: list[Run], arms: list[Arm]) -> str:
    """Say what was compared: data, backbone, runs, seeds and protocols."""
    cfg, images = arms[0].cfg, dict[str, int]()
    for run in arms[0].runs:
        scores = next(iter(run.evaluations.values())).scores
        images[scores.split] = scores.images
    seeds = sorted({run.config.seed for arm in arms for run in arm.runs})
    missing = sum(not run.finished for run in runs)
    finished = f"{len(runs)} runs have finished"
    if missing:
        done = len(runs) - missing
        finished = (
            f"**{done} of {len(runs)} runs have finished** (the others are listed at the end)"
        )
    protocols = sorted(
        {e.scores.protocol for arm in arms for run in arm.runs for e in run.evaluations.values()}
    )
    split = plain(" + ".join(sorted(images)))
    data = f"{cfg.dataset.name}, {split} split, {sum(images.values())} images of original size"
    differ = training_differences(arms)
    backbone = f"Backbone {plain(cfg.model.backbone)} at 1/{cfg.model.output_stride}. "
    if differ.keys() & {"model.backbone", "model.output_stride"}:
        backbone = ""
    lines = [
        f"{data}, last checkpoint. {backbone}{finished}; seeds {', '.join(map(str, seeds))}.",
        "Protocols: " + plain("; ".join(protocols)) + ".",
    ]
    if differ:
        told = "; ".join(f"{key} ({', '.join(values)})" for key, values in differ.items())
        lines.append(f"Beside their modules, arms differ in {plain(told)}.")
    return "\n\n".join([*lines, *_warnings(runs, arms)])


def _warnings(runs: list[Run], arms: list[Arm]) -> list[str]:
    """Say what makes the comparison doubtful, a sentence or two each."""
    warnings = {
        run.result.warning or untrained_taps(run.cfg) for run in runs if run.finished and run.cfg
    }
    lines = [f"**Warning:** {plain(warning)}" for warning in sorted(warnings) if warning]
    known = {
        plain(arm.label)
        for arm in arms
        for protocol in arm.protocols
        if any(each.scores.trained_on != 0 for each in arm.evaluations(protocol))
    }
    if known:
        lines.append(
            f"**Warning:** {', '.join(sorted(known))}: the network was trained on some of the "
            "images that it is scored on, or the training images have changed since."
        )
    first = arms[0]
    unlike = [
        plain(arm.label)
        for arm in arms[1:]
        for protocol in arm.protocols
        if protocol in first.protocols
        and not comparable(arm.evaluations(protocol), first.evaluations(protocol))
    ]
    if unlike:
        lines.append(
            f"**Warning:** {', '.join(dict.fromkeys(unlike))} and {plain(first.label)} were "
            "evaluated on other images or masks, so they are not compared."
        )
    counted = [
        {e.scores.classes_counted for e in arm.evaluations(arm.protocols[0])} for arm in arms
    ]
    if len(numbers := sorted(set.union(*counted))) > 1:
        lines.append(
            f"**Warning:** mIoU is a mean over {' or '.join(map(str, numbers))} classes: one that "
            "no mask has counts as IoU 0 where it is predicted, and not at all elsewhere."
        )
    precisions = {run.result.precision for arm in arms for run in arm.runs}
    precisions -= {None, "None"}  # Version 0.1 wrote the word where it was not told.
    if len(precisions) > 1:
        named = " and ".join(sorted(map(str, precisions)))
        lines.append(f"**Warning:** runs were trained in different precisions: {named}.")
    if min(len(arm.seeds(arm.protocols[0])) for arm in arms) == 1:
        lines.append(
            "**One seed:** an interval between arms with one seed is over images only. It says "
            "nothing about training again, which moves mIoU by 0.5 to 0.7 in works like this one, "
            "as much as most differences in the paper."
        )
    return lines


def _describe_training(arms: list[Arm], output: Path) -> str:
    parts = []
    for column, name, label, scale in (
        ("val/mIoU", "learning", "val mIoU, %", 100),
        ("train/loss", "loss", "training loss", 1),
    ):
        curves = []
        for arm in arms:
            found = [read_curve(run.folder, column) for run in arm.runs]
            if all(steps for steps, _ in found):
                values = [[scale * value for value in values] for _, values in found]
                curves.append(Curve(arm.label, [steps for steps, _ in found], values))
        if curves:
            curves_chart(output / f"{name}.svg", curves, "optimizer step", label)
            parts.append(f"![{label} by step]({name}.svg)")
    return "\n\n".join(parts) or "No metrics.csv was found."
