"""The report's section on the systems of Tables 3 and 4: published numbers beside ours."""

from cyclenet.lab.cost.count import training_memory
from cyclenet.lab.markdown import NONE, markdown_table, plain, spread
from cyclenet.lab.published import PUBLISHED, QUOTED, find_published
from cyclenet.lab.report.arms import Row
from cyclenet.lab.report.cost import ArmCost, time_of_image
from cyclenet.lab.report.runs import Run

OWN = {"CycleNet", "DenseASPP on ResNet-101"}
"""Rows that every ablation has: they alone make no comparison of systems."""


def describe_published(rows: list[Row], costs: list[ArmCost], runs: list[Run]) -> str:
    """Describe published numbers beside ours; "" where no arm is a compared system.

    Args:
        rows: the rows of the report.
        costs: the cost of each arm, in the order of the arms.
        runs: all runs, beside whose folders measured times lie.
    """
    first = [row for row in rows if row.protocol == row.arm.protocols[0]]
    found = [(row, find_published(row.arm.cfg.model)) for row in first]
    if not any(one and one.name not in OWN for _, one in found):
        return ""
    lines = []
    for (row, one), cost in zip(found, costs, strict=True):
        cfg = row.arm.cfg
        height, width = cfg.dataset.crop_size
        classes = len(row.evaluations[0].scores.IoU)
        kept = sum(training_memory(cfg.model, height, width, classes).values())
        lines.append(
            [
                row.arm.label,
                *_numbers(one.table3 if one else None),
                *_numbers(one.table4 if one else None),
                *_numbers(*(one.mmseg_cityscapes or ()) if one else ()),
                *_numbers(*(one.mmseg_ade20k or ()) if one else ()),
                spread(row.scores, 2, 100),
                f"{cost.parameters:.2f}",
                f"{cost.executed:.2f}",
                f"{kept / 1e6:.0f}",
                time_of_image(runs, row),
            ]
        )
    head = ["arm", "Table 3", "Table 4", "mmseg, Cityscapes", "mmseg, ADE20K", "here"]
    head += ["parameters, M", "GFLOPs executed", "training, MB an image", "an image, ms"]
    names = {one.name for _, one in found if one}
    how = [f"{one.name}: {one.how}" for one in PUBLISHED if one.how and one.name in names]
    notes = (
        "Published numbers are mIoU in percent with ResNet-101, each by its own schedule and "
        "inference: Table 3 is Cityscapes test at several scales, Table 4 ADE20K val at several "
        "scales; mmsegmentation's are val, at a single scale / several. The column *here* is of "
        "the data and backbone of this report, by one recipe. Memory is what a float32 training "
        "step keeps for one crop, counted. "
    )
    return "\n\n".join([markdown_table(head, lines), notes + QUOTED, plain("; ".join(how))])


def _numbers(*values: float | None) -> list[str]:
    known = [f"{value:.2f}" for value in values if value is not None]
    return [" / ".join(known) or NONE]
