"""The report's section on the systems of Tables 3 and 4: published numbers beside ours."""

from dataclasses import replace
from typing import NamedTuple

from cyclenet.config.model import ModelConfig
from cyclenet.lab.cost.count import training_memory
from cyclenet.lab.markdown import NONE, markdown_table, plain, spread
from cyclenet.lab.paper import find_row
from cyclenet.lab.report.arms import Row
from cyclenet.lab.report.cost import ArmCost, time_of_image
from cyclenet.lab.report.runs import Run


class Published(NamedTuple):
    """mIoU in percent of a system with ResNet-101, as published; None where it was not.

    Attributes:
        context: its value of ``model.context``.
        decoder: its value of ``model.decoder``.
        name: what it is called.
        table3: Cityscapes test, in the paper's Table 3.
        table4: ADE20K val, in its Table 4: at several scales, mirrored.
        mmseg_cityscapes: mmsegmentation's on Cityscapes val (80k steps), single and multi-scale.
        mmseg_ade20k: the same on ADE20K val (160k steps).
        how: how the paper's number was really made, or what is published elsewhere.
        rates: its dilation rates at 1/8, where others make another system.
    """

    context: str
    decoder: str
    name: str
    table3: float | None = None
    table4: float | None = None
    mmseg_cityscapes: tuple[float, float] | None = None
    mmseg_ade20k: tuple[float, float] | None = None
    how: str = ""
    rates: tuple[int, ...] = ()


PUBLISHED = (
    Published("identity", "refinenet", "RefineNet", 73.6, how="40.2 on ADE20K, its authors"),
    Published("pspnet", "none", "PSPNet", 78.4, 43.29, (79.77, 81.06), (44.39, 45.35)),
    Published("identity", "bisenet", "BiSeNet", 78.9, how="val 79.09, multi-scale 80.39"),
    Published(
        "psanet",
        "none",
        "PSANet",
        80.1,
        43.77,
        (79.69, 80.89),
        (43.74, 45.38),
        "trained on train + val; 78.6 on train alone",
    ),
    Published(
        "denseaspp_net",
        "none",
        "DenseASPP",
        80.6,
        None,
        how="DenseNet-161; the released model has 79.5",
    ),
    Published(
        "denseaspp",
        "none",
        "DenseASPP on ResNet-101",
        None,
        43.03,
        how="the paper's own; it does not tell the rates",
        rates=(3, 6, 12, 18, 24),
    ),
    Published(
        "ccnet",
        "none",
        "CCNet",
        81.4,
        45.22,
        (79.45, 80.66),
        (43.71, 45.04),
        "trained on train + val",
    ),
    Published("danet", "none", "DANet", 81.5, None, (80.47, 82.02), (44.17, 45.02)),
    Published("encnet", "none", "EncNet", None, 44.65, (78.55, 79.47), (42.61, 44.01)),
    Published("spnet", "none", "SPNet", None, 45.60, how="82.0 on Cityscapes test, its authors"),
    Published(
        "ocrnet",
        "none",
        "OCRNet",
        how="val 79.63 by its authors, 80.81 in mmsegmentation; ADE20K 45.28",
    ),
    Published(
        "deeplabv3plus", "deeplabv3plus", "DeepLabV3+", None, None, (80.97, 82.03), (45.47, 46.35)
    ),
    Published("pspnet", "upernet", "UPerNet", None, None, (80.10, 81.49), (43.82, 44.85)),
    Published(
        "aligncm", "alignseg", "AlignSeg", how="82.6 on Cityscapes test, 45.95 on ADE20K, authors"
    ),
    Published("pspnet", "gff", "GFF", how="82.3 on Cityscapes test, 45.33 on ADE20K, authors"),
    # Section 4.3: on ADE20K the rates end at 24.
    Published("cycleaspp", "adc", "CycleNet", 82.0, rates=(3, 6, 12, 18, 24, 30)),
    Published("cycleaspp", "adc", "CycleNet", None, 46.14, rates=(3, 6, 12, 18, 24)),
)

QUOTED = "DSSPN has 77.8 in Table 3 and 43.68 in Table 4; it has no public code and no row here."


def find_published(model: ModelConfig) -> Published | None:
    """Return what was published of a model's system; None where it is not one of them.

    A CycleNet is the published one where its context module is a row of Table 1 and its rates are
    the published ones; its widths and its backbone may be others.
    """
    own = find_row(replace(model, decoder="none"), "whole")
    for row in PUBLISHED:
        same = (row.context, row.decoder) == (model.context, model.decoder)
        if same and (not row.rates or (own is not None and own.rates == row.rates)):
            return row
    return None


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
