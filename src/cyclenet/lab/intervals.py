"""Differences of mean IoU with 95 % intervals: a bootstrap over images, Student's t over seeds."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from cyclenet.scoring.metrics import class_iou, mean_iou

Score = Callable[[np.ndarray], np.ndarray]  # From summed counts (..., C, 3) to a score of each.


def near_minus_far(counts: np.ndarray) -> np.ndarray:
    """Return mean IoU near edges minus that far from them, from counts (..., 2, C, 3) of the two.

    It is over the classes that have true pixels in both. A thin class has none far from its edges:
    one stray prediction of it there would count as IoU 0 in one arm and not at all in another.
    """
    total: np.ndarray = near_minus_far_by_class(counts).sum(-1)
    return total


def near_minus_far_by_class(counts: np.ndarray) -> np.ndarray:
    """Return what each class adds to `near_minus_far`, (..., C)."""
    near, far = np.moveaxis(class_iou(counts), -2, 0)
    both = (counts[..., 1] > 0).all(-2)
    return np.where(both, near - far, 0) / np.maximum(both.sum(-1, keepdims=True), 1)


class Difference(NamedTuple):
    """A difference of mean IoUs and the bounds of its 95 % interval, in [0, 1].

    Attributes:
        p: two-sided p value; it is below 0.05 where the interval does not hold 0, and 1 where
            neither images nor seeds say how the difference would vary.
    """

    value: float
    low: float
    high: float
    p: float


class HalfWidth(NamedTuple):
    """Half the width of a 95 % t interval, and its degrees of freedom."""

    width: float
    freedom: float


LEAST_BLOCKS = 5

NOTHING = HalfWidth(0.0, np.inf)  # What a single training says of training anew.


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
        folds: number of images of each fold, in the order of the counts; each fold has its own
            training. Images are then drawn within folds, and what training again changes is
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
        float(value - np.hypot(value - low, seeds.width)),
        float(value + np.hypot(high - value, seeds.width)),
        p_value(value, value - low if value > 0 else high - value, seeds),
    )


def p_value(value: float, images: float, seeds: HalfWidth) -> float:
    """Return 1 minus the confidence at which the interval around a difference reaches 0.

    Args:
        value: the difference.
        images: half the width of its 95 % bootstrap interval, on the side of 0; it grows with the
            confidence as that of a normal distribution does.
        seeds: what is added to it in quadrature.

    Returns:
        The p value; 0 where it is below 1e-12.
    """
    if images <= 0 and seeds.width == 0:
        return 1.0  # Nothing is known of how it would vary.

    def reach(log_p: float) -> float:
        half = np.exp(log_p) / 2
        normal = images * stats.norm.isf(half) / stats.norm.isf(0.025)
        student = seeds.width * stats.t.isf(half, seeds.freedom) / stats.t.isf(0.025, seeds.freedom)
        return float(np.hypot(normal, student) - abs(value))

    least = np.log(1e-12)
    return float(np.exp(optimize.brentq(reach, least, 0))) if reach(least) > 0 else 0.0


def _drawn_images(images: int, draws: int, block: int, seed: int = 0) -> np.ndarray:
    """Return how often each draw holds each image, (draws, images).

    Raises:
        ValueError: the images are so few that their stretches would hardly vary.
    """
    if block > 1 and images < LEAST_BLOCKS * block:
        raise ValueError(
            f"block={block} makes fewer than {LEAST_BLOCKS} stretches of {images} images: give "
            f"block={max(images // LEAST_BLOCKS, 1)} or less."
        )
    rng = np.random.default_rng(seed)
    if block == 1:
        even = np.full(images, 1 / images)
        return rng.multinomial(images, even, size=draws).astype(np.float64)
    starts = rng.integers(images, size=(draws, -(-images // block), 1))
    drawn = ((starts + np.arange(block)) % images).reshape(draws, -1)[:, :images]
    return np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)


def fold_deviations(arm: list[np.ndarray], folds: Sequence[int], score: Score) -> np.ndarray:
    """Return how far each training moves an arm's score from its mean, (seeds, folds).

    For each training (a seed and a fold), its counts take the place of that fold's mean over the
    seeds, and all folds are scored together again.
    """
    edges = np.cumsum(folds)[:-1]
    counts = np.array(
        [[part.sum(0, dtype=np.int64) for part in np.split(one, edges)] for one in arm], float
    )
    mean = counts.mean(0)
    moved: np.ndarray = score(mean.sum(0) - mean + counts)
    return moved - moved.mean(0)


def fold_half_width(a: np.ndarray, b: np.ndarray, paired: bool) -> HalfWidth:
    """Return the half width of the 95 % t interval over trainings, from `fold_deviations`.

    A fold has as many trainings as there are seeds, and their variances add up. The
    degrees of freedom are those of a sum of unequal variances (Satterthwaite 1946).
    """
    arms = [a - b] if paired and a.shape == b.shape else [a, b]
    if min(len(arm) for arm in arms) < 2:
        return NOTHING
    parts, degrees = [], []  # The variance of each fold's mean, and its degrees of freedom.
    for arm in arms:
        parts.append((arm**2).sum(0) / ((len(arm) - 1) * len(arm)))
        degrees.append(np.full(arm.shape[1], len(arm) - 1))
    variances = np.concatenate(parts)
    variance = variances.sum()
    if variance == 0:
        return NOTHING
    freedom = float(variance**2 / (variances**2 / np.concatenate(degrees)).sum())
    return HalfWidth(float(stats.t.ppf(0.975, freedom) * np.sqrt(variance)), freedom)


def _drawn_scores(arm: list[np.ndarray], weights: np.ndarray, score: Score) -> np.ndarray:
    """Return an arm's mean score in each draw."""
    draws, images = weights.shape
    # Sums of counts are whole numbers below 2 ** 53, which float64 holds.
    sums = [(weights @ c.reshape(images, -1)).reshape(draws, *c.shape[1:]) for c in arm]
    return np.mean([score(each) for each in sums], 0)


def seed_half_width(a: np.ndarray, b: np.ndarray, paired: bool) -> HalfWidth:
    """Return the half width of the 95 % t interval of a difference of means over seeds.

    Args:
        a: scores of one arm, one a seed.
        b: scores of the other arm.
        paired: the seeds of both arms are the same, in the same order.
    """
    if len(a) == len(b) == 1:
        return NOTHING
    if 1 in (len(a), len(b)):
        # The arm with one training is assumed to vary as the other does.
        x = max(a, b, key=len)
        spread = x.std(ddof=1) * (1 + 1 / len(x)) ** 0.5
        return HalfWidth(float(stats.t.ppf(0.975, len(x) - 1) * spread), len(x) - 1)
    if np.ptp(a) == np.ptp(b) == 0:  # scipy would divide by a spread of 0.
        return NOTHING
    if paired and len(a) == len(b):
        test = stats.ttest_rel(a, b)
    else:
        test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(0.95)
    if np.isnan(high - low):
        return NOTHING
    return HalfWidth(float((high - low) / 2), float(test.df))
