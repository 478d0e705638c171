"""What is measured in one image: predictions, similarity and offsets, by class and by distance."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclenet.lab.explain.features import Explained
from cyclenet.lab.explain.geometry import at_cells, spread
from cyclenet.lab.explain.results import FieldPoint
from cyclenet.labels import IGNORE
from cyclenet.scoring.boundary import label_distance
from cyclenet.scoring.results import Counts
from cyclenet.seeding import derive

BINS = (2, 4, 8, 16, 32)
"""Upper bounds, pixels, of the distances to the nearest true edge; the last bin is beyond all."""


def bin_names() -> list[str]:
    """Name the bins of distance: ``0-2``, ``2-4``, ..., ``>32``, pixels."""
    bounds = zip((0, *BINS), BINS, strict=False)
    return [f"{low}-{high}" for low, high in bounds] + [f">{BINS[-1]}"]


def _bins(distance: np.ndarray) -> np.ndarray:
    return np.searchsorted(BINS, distance)


def count_predictions(seen: Explained, truth: np.ndarray, distance: np.ndarray) -> Counts:
    """Count right pixels of each part by class and by distance to the nearest edge.

    Returns:
        ``pixels`` (parts, C, 3) right, true and predicted; ``near`` (parts, 2, bins) right and all.
    """
    valid = truth != IGNORE
    true, bins = truth[valid], _bins(distance)[valid]
    pixels, near = [], []
    for labels in seen.labels:
        predicted = labels[valid]
        hit = predicted == true
        pixels.append(_by_class(true, predicted, len(seen.model.classes)))
        near.append([np.bincount(b, minlength=len(BINS) + 1) for b in (bins[hit], bins)])
    return {"pixels": np.array(pixels), "near": np.array(near)}


def _by_class(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    kinds = (true[predicted == true], true, predicted)
    return np.stack([np.bincount(ids, minlength=classes) for ids in kinds], 1)


def count_similarity(seen: Explained, truth: np.ndarray) -> Counts:
    """Measure the similarity of features within classes and between them, in each part.

    Returns:
        ``raw_within`` and ``centred_within`` (parts, C), ``raw_between`` and ``centred_between``
        (parts,), ``layers`` (parts, layers, 2): within and between of each layer.
    """
    member = _members(seen, truth)
    found: dict[str, list[Any]] = {}
    for outputs in _inner_passes(seen, truth):
        for kind in ("raw", "centred"):
            unit = _units(outputs, centred=kind == "centred")
            within, between = _within_between(unit, member)
            found.setdefault(f"{kind}_within", []).append(within)
            found.setdefault(f"{kind}_between", []).append(between)
        each = [_within_between(_units([output], False), member) for output in outputs]
        layers = [[_mean_of_known(within), between] for within, between in each]
        found.setdefault("layers", []).append(layers)
    return {key: np.array(values) for key, values in found.items()}


def _cells(seen: Explained, truth: np.ndarray) -> Tensor:
    """Return the true label (h * w) of each feature: that of the pixel in its middle."""
    labels = at_cells(truth, tuple(seen.levels[3].shape[-2:]), seen.net.grid)
    return torch.from_numpy(labels.ravel().astype(np.int64))


def _inner_passes(seen: Explained, truth: np.ndarray) -> list[list[Tensor]]:
    """Return the outputs of each part's layers at the features of `_cells`."""
    shape = tuple(seen.levels[3].shape[-2:])
    rows, columns = at_cells(truth, shape, seen.net.grid).shape
    return [[output[..., :rows, :columns] for output in outputs] for outputs in seen.passes]


def _members(seen: Explained, truth: np.ndarray) -> Tensor:
    """Return (h * w, C) float64: 1 where a feature has a class."""
    classes = len(seen.model.classes)
    cells = _cells(seen, truth).clamp(max=classes)
    return F.one_hot(cells, classes + 1)[:, :-1].double()


def _units(outputs: list[Tensor], centred: bool) -> Tensor:
    features = torch.cat(outputs, 1)[0].flatten(1).T.cpu().double()
    return F.normalize(features - features.mean(0) if centred else features, dim=1)


