"""What feedback and ADC change, in numbers over a whole split: PartI beside PartII."""

import sys
import warnings

import numpy as np
from rich.progress import track

from cyclenet.data.base import Source
from cyclenet.data.open import check_classes
from cyclenet.deploy.model import Model
from cyclenet.lab.explain.features import Explained, layers_shown
from cyclenet.lab.explain.measure import (
    ClassMeans,
    bin_names,
    count_offsets,
    count_predictions,
    count_similarity,
    measure_fields,
)
from cyclenet.lab.explain.results import (
    Alikeness,
    Change,
    FeedbackFound,
    FieldPoint,
    FieldsFound,
    Numbers,
    OffsetsFound,
    Probe,
    SimilarityFound,
    SplitAnalysis,
)
from cyclenet.lab.intervals import difference
from cyclenet.scoring.boundary import label_distance
from cyclenet.scoring.metrics import by_class, class_iou, mean_iou
from cyclenet.scoring.results import Counts
from cyclenet.seeding import spread

TOPICS = ("feedback", "similarity", "offsets", "receptive_field")

ENOUGH = 5  # Images below which no interval is given: a bootstrap over fewer says nothing.


def analyse(model: Model, source: Source, what: list[str], fields: int = 16) -> SplitAnalysis:
    """Measure over all images of a split; each is seen as a whole, at a single scale.

    Args:
        model: the trained model.
        source: the split.
        what: some of `TOPICS`.
        fields: images of which receptive fields are measured, spread evenly over the split.

    Raises:
        ValueError: the data set has other classes than the model, or offsets are asked of a model
            whose decoder does not align.
    """
    check_classes(source, model.classes, "this data set", "The checkpoint")
    if "offsets" in what and not model.net.decoder.aligns:
        raise ValueError(
            "Only a model whose decoder aligns, such as model.decoder=adc, has offsets; this one "
            f"has {model.cfg.model.decoder}."
        )
    images = len(source)
    chosen = spread(images, fields)
    rows: dict[str, list[np.ndarray]] = {}
    points: list[FieldPoint] = []
    means = ClassMeans(len(model.classes))
    quiet = not sys.stderr.isatty()
    for index in track(range(images), "analysis", disable=quiet):
        seen, truth = Explained(model, source.image(index)), source.mask(index)
        distance = label_distance(truth)
        for key, value in _count(seen, truth, distance, what).items():
            rows.setdefault(key, []).append(value)
        if "similarity" in what:
            means.add(seen, truth)
        if "receptive_field" in what and index in chosen:
            points += measure_fields(seen, truth, distance, source.name(index))
    if "similarity" in what and images > 1:
        order = track(range(images), "class means", disable=quiet)
        rows["probe"] = [
            means.count(Explained(model, source.image(index)), source.mask(index))
            for index in order
        ]
    counts = {key: np.stack(values) for key, values in rows.items()}
    context = model.net.context
    parts, layers = list(context.part_names), layers_shown(context)
    result = SplitAnalysis(parts, layers, source.classes, images, bin_names())
    if "feedback" in what:
        result.feedback = _feedback(counts, source.classes)
    if "similarity" in what:
        result.similarity = _similarity(counts, source.classes)
    if "offsets" in what:
        result.offsets = _offsets(counts["moved"])
    if "receptive_field" in what:
        result.receptive_field = _receptive_fields(points, parts)
    return result


def _count(seen: Explained, truth: np.ndarray, distance: np.ndarray, what: list[str]) -> Counts:
    counts: Counts = {}
    if "feedback" in what:
        counts |= count_predictions(seen, truth, distance)
    if "similarity" in what:
        counts |= count_similarity(seen, truth)
    if "offsets" in what:
        counts |= count_offsets(seen, truth, distance)
    return counts


def _feedback(counts: Counts, classes: list[str]) -> FeedbackFound:
    pixels = counts["pixels"]  # (images, parts, C, (right, true, predicted))
    near = counts["near"]  # (images, parts, (right, all), bins)
    total = pixels.sum(0)
    gains = near[:, -1, 0] - near[:, 0, 0]
    bins = range(near.shape[-1])
    return FeedbackFound(
        mIoU=mean_iou(total).tolist(),
        IoU=[by_class(class_iou(part), classes) for part in total],
        gain=_gain(pixels),
        accuracy=[_share(part[0], part[1]) for part in near.sum(0)],
        accuracy_gain=[_ratio_interval(gains[:, b], near[:, 0, 1, b]) for b in bins],
        pixels=near[:, 0, 1].sum(0).tolist(),
    )


