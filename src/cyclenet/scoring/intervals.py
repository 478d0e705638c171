"""Differences of mean IoU with 95 % intervals: a bootstrap over images, Student's t over seeds."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from cyclenet.scoring.metrics import mean_iou

Score = Callable[[np.ndarray], np.ndarray]  # From summed counts (..., C, 3) to a score of each.


def near_minus_far(counts: np.ndarray) -> np.ndarray:
    """Return mIoU near edges minus mIoU far from them, from counts (..., 2, C, 3) of the two."""
    both = mean_iou(counts)
    return both[..., 0] - both[..., 1]


class Difference(NamedTuple):
    """A difference of mean IoUs and the bounds of its 95 % interval, in [0, 1]."""

    value: float
    low: float
    high: float

    @property
    def p(self) -> float:
        """The two-sided p value, of a normal distribution with this interval."""
        half = (self.high - self.low) / 2
        return float(2 * stats.norm.sf(1.96 * abs(self.value) / half)) if half else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for their number by Holm's step-down procedure (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def difference(
    a: list[np.ndarray],
    b: list[np.ndarray],
    paired: bool = True,
    draws: int = 2000,
    block: int = 1,
    folds: Sequence[int] = (),
    score: Score = mean_iou,
) -> Difference:
    """Compare two arms by a paired bootstrap over images and Student's t over seeds.

    In each draw both arms are scored on the same images, drawn with replacement, with all their
    pixels in one matrix as mIoU is defined; that gives a percentile interval. Seeds are too few to
    draw from (with 3, an interval of nominal 95 % holds the truth 64 times in 100), so the half
    width of their t interval is added in quadrature to both sides. It is the paired one where both
    arms have the same seeds, else Welch's. If each arm has a single seed, the interval tells how
    far the images may mislead, and nothing about training anew.

    Args:
        a: counts of one arm, for each seed (images, C, 3) right, true and predicted pixels.
        b: counts of the other arm, of the same images.
        paired: the seeds of both arms are the same, in the same order.
        draws: bootstrap samples.
        block: images are drawn in stretches of so many neighbours; the neighbour after the last is
            the first (circular block bootstrap, Politis and Romano 1992). This suits frames of a
            video, whose neighbours say the same.
        folds: numbers of images that follow each other and were each predicted by a training of
            their own. Images are then drawn within folds, and what training again changes is
            pooled over the folds (`fold_half_width`).
        score: from summed counts to a score.

    Returns:
        The score of ``a`` minus that of ``b``, each the mean over its seeds.
    """
    lengths = folds or [len(a[0])]
    weights = np.concatenate(
        [_drawn_images(length, draws, block, n) for n, length in enumerate(lengths)], 1
    )
    drawn = _drawn_scores(a, weights, score) - _drawn_scores(b, weights, score)
    low, high = np.percentile(drawn, [2.5, 97.5])
    score_a, score_b = (
        np.array([score(counts.sum(0, dtype=np.int64)) for counts in arm]) for arm in (a, b)
    )
    value = score_a.mean() - score_b.mean()
    if folds:
        moved_a, moved_b = (fold_deviations(arm, folds, score) for arm in (a, b))
        seeds = fold_half_width(moved_a, moved_b, paired)
    else:
        seeds = seed_half_width(score_a, score_b, paired)
    return Difference(
        float(value),
        float(value - np.hypot(value - low, seeds)),
        float(value + np.hypot(high - value, seeds)),
    )


def _drawn_images(images: int, draws: int, block: int, seed: int = 0) -> np.ndarray:
    """Return how often each draw holds each image, (draws, images)."""
    rng = np.random.default_rng(seed)
    if block == 1:
        even = np.full(images, 1 / images)
        return rng.multinomial(images, even, size=draws).astype(np.float64)
    starts = rng.integers(images, size=(draws, -(-images // block), 1))
    drawn = ((starts + np.arange(block)) % images).reshape(draws, -1)[:, :images]
    return np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)


def fold_deviations(arm: list[np.ndarray], folds: Sequence[int], score: Score) -> np.ndarray:
    """Return how far each training moves an arm's score from its mean, (seeds, folds).

    A training is one of a fold: its counts replace the mean counts of its fold over the seeds.
    """
    edges = np.cumsum(folds)[:-1]
    counts = np.array(
        [[part.sum(0, dtype=np.int64) for part in np.split(one, edges)] for one in arm], float
    )
    mean = counts.mean(0)
    moved: np.ndarray = score(mean.sum(0) - mean + counts)
    return moved - moved.mean(0)


def fold_half_width(a: np.ndarray, b: np.ndarray, paired: bool) -> float:
    """Return the half width of the 95 % t interval over trainings, from `fold_deviations`.

    A fold has as many trainings as there are seeds, and their variances add up. It is 0 for a
    single seed.
    """
    arms = [a - b] if paired and a.shape == b.shape else [a, b]
    if min(len(arm) for arm in arms) < 2:
        return 0.0
    variance = sum((arm**2).sum() / ((len(arm) - 1) * len(arm)) for arm in arms)
    freedom = sum((len(arm) - 1) * arm.shape[1] for arm in arms)
    return float(stats.t.ppf(0.975, freedom) * np.sqrt(variance))


def _drawn_scores(arm: list[np.ndarray], weights: np.ndarray, score: Score) -> np.ndarray:
    """Return an arm's mean score in each draw."""
    draws, images = weights.shape
    # Sums of counts are whole numbers below 2 ** 53, which float64 holds.
    sums = [(weights @ c.reshape(images, -1)).reshape(draws, *c.shape[1:]) for c in arm]
    return np.mean([score(each) for each in sums], 0)


def seed_half_width(a: np.ndarray, b: np.ndarray, paired: bool) -> float:
    """Return the half width of the 95 % t interval of a difference of means over seeds.

    Args:
        a: scores of one arm, one a seed.
        b: scores of the other arm.
        paired: the seeds of both arms are the same, in the same order.
    """
    if len(a) == len(b) == 1:
        return 0.0
    if 1 in (len(a), len(b)):
        # The single training is taken to vary as those of the other arm do.
        x = max(a, b, key=len)
        spread = x.std(ddof=1) * (1 + 1 / len(x)) ** 0.5
        return float(stats.t.ppf(0.975, len(x) - 1) * spread)
    if np.ptp(a) == np.ptp(b) == 0:  # scipy would divide by a spread of 0.
        return 0.0
    if paired and len(a) == len(b):
        test = stats.ttest_rel(a, b)
    else:
        test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return 0.0 if np.isnan(high - low) else float((high - low) / 2)
