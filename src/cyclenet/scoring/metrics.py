"""The confusion matrix and the scores that follow from it, exact under any number of processes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from cyclenet.labels import IGNORE

ByClass = dict[str, float | None]
"""A value of each class by its name; None where the class does not occur."""


@dataclass(kw_only=True)
class Scores:
    """The usual scores, each in [0, 1].

    Attributes:
        mIoU: mean IoU over the classes that occur in masks or predictions.
        pixel_accuracy: share of pixels that are right.
        mean_accuracy: mean share of right pixels over the classes that occur in masks.
        classes_counted: number of classes that `mIoU` is the mean of.
        IoU: of each class.
    """

    mIoU: float
    pixel_accuracy: float
    mean_accuracy: float
    classes_counted: int
    IoU: ByClass = field(default_factory=dict)


class ConfusionMatrix(Metric):
    """Count pixels by (true class, predicted class) in int64; sums over processes.

    Matches `cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling` to the pixel.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.long)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Count (..., H, W) predicted train ids against a mask of the same shape.

        Pixels with mask value 255 are not counted.

        Raises:
            ValueError: the mask has ids that are neither of a class nor 255.
        """
        # Ignored pixels are counted in rows of the table that are left out, which is faster than
        # to look for them.
        classes = self.num_classes
        cells = mask.to(torch.int32, copy=True).mul_(classes).add_(prediction).flatten()
        table = torch.bincount(cells, minlength=(IGNORE + 1) * classes).view(IGNORE + 1, classes)
        if table[classes:IGNORE].any():
            raise ValueError(f"A mask has ids other than 0..{classes - 1} and {IGNORE}.")
        self.counts += table[:classes]

    def compute(self) -> Tensor:
        """Return the matrix (num_classes, num_classes); rows are true classes."""
        return self.counts


def triples(confusion: np.ndarray) -> np.ndarray:
    """Return (C, 3) right, true and predicted pixels of each class; true classes are in rows."""
    return np.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)], 1)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return IoU in [0, 1] from counts (..., 3) of right, true and predicted pixels.

    It is NaN where a class does not occur.
    """
    hit, true, predicted = np.moveaxis(counts, -1, 0)
    union = true + predicted - hit
    return np.divide(hit, union, out=np.full(union.shape, np.nan), where=union > 0)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Return the mean IoU over the classes that occur, from counts (..., num_classes, 3).

    It is 0 where none occurs.
    """
    iou = class_iou(counts)
    present = ~np.isnan(iou)
    return np.where(present, iou, 0).sum(-1) / np.maximum(present.sum(-1), 1)


def scores(counts: Tensor | np.ndarray, classes: list[str]) -> Scores:
    """Derive the usual scores from a confusion matrix with true classes in rows."""
    counts = np.asarray(counts, dtype=np.int64)
    by_kind = triples(counts)
    hit, true, predicted = by_kind.T
    recall = np.divide(hit, true, out=np.zeros(len(hit)), where=true > 0)
    return Scores(
        mIoU=float(mean_iou(by_kind)),
        pixel_accuracy=float(hit.sum() / max(counts.sum(), 1)),
        mean_accuracy=float(recall[true > 0].mean()) if (true > 0).any() else 0.0,
        classes_counted=int(((true + predicted) > 0).sum()),
        IoU=by_class(class_iou(by_kind), classes),
    )


def by_class(values: np.ndarray, classes: list[str]) -> ByClass:
    """Name the values of classes; NaN becomes None."""
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(classes, values, strict=True)
    }