def _gain(counts: np.ndarray) -> Change:
    """Return mIoU of the last part minus the first's, from (images, parts, C, 3) counts."""
    if len(counts) < ENOUGH:
        return None
    return list(difference([counts[:, -1]], [counts[:, 0]])[:3])


def _share(part: np.ndarray, whole: np.ndarray) -> Numbers:
    return [float(a / b) if b else None for a, b in zip(part, whole, strict=True)]


def _similarity(counts: Counts, classes: list[str]) -> SimilarityFound:
    with warnings.catch_warnings():
        # Some classes and images have no pairs, so their means are empty.
        warnings.simplefilter("ignore", RuntimeWarning)
        raw, centred = (_alikeness(counts, kind, classes) for kind in ("raw", "centred"))
        layers = [[_plain(layer) for layer in part] for part in np.nanmean(counts["layers"], 0)]
    probe = None
    if "probe" in counts:
        score = mean_iou(counts["probe"].sum(0)).tolist()
        probe = Probe(score, _gain(counts["probe"]))
    return SimilarityFound(raw, centred, layers, probe)


def _alikeness(counts: Counts, kind: str, classes: list[str]) -> Alikeness:
    by_image = counts[f"{kind}_within"]  # (images, parts, C)
    between = counts[f"{kind}_between"]  # (images, parts)
    within = np.nanmean(by_image, -1)
    values = {"within": within, "between": between, "gap": within - between}
    return Alikeness(
        **{key: _plain(np.nanmean(value, 0)) for key, value in values.items()},
        change={key: _interval(value[:, -1] - value[:, 0]) for key, value in values.items()},
        classes=[by_class(part, classes) for part in np.nanmean(by_image, 0)],
    )


def _plain(values: np.ndarray) -> Numbers:
    return [None if np.isnan(value) else float(value) for value in values]


def _interval(values: np.ndarray) -> Change:
    """Return the mean over images and the bounds of its 95 % bootstrap interval.

    Images without a value are left out.
    """
    known = ~np.isnan(values)
    return _ratio_interval(values[known], np.ones(known.sum()))


def _ratio_interval(part: np.ndarray, whole: np.ndarray, draws: int = 2000) -> Change:
    """Return sum(part) / sum(whole) over images and the bounds of its 95 % bootstrap interval.

    Images without any of the whole are left out: they say nothing of the share.
    """
    part, whole = part[whole > 0], whole[whole > 0]
    if len(part) < ENOUGH:
        return None
    picks = np.random.default_rng(0).integers(0, len(part), (draws, len(part)))
    ratios = part[picks].sum(1) / np.maximum(whole[picks].sum(1), 1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return [float(part.sum() / whole.sum()), float(low), float(high)]


def _offsets(each: np.ndarray) -> OffsetsFound:
    moved = each.sum(0)
    both = (each[:, 0, 0] > 0) & (each[:, 0, -1] > 0)
    near, far = each[both, :, 0], each[both, :, -1]
    return OffsetsFound(
        length=_share(moved[1], moved[0]),
        mean_length=float(moved[1].sum() / max(moved[0].sum(), 1)),
        near=_interval(near[:, 1] / near[:, 0] - far[:, 1] / far[:, 0]),
        modulation=_share(moved[2], moved[0]) if len(moved) > 2 else None,
    )


def _receptive_fields(points: list[FieldPoint], parts: list[str]) -> FieldsFound:
    measures = ("radius_50", "radius_90", "foreign")
    means: dict[str, list[dict[str, float]]] = {}
    changes: dict[str, dict[str, Change]] = {}
    for where in ("edge", "middle"):
        here = [point for point in points if point.where == where]
        by_part = [[vars(point) for point in here if point.part == part] for part in parts]
        means[where] = [
            {key: float(np.mean([point[key] for point in rows])) for key in measures}
            for rows in by_part
            if rows
        ]
        pairs = list(zip(by_part[0], by_part[-1], strict=True))
        changes[where] = {
            key: _interval(np.array([last[key] - first[key] for first, last in pairs]))
            for key in measures
        }
    return FieldsFound(points, means["edge"], means["middle"], changes["edge"], changes["middle"])
