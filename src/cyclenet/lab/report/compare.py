"""Compare arms: by which score, on which counts, with which interval."""

from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from cyclenet.lab.intervals import (
    Difference,
    Score,
    difference,
    near_minus_far,
    near_minus_far_by_class,
)
from cyclenet.lab.report.arms import Row
from cyclenet.lab.report.evaluations import Evaluation
from cyclenet.scoring.boundary import TRIMAP_WIDTHS
from cyclenet.scoring.metrics import mean_iou
from cyclenet.scoring.results import Counts

EDGE, BEYOND = (TRIMAP_WIDTHS.index(width) for width in (4, 15))
"""Numbers of the bands that tables show, and beyond which is far from edges."""


def _near_and_far(counts: Counts) -> np.ndarray:
    far = counts["pixels"] - counts["trimap"][:, BEYOND]
    return np.stack([counts["trimap"][:, EDGE], far], 1)


class Measure(NamedTuple):
    """How arms are scored.

    Attributes:
        needs: name of the counts that an evaluation must have.
        counts: takes them out of all counts, an image a row.
        score: from summed counts to the score.
        by_class: from summed counts to what each class adds to it, where one class may sway it.
    """

    needs: str
    counts: Callable[[Counts], np.ndarray]
    score: Score = mean_iou
    by_class: Score | None = None


MEASURES = {
    "mIoU": Measure("pixels", itemgetter("pixels")),
    "boundary": Measure("boundary", itemgetter("boundary")),
    "edges": Measure("trimap", lambda counts: counts["trimap"][:, EDGE]),
    "contrast": Measure("trimap", _near_and_far, near_minus_far, near_minus_far_by_class),
}
"""What a plan may ask for: mIoU; boundary IoU; mIoU within 4 pixels of an edge; and that minus
mIoU beyond 15 pixels (`near_minus_far`)."""


def comparable(a: list[Evaluation], b: list[Evaluation]) -> bool:
    """Tell whether two arms were evaluated on the same images and masks."""
    first, *others = (evaluation.counts for evaluation in (*a, *b))
    return all(
        np.array_equal(first["names"], each["names"])
        # Pixels of each true class, which other masks of the same names do not share.
        and np.array_equal(first["pixels"][..., 1], each["pixels"][..., 1])
        for each in others
    )


def compare(row: Row, other: Row, by: str = "mIoU", block: int = 1) -> Difference | None:
    """Compare two rows by their counts.

    Args:
        row: the row that is compared.
        other: the row that it is compared with.
        by: one of `MEASURES`.
        block: as in `cyclenet.lab.intervals.difference`.

    Returns:
        None where the rows are the same, not of the same images, or without such counts.
    """
    a, b, measure = row.evaluations, other.evaluations, MEASURES[by]
    if row == other or not comparable(a, b) or any(measure.needs not in e.counts for e in (*a, *b)):
        return None
    paired = row.arm.seeds(row.protocol) == other.arm.seeds(other.protocol)
    return difference(
        [measure.counts(each.counts) for each in a],
        [measure.counts(each.counts) for each in b],
        paired,
        block=block,
        folds=row.arm.folds(row.protocol),
        score=measure.score,
    )


def fold_gains(row: Row, other: Row, by: str) -> list[float]:
    """Return the difference of two rows' scores in each fold, over the mean counts of the seeds.

    Without cross-validation there is none: [].
    """
    lengths, gains, measure = row.arm.folds(row.protocol), [], MEASURES[by]
    if not lengths:
        return []
    means = [
        np.mean([measure.counts(e.counts) for e in each.evaluations], 0, dtype=np.float64)
        for each in (row, other)
    ]
    for ours, theirs in zip(*(np.split(m, np.cumsum(lengths)[:-1]) for m in means), strict=True):
        gains.append(float(measure.score(ours.sum(0)) - measure.score(theirs.sum(0))))
    return gains
