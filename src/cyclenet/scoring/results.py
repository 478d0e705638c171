"""What an evaluation finds, as it is written to ``scores.json`` and ``images-<checksum>.npz``."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cyclenet.scoring.metrics import ByClass, Scores, by_class, class_iou, mean_iou

Counts = dict[str, np.ndarray]
"""Pixel counts of a split, as `cyclenet.runs.evaluate.count` returns them."""


@dataclass
class BoundaryScores:
    """Boundary IoU: the reach as a share of the image's diagonal, the mean, and each class."""

    ratio: float
    mIoU: float
    IoU: ByClass


@dataclass
class TrimapScores:
    """IoU within bands around edges: their widths in pixels, the means, and each class."""

    widths: list[int]
    mIoU: list[float]
    IoU: dict[str, list[float | None]]


@dataclass(kw_only=True)
class EvaluationResult(Scores):
    """What ``scores.json`` holds.

    Attributes:
        protocol: description of the protocol.
        protocol_name: its name.
        dataset: name of the data set.
        split: evaluated split.
        images: number of images.
        checkpoint: path of the checkpoint.
        precision: precision of the network.
        confusion: pixels by true class (rows) and predicted class.
        boundary: None where it was not computed.
        trimap: None where it was not computed.
        counts: name of the file beside this one that holds the counts of each image. New counts
            have a new name, so that these scores never stand beside others' counts.
        elsewhere: whether the data lay elsewhere than in the training: they may be others.
        trained_on: number of the images that the network was trained on; None where the training
            split has other images now.
    """

    protocol: str
    protocol_name: str
    dataset: str
    split: str
    images: int
    checkpoint: str
    precision: str = "32-true"
    confusion: list[list[int]] = field(default_factory=list)
    boundary: BoundaryScores | None = None
    trimap: TrimapScores | None = None
    counts: str = "images.npz"  # As version 0.1 called it; today the name has a checksum.
    elsewhere: bool = False
    trained_on: int | None = 0


def boundary_scores(counts: np.ndarray, classes: list[str], ratio: float) -> BoundaryScores:
    """Derive the scores in boundaries from counts (images, C, 3)."""
    total = counts.sum(0, dtype=np.int64)
    return BoundaryScores(ratio, float(mean_iou(total)), by_class(class_iou(total), classes))


def trimap_scores(counts: np.ndarray, classes: list[str], widths: Sequence[int]) -> TrimapScores:
    """Derive the scores in bands of some widths from counts (images, widths, C, 3)."""
    total = counts.sum(0, dtype=np.int64)
    curves = [by_class(row, classes) for row in class_iou(total)]
    by_name = {name: [curve[name] for curve in curves] for name in classes}
    return TrimapScores(list(widths), mean_iou(total).tolist(), by_name)


def score_table(scores: Scores) -> str:
    """Format scores for a terminal."""
    width = max(len(name) for name in scores.IoU)
    lines = [f"{'class':<{width}}   IoU, %"]
    for name, value in scores.IoU.items():
        shown = "  --  " if value is None else f"{100 * value:6.2f}"
        lines.append(f"{name:<{width}}  {shown}")
    mean, counted = 100 * scores.mIoU, scores.classes_counted
    lines.append(f"{'mIoU':<{width}}  {mean:6.2f} %  over {counted} classes")
    lines.append(f"{'pixel acc.':<{width}}  {100 * scores.pixel_accuracy:6.2f} %")
    return "\n".join(lines)


def boundary_line(result: EvaluationResult) -> str:
    """Format the boundary scores for a terminal."""
    if result.trimap is None or result.boundary is None:
        return "Boundary scores were left out."
    points = zip(result.trimap.widths, result.trimap.mIoU, strict=True)
    curve = ", ".join(f"{width} px {100 * value:.2f}" for width, value in points)
    mean, ratio = 100 * result.boundary.mIoU, result.boundary.ratio
    return f"boundary IoU {mean:.2f} % (ratio {ratio:g}) | mIoU near edges, %: {curve}"