def _within_between(unit: Tensor, member: Tensor) -> tuple[np.ndarray, float]:
    """Return the mean cosine of all pairs within each class (C), and its mean over class pairs.

    A value is NaN where there is no pair.
    """
    # The mean over all pairs of two sets is the product of the means of their unit vectors, so no
    # pair is looked at.
    sums, number = member.T @ unit, member.sum(0)
    # A feature is not a pair with itself. (The cosine of an all-zero feature is 0.)
    products = sums @ sums.T - torch.diag(member.T @ (unit**2).sum(1))
    pairs = number[:, None] * number[None] - torch.diag(number)
    mean = torch.where(pairs > 0, products / pairs.clamp(min=1), torch.nan)
    between = mean[~torch.eye(len(mean), dtype=torch.bool) & ~mean.isnan()]
    return mean.diagonal().numpy(), float(between.mean()) if len(between) else float("nan")


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


class ClassMeans:
    """Label features by the nearest class mean of all other images.

    Nearness is the cosine after the image's mean feature is subtracted.
    """

    def __init__(self, classes: int) -> None:
        self.sums: list[Tensor] = []
        self.number = torch.zeros(classes, dtype=torch.float64)

    def _own(self, seen: Explained, truth: np.ndarray) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        member = _members(seen, truth)
        units = [_units(outputs, True) for outputs in _inner_passes(seen, truth)]
        return [member.T @ unit for unit in units], member.sum(0), units

    def add(self, seen: Explained, truth: np.ndarray) -> None:
        """Count an image in."""
        sums, number, _ = self._own(seen, truth)
        if self.sums:
            sums = [a + b for a, b in zip(self.sums, sums, strict=True)]
        self.sums = sums
        self.number += number

    def count(self, seen: Explained, truth: np.ndarray) -> np.ndarray:
        """Return (parts, C, 3) right, true and predicted features of an image that was added."""
        sums, number, units = self._own(seen, truth)
        labels, classes = _cells(seen, truth).numpy(), len(self.number)
        valid, known = labels != IGNORE, self.number - number > 0
        rows = []
        for total, own, unit in zip(self.sums, sums, units, strict=True):
            scores = unit @ F.normalize(total - own, dim=1).T
            predicted = scores.masked_fill(~known, -2).argmax(1).numpy()[valid]
            rows.append(_by_class(labels[valid], predicted, classes))
        return np.stack(rows)


def count_offsets(seen: Explained, truth: np.ndarray, distance: np.ndarray) -> Counts:
    """Sum ADC's displacements by distance to the nearest edge.

    Returns:
        ``moved`` (2 or 3, bins): number of features, their lengths, their modulations.
    """
    offsets, shape = seen.offsets, seen.offsets.shift.shape[:2]
    labels, away = (at_cells(values, shape, seen.net.grid) for values in (truth, distance))
    valid = labels != IGNORE
    bins = _bins(away)[valid]
    rows, columns = labels.shape  # Features in the padding are left out.
    shift = offsets.shift[:rows, :columns]
    length = np.hypot(shift[..., 0], shift[..., 1]).mean((2, 3))
    values = [np.ones_like(length), length]
    if offsets.modulation is not None:
        values.append(offsets.modulation[:rows, :columns].mean((2, 3)))
    sums = [np.bincount(bins, value[valid], minlength=len(BINS) + 1) for value in values]
    return {"moved": np.array(sums)}


def edge_and_middle(
    truth: np.ndarray, distance: np.ndarray, name: str
) -> dict[str, tuple[int, int]]:
    """Choose the pixel (x, y) farthest from edges, and one of its class near an edge.

    The second is drawn from the image's name. The image's border counts as an edge for the first,
    so that it is the middle of what can be seen.
    """
    inner = np.where(truth != IGNORE, label_distance(truth, outside=True), -1)
    if inner.max() <= 0:
        return {}
    row, column = np.unravel_index(inner.argmax(), inner.shape)
    rows, columns = np.nonzero((truth == truth[row, column]) & (distance <= BINS[0]))
    points = {"middle": (int(column), int(row))}
    if len(rows):
        chosen = derive(name) % len(rows)
        points["edge"] = (int(columns[chosen]), int(rows[chosen]))
    return points


def measure_fields(
    seen: Explained, truth: np.ndarray, distance: np.ndarray, name: str
) -> list[FieldPoint]:
    """Measure the receptive fields of an image's two chosen pixels in each part."""
    found = []
    for where, (x, y) in edge_and_middle(truth, distance, name).items():
        for part, field in zip(seen.parts, seen.receptive_field(x, y, draws=4), strict=True):
            found.append(FieldPoint(name, where, x, y, part, **spread(field, x, y, truth)))
    return found
