"""Differences of mean IoU with 95 % intervals: a bootstrap over images, Student's t over seeds."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from cyclenet.scoring.metrics import mean_iou


class Difference(NamedTuple):
    """A difference of mean IoUs and the bounds of its 95 % interval, in [0, 1]."""

    value: float
    low: float
    high: float


def difference(
    a: list[np.ndarray],
    b: list[np.ndarray],
    paired: bool = True,
    draws: int = 2000,
    block: int = 1,
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

    Returns:
        mIoU of ``a`` minus that of ``b``, each the mean over its seeds.
    """
    weights = _drawn_images(len(a[0]), draws, block)
    drawn = _drawn_scores(a, weights) - _drawn_scores(b, weights)
    low, high = np.percentile(drawn, [2.5, 97.5])
    score_a, score_b = (
        np.array([mean_iou(counts.sum(0, dtype=np.int64)) for counts in arm]) for arm in (a, b)
    )
    value = score_a.mean() - score_b.mean()
    seeds = seed_half_width(score_a, score_b, paired)
    return Difference(
        float(value),
        float(value - np.hypot(value - low, seeds)),
        float(value + np.hypot(high - value, seeds)),
    )


def _drawn_images(images: int, draws: int, block: int) -> np.ndarray:
    """Return how often each draw holds each image, (draws, images)."""
    rng = np.random.default_rng(0)
    if block == 1:
        even = np.full(images, 1 / images)
        return rng.multinomial(images, even, size=draws).astype(np.float64)
    starts = rng.integers(images, size=(draws, -(-images // block), 1))
    drawn = ((starts + np.arange(block)) % images).reshape(draws, -1)[:, :images]
    return np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)


def _drawn_scores(arm: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return an arm's mean score in each draw."""
    draws, images = weights.shape
    # Sums of counts are whole numbers below 2 ** 53, which float64 holds.
    sums = [(weights @ c.reshape(images, -1)).reshape(draws, *c.shape[1:]) for c in arm]
    mean: np.ndarray = np.mean([mean_iou(each) for each in sums], 0)
    return mean


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
