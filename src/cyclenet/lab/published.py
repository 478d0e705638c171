"""What was published of the systems in the paper's Tables 3 and 4, and by which protocol."""

from typing import NamedTuple

from cyclenet.config.model import ModelConfig
from cyclenet.lab.paper import TABLE1, TABLE2, find_row


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
    """

    context: str
    decoder: str
    name: str
    table3: float | None = None
    table4: float | None = None
    mmseg_cityscapes: tuple[float, float] | None = None
    mmseg_ade20k: tuple[float, float] | None = None
    how: str = ""


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
    Published("denseaspp", "none", "DenseASPP on ResNet-101", None, 43.03, how="the paper's own"),
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
    Published("cycleaspp", "adc", "CycleNet", 82.0, 46.14),
)

SYSTEMS = [row for row in (*TABLE1, *TABLE2) if len(row.rates) == 6]
"""Rows of the paper's own networks whose numbers its Tables 3 and 4 have."""

QUOTED = "DSSPN has 77.8 in Table 3 and 43.68 in Table 4; it has no public code and no row here."


def find_published(model: ModelConfig) -> Published | None:
    """Return what was published of a model's system; None where it is not one of them.

    A CycleNet is the published one where it is what the paper has in Table 2, with its six rates;
    its widths and its backbone may be others.
    """
    if model.context in ("cycleaspp", "denseaspp") and find_row(model, "whole") not in SYSTEMS:
        return None
    for row in PUBLISHED:
        if (row.context, row.decoder) == (model.context, model.decoder):
            return row
    return None
