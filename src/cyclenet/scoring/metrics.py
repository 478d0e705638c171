"""The confusion matrix and what follows from it, exact under any number of processes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from cyclenet.data.images import IGNORE


class ConfusionMatrix(Metric):
    """Count pixels by (true class, predicted class) in int64, image by image; sums over processes.

    Matches `cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling` to the pixel.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Count (..., H, W) predicted train ids against a mask of the same shape; `IGNORE` is not counted.

        Raises:
            ValueError: the mask has ids that are neither of a class nor `IGNORE`.
        """
        # Ignored pixels are counted too, in rows of the table that are left out: faster than to look for them.
        cells = mask.to(torch.int32, copy=True).mul_(self.num_classes).add_(prediction).flatten()
        table = torch.bincount(cells, minlength=(IGNORE + 1) * self.num_classes).view(IGNORE + 1, self.num_classes)
        if table[self.num_classes : IGNORE].any():
            raise ValueError(f"A mask has ids other than 0..{self.num_classes - 1} and {IGNORE}.")
        self.counts += table[: self.num_classes]

    def compute(self) -> Tensor:
        """Return the matrix (num_classes, num_classes), rows are true classes."""
        return self.counts


def triples(confusion: np.ndarray) -> np.ndarray:
    """Return (C, 3) right, true and predicted pixels of each class, from a confusion matrix with true classes in rows."""
    return np.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)], 1)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return IoU in [0, 1] from counts (..., 3) of right, true and predicted pixels; NaN where a class does not occur."""
    hit, true, predicted = np.moveaxis(counts, -1, 0)
    union = true + predicted - hit
    return np.divide(hit, union, out=np.full(union.shape, np.nan), where=union > 0)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Return the mean IoU over the classes that occur, from counts (..., num_classes, 3); 0 where none does."""
    iou = class_iou(counts)
    present = ~np.isnan(iou)
    return np.where(present, iou, 0).sum(-1) / np.maximum(present.sum(-1), 1)


def scores(counts: Tensor | np.ndarray, classes: list[str]) -> dict[str, Any]:
    """Derive the usual scores, each in [0, 1], from a confusion matrix with true classes in rows.

    The mean is over the classes that occur in masks or predictions (``classes_counted``); the others have no IoU (None).

    Returns:
        ``mIoU``, ``pixel_accuracy``, ``mean_accuracy``, ``classes_counted`` and ``IoU``, a dict by class name.
    """
    counts = np.asarray(counts, dtype=np.int64)
    by_kind = triples(counts)
    hit, true, predicted = by_kind.T
    recall = np.divide(hit, true, out=np.zeros(len(hit)), where=true > 0)
    return {
        "mIoU": float(mean_iou(by_kind)),
        "pixel_accuracy": float(hit.sum() / max(counts.sum(), 1)),
        "mean_accuracy": float(recall[true > 0].mean()) if (true > 0).any() else 0.0,
        "classes_counted": int(((true + predicted) > 0).sum()),
        "IoU": by_class(class_iou(by_kind), classes),
    }


def by_class(values: np.ndarray, classes: list[str]) -> dict[str, float | None]:
    """Name the values of classes; NaN becomes None."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(classes, values, strict=True)}
