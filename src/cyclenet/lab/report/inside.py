"""The report's section on what ``visualize`` found inside the networks, over the split."""

from collections.abc import Sequence
from pathlib import Path

from cyclenet.files import read_json
from cyclenet.lab.explain.results import SplitAnalysis
from cyclenet.lab.markdown import markdown_table, spread
from cyclenet.lab.report.arms import Arm
from cyclenet.lab.report.runs import Run

HEAD = [
    "features",
    "runs",
    "within a class",
    "between classes",
    "within, centred",
    "between, centred",
    "nearest class mean, mIoU, %",
    "own prediction, mIoU, %",
]


def describe_inside(arms: Sequence[Arm]) -> str:
    """Sum up what ``visualize`` found with the last checkpoint of each run; "" where nothing is."""
    lines, moved = [], []
    for arm in arms:
        found = [analysis for run in arm.runs if (analysis := _read_analysis(run))]
        if not found:
            continue
        for number, part in enumerate(found[0].parts):
            cells = _part_cells(found, number)
            lines.append([f"{arm.label}, {part}", str(len(found)), *cells])
        offsets = [each.offsets for each in found if each.offsets]
        if offsets:
            ends = [[each.length[end] for each in offsets] for end in (0, -1)]
            modulations = [each.modulation for each in offsets if each.modulation]
            if modulations:
                ends += [[each[end] for each in modulations] for end in (0, -1)]
            moved.append([arm.label, str(len(offsets)), *(spread(v, 3) for v in ends)])
    if not lines:
        return ""
    text = markdown_table(HEAD, lines)
    text += (
        "\n\nSimilarity is the mean cosine (`src/visualize.py` over the split, whole images); "
        "centred: the image's mean feature is subtracted."
    )
    if moved:
        places = ("0-2 px from edges", "beyond 32 px")
        kinds = ("displacement in px", "modulation")
        columns = [f"{kind}, {place}" for kind in kinds for place in places]
        widest = max(len(line) for line in moved)
        lines = [line + ["–"] * (widest - len(line)) for line in moved]
        text += "\n\n" + markdown_table(["ADC", "runs", *columns[: widest - 2]], lines)
    return text


def _part_cells(found: list[SplitAnalysis], number: int) -> list[str]:
    seen = [each.similarity for each in found if each.similarity]
    kinds = [[getattr(each, kind) for each in seen] for kind in ("raw", "centred")]
    alike = [
        [getattr(similarity, key)[number] for similarity in kind]
        for kind in kinds
        for key in ("within", "between")
    ]
    probe = [each.probe.mIoU[number] if each.probe else None for each in seen]
    own = [each.feedback.mIoU[number] for each in found if each.feedback]
    return [*(spread(values, 3) for values in alike), spread(probe, 2, 100), spread(own, 2, 100)]


def _read_analysis(run: Run) -> SplitAnalysis | None:
    """Return the analysis of the evaluation's images, if it has all that is summed up."""
    found = read_json(SplitAnalysis, run.folder / "visualize" / "analysis.json")
    if not found:
        return None
    scores = next(iter(run.evaluations.values())).scores
    same = found.split.split(",")[0] == scores.split and found.images == scores.images
    last = Path(found.checkpoint).name == "last.ckpt"
    if found.finished_at not in (None, run.result.finished_at):
        run.problem = "visualize/analysis.json is of earlier weights and is left out"
        return None
    return found if same and last and found.similarity and found.feedback else None
