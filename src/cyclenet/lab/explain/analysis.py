"""What feedback and ADC change, in numbers over a whole split: PartI beside PartII, near edges and far from them."""

import sys
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from cyclenet.data.base import Source
from cyclenet.data.images import IGNORE
from cyclenet.data.loader import derive
from cyclenet.lab.explain.features import Explained, at_cells, layer_names, part_names, spread
from cyclenet.lab.report.comparison import difference
from cyclenet.lab.report.page import markdown_table
from cyclenet.models.decoder import ADC
from cyclenet.scoring.boundary import label_distance
from cyclenet.scoring.metrics import by_class, class_iou, mean_iou
from cyclenet.training.task import SegmentationTask

BINS = (2, 4, 8, 16, 32)
"""Upper bounds, pixels, of the distances to the nearest edge of the truth by which pixels are told apart; then all beyond."""

TOPICS = ("feedback", "similarity", "offsets", "receptive_field")

ENOUGH = 5
"""Images below which no interval is given: a bootstrap over fewer says nothing."""

Counts = dict[str, np.ndarray]
Change = list[float] | None
"""A difference and the bounds of its 95 % interval over images; None where there are too few."""


def bin_names() -> list[str]:
    """Name the bins of distance: ``0-2``, ``2-4``, ..., ``>32``, pixels."""
    return [f"{low}-{high}" for low, high in zip((0, *BINS), BINS, strict=False)] + [f">{BINS[-1]}"]


def analyse(task: SegmentationTask, source: Source, what: list[str], fields: int = 16) -> dict[str, Any]:
    """Measure over all images of a split; each is seen as a whole, at a single scale.

    Args:
        task: the trained model.
        source: the split.
        what: of `TOPICS`.
        fields: images of which receptive fields are measured, spread evenly over the split.

    Returns:
        Plain types for JSON, with None where there is nothing to measure: ``parts``, ``classes``, ``images``, ``bins``, and a
        dict for each topic (see `_feedback`, `_similarity`, `_offsets`, `_receptive_fields`).

    Raises:
        ValueError: the data set has other classes than the model, or offsets are asked of a model without ADC.
    """
    if source.classes != task.classes:
        raise ValueError("The checkpoint was trained on other classes than this data set has; choose its own.")
    if "offsets" in what and not isinstance(task.net.decoder, ADC):
        raise ValueError(f"Only a model with model.decoder=adc has offsets; this one has {task.cfg.model.decoder}.")
    chosen = set(np.linspace(0, len(source) - 1, min(fields, len(source))).round().astype(int).tolist())
    rows: dict[str, list[np.ndarray]] = {}
    found: list[dict[str, Any]] = []
    means = ClassMeans(task)
    for index in track(range(len(source)), "analysis", disable=not sys.stderr.isatty()):
        seen, truth = Explained(task, source.image(index)), source.mask(index)
        distance = label_distance(truth)
        counts: Counts = {}
        if "feedback" in what:
            counts |= _count_predictions(seen, truth, distance)
        if "similarity" in what:
            counts |= _count_similarity(seen, truth)
            means.add(seen, truth)
        if "offsets" in what:
            counts |= _count_offsets(seen, truth, distance)
        for key, value in counts.items():
            rows.setdefault(key, []).append(value)
        if "receptive_field" in what and index in chosen:
            found += _measure_fields(seen, truth, distance, source.name(index))
    if "similarity" in what and len(source) > 1:
        order = track(range(len(source)), "class means", disable=not sys.stderr.isatty())
        rows["probe"] = [means.count(Explained(task, source.image(i)), source.mask(i)) for i in order]
    counts = {key: np.stack(values) for key, values in rows.items()}
    result: dict[str, Any] = {"parts": part_names(task.net), "layers": layer_names(task.net), "classes": source.classes}
    result |= {"images": len(source), "bins": bin_names()}
    if "feedback" in what:
        result["feedback"] = _feedback(counts, source.classes)
    if "similarity" in what:
        result["similarity"] = _similarity(counts, source.classes)
    if "offsets" in what:
        result["offsets"] = _offsets(counts)
    if "receptive_field" in what:
        result["receptive_field"] = _receptive_fields(found, result["parts"])
    return result


def _bins(distance: np.ndarray) -> np.ndarray:
    return np.searchsorted(BINS, distance)


def _share(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(part, whole, strict=True)]


def _count_predictions(seen: Explained, truth: np.ndarray, distance: np.ndarray) -> Counts:
    classes, valid = len(seen.task.classes), truth != IGNORE
    true, bins = truth[valid], _bins(distance)[valid]
    pixels, near = [], []
    for labels in seen.labels:
        predicted = labels[valid]
        hit = predicted == true
        pixels.append(np.stack([np.bincount(ids, minlength=classes) for ids in (true[hit], true, predicted)], 1))
        near.append([np.bincount(b, minlength=len(BINS) + 1) for b in (bins[hit], bins)])
    return {"pixels": np.array(pixels), "near": np.array(near)}


def _feedback(counts: Counts, classes: list[str]) -> dict[str, Any]:
    """Score each part's prediction: its features, read by the network's own last layers.

    Returns:
        ``mIoU`` and ``IoU`` by class of each part; ``accuracy`` of each part by distance to the nearest edge; of both the
        ``gain`` and ``accuracy_gain``, the last part's minus the first's with 95 % intervals over images.
    """
    total = counts["pixels"].sum(0)  # (parts, C, 3)
    near = counts["near"]  # (images, parts, (right, all), bins)
    enough = len(near) >= ENOUGH
    return {
        "mIoU": mean_iou(total).tolist(),
        "IoU": [by_class(class_iou(part), classes) for part in total],
        "gain": list(difference([counts["pixels"][:, -1]], [counts["pixels"][:, 0]])) if enough else None,
        "accuracy": [_share(part[0], part[1]) for part in near.sum(0)],
        "accuracy_gain": [
            _ratio_interval(near[:, -1, 0, b] - near[:, 0, 0, b], near[:, 0, 1, b]) for b in range(near.shape[-1])
        ],
        "pixels": near[:, 0, 1].sum(0).tolist(),
    }


def _cells(seen: Explained, truth: np.ndarray) -> Tensor:
    """Return the true label (h * w) of each feature: of the pixel in its middle."""
    height, width = seen.last.shape[-2:]
    return torch.from_numpy(at_cells(truth, (height, width), seen.net.align_corners).ravel().astype(np.int64))


def _units(outputs: list[Tensor], centred: bool) -> Tensor:
    features = torch.cat(outputs, 1)[0].flatten(1).T.cpu().double()
    return F.normalize(features - features.mean(0) if centred else features, dim=1)


def _members(seen: Explained, truth: np.ndarray) -> Tensor:
    classes = len(seen.task.classes)
    return F.one_hot(_cells(seen, truth).clamp(max=classes), classes + 1)[:, :-1].double()  # (h * w, C)


def _within_between(unit: Tensor, member: Tensor) -> tuple[np.ndarray, float]:
    """Return the mean cosine of all pairs within each class (C), and its mean over pairs of classes; NaN where none."""
    # The mean of all pairs of two sets is the product of the means of their unit vectors: no pair is looked at.
    sums, number = member.T @ unit, member.sum(0)
    # A feature is not a pair with itself. (Of an all-zero feature the cosine is 0.)
    products = sums @ sums.T - torch.diag(member.T @ (unit**2).sum(1))
    pairs = number[:, None] * number[None] - torch.diag(number)
    mean = torch.where(pairs > 0, products / pairs.clamp(min=1), torch.nan)
    between = mean[~torch.eye(len(mean), dtype=torch.bool) & ~mean.isnan()]
    return mean.diagonal().numpy(), float(between.mean()) if len(between) else float("nan")


def _count_similarity(seen: Explained, truth: np.ndarray) -> Counts:
    member = _members(seen, truth)
    found: dict[str, list[Any]] = {}
    for outputs in seen.passes:
        kinds = [("raw", _units(outputs, False)), ("centred", _units(outputs, True))]
        for kind, unit in kinds:
            within, between = _within_between(unit, member)
            found.setdefault(f"{kind}_within", []).append(within)
            found.setdefault(f"{kind}_between", []).append(between)
        each = [_within_between(_units([output], False), member) for output in outputs]
        found.setdefault("layers", []).append([[_mean(within), between] for within, between in each])
    return {key: np.array(values) for key, values in found.items()}


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


class ClassMeans:
    """Label features by the nearest class mean (cosine, after the image's mean is subtracted), of all images but their own."""

    def __init__(self, task: SegmentationTask) -> None:
        self.sums: list[Tensor] = []
        self.number = torch.zeros(len(task.classes), dtype=torch.float64)

    def _own(self, seen: Explained, truth: np.ndarray) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        member = _members(seen, truth)
        units = [_units(outputs, True) for outputs in seen.passes]
        return [member.T @ unit for unit in units], member.sum(0), units

    def add(self, seen: Explained, truth: np.ndarray) -> None:
        """Count an image in."""
        sums, number, _ = self._own(seen, truth)
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)] if self.sums else sums
        self.number += number

    def count(self, seen: Explained, truth: np.ndarray) -> np.ndarray:
        """Return (parts, C, 3) right, true and predicted features of an image that was counted in."""
        sums, number, units = self._own(seen, truth)
        labels, classes = _cells(seen, truth).numpy(), len(self.number)
        valid, known = labels != IGNORE, self.number - number > 0
        rows = []
        for total, own, unit in zip(self.sums, sums, units, strict=True):
            scores = unit @ F.normalize(total - own, dim=1).T
            predicted = scores.masked_fill(~known, -2).argmax(1).numpy()[valid]
            true = labels[valid]
            hit = predicted == true
            rows.append(np.stack([np.bincount(ids, minlength=classes) for ids in (true[hit], true, predicted)], 1))
        return np.stack(rows)


def _similarity(counts: Counts, classes: list[str]) -> dict[str, Any]:
    """Tell whether features of one class are more alike than those of different classes.

    Returns:
        ``raw`` (Fig. 4's cosine) and ``centred`` (after the image's mean feature is subtracted), of the concatenated layers:
        ``within`` and ``between`` of each part, the mean over images of the mean over classes, or pairs of classes, that occur;
        ``gap``, their difference; ``change`` of all three, the last part minus the first with its 95 % interval over images;
        ``classes``, the similarity within each. ``layers``: within and between (raw) of each part and layer. ``probe``: mIoU of
        each part if features are labelled by `ClassMeans`, and the last's minus the first's with its interval.
    """
    result: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Of classes and images that have none.
        for kind in ("raw", "centred"):
            by_image, between = counts[f"{kind}_within"], counts[f"{kind}_between"]  # (images, parts, C), (images, parts)
            within = np.nanmean(by_image, -1)
            values = {"within": within, "between": between, "gap": within - between}
            result[kind] = {key: _plain(np.nanmean(value, 0)) for key, value in values.items()}
            result[kind]["change"] = {key: _interval(value[:, -1] - value[:, 0]) for key, value in values.items()}
            result[kind]["classes"] = [by_class(part, classes) for part in np.nanmean(by_image, 0)]
        result["layers"] = [[_plain(layer) for layer in part] for part in np.nanmean(counts["layers"], 0)]
    result["probe"] = None
    if "probe" in counts:
        gain = list(difference([counts["probe"][:, -1]], [counts["probe"][:, 0]])) if len(counts["probe"]) >= ENOUGH else None
        result["probe"] = {"mIoU": mean_iou(counts["probe"].sum(0)).tolist(), "gain": gain}
    return result


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _interval(values: np.ndarray) -> Change:
    """Return the mean over images and the bounds of its 95 % bootstrap interval; images without a value are left out."""
    known = ~np.isnan(values)
    return _ratio_interval(values[known], np.ones(known.sum()))


def _ratio_interval(part: np.ndarray, whole: np.ndarray, draws: int = 2000) -> Change:
    """Return sum(part) / sum(whole) over images and the bounds of its 95 % bootstrap interval."""
    if len(part) < ENOUGH or not whole.sum():
        return None
    picks = np.random.default_rng(0).integers(0, len(part), (draws, len(part)))
    low, high = np.percentile(part[picks].sum(1) / np.maximum(whole[picks].sum(1), 1), [2.5, 97.5])
    return [float(part.sum() / whole.sum()), float(low), float(high)]


def _count_offsets(seen: Explained, truth: np.ndarray, distance: np.ndarray) -> Counts:
    offsets = seen.offsets
    shape = offsets.shift.shape[:2]
    labels, away = (at_cells(values, shape, seen.net.align_corners) for values in (truth, distance))
    valid = labels != IGNORE
    bins = _bins(away)[valid]
    length = np.hypot(offsets.shift[..., 0], offsets.shift[..., 1]).mean((2, 3))
    values = [np.ones_like(length), length]
    if offsets.modulation is not None:
        values.append(offsets.modulation.mean((2, 3)))
    return {"moved": np.array([np.bincount(bins, v[valid], minlength=len(BINS) + 1) for v in values])}


def _offsets(counts: Counts) -> dict[str, Any]:
    """Return the mean ``length`` of ADC's displacements, pixels of the image, and its mean ``modulation``, by distance.

    ``near`` is the length in the first bin minus that in the last, with its 95 % interval over images.
    """
    moved = counts["moved"].sum(0)
    each = counts["moved"]
    both = (each[:, 0, 0] > 0) & (each[:, 0, -1] > 0)
    nearer = each[both, 1, 0] / each[both, 0, 0] - each[both, 1, -1] / each[both, 0, -1]
    result = {
        "length": _share(moved[1], moved[0]),
        "mean_length": float(moved[1].sum() / max(moved[0].sum(), 1)),
        "near": _interval(nearer),
    }
    if len(moved) > 2:
        result["modulation"] = _share(moved[2], moved[0])
    return result


def edge_and_middle(truth: np.ndarray, distance: np.ndarray, name: str) -> dict[str, tuple[int, int]]:
    """Choose the pixel (x, y) farthest from edges and border, and one of its class near an edge, drawn from its name."""
    # Of the middle of what can be seen: the image's border counts as an edge.
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


def _measure_fields(seen: Explained, truth: np.ndarray, distance: np.ndarray, name: str) -> list[dict[str, Any]]:
    found = []
    for where, (x, y) in edge_and_middle(truth, distance, name).items():
        for part, field in zip(seen.parts, seen.receptive_field(x, y, draws=4), strict=True):
            found.append({"image": name, "where": where, "x": x, "y": y, "part": part} | spread(field, x, y, truth))
    return found


def _receptive_fields(found: list[dict[str, Any]], parts: list[str]) -> dict[str, Any]:
    """Average `cyclenet.lab.explain.features.spread` near edges and in the middles of objects (the largest one of each image).

    Returns:
        ``edge`` and ``middle``: of each part the mean of each measure; ``edge_change`` and ``middle_change``, the last part's
        minus the first's with its 95 % interval over images; ``points``, each that was measured.
    """
    result: dict[str, Any] = {"points": found}
    measures = ("radius_50", "radius_90", "foreign")
    for where in ("edge", "middle"):
        by_part = [[row for row in found if row["where"] == where and row["part"] == part] for part in parts]
        result[where] = [{key: float(np.mean([row[key] for row in rows])) for key in measures} for rows in by_part if rows]
        pairs = list(zip(by_part[0], by_part[-1], strict=True))
        result[f"{where}_change"] = {key: _interval(np.array([b[key] - a[key] for a, b in pairs])) for key in measures}
    return result


def describe(result: dict[str, Any]) -> str:
    """Write an analysis as Markdown: tables, and a sentence with its interval for what changed from first to last part."""
    parts, several = result["parts"], len(result["parts"]) > 1
    bins = [f"{name} px" for name in result["bins"]]
    text = [
        f"# Analysis over {result['images']} images",
        "Each image whole, at a single scale, in float32. Intervals are 95 % bootstrap intervals over images, which are taken "
        "as independent: where they are frames of one video, they are too narrow."
        + (f" Of fewer than {ENOUGH} images none is given." if result["images"] < ENOUGH else ""),
    ]
    if "feedback" in result:
        r = result["feedback"]
        text.append("## Prediction from each part")
        rows = [
            [part, _percent(miou), *(_percent(value, 1) for value in accuracy)]
            for part, miou, accuracy in zip(parts, r["mIoU"], r["accuracy"], strict=True)
        ]
        if several:
            rows.append(
                [f"{parts[-1]} minus {parts[0]}", *(_signed(change, 100) for change in (r["gain"], *r["accuracy_gain"]))]
            )
        text.append(markdown_table(["part", "mIoU, %", *(f"right {name}, %" for name in bins)], rows))
        text.append("Pixels by their distance to the nearest true edge.")
        if several:
            text[-1] += f" All but {parts[-1]} is read by layers that were trained on {parts[-1]} alone."
        names = [[name, *(_percent(part[name]) for part in r["IoU"])] for name in result["classes"]]
        text.append(markdown_table(["class", *(f"IoU {part}, %" for part in parts)], names))
    if "similarity" in result:
        text += _describe_similarity(result, parts, several)
    if "offsets" in result:
        r = result["offsets"]
        rows = [["displacement, px", *(_number(value, 2) for value in r["length"])]]
        if "modulation" in r:
            rows.append(["modulation", *(_number(value, 3) for value in r["modulation"])])
        text += ["## ADC by distance to the nearest edge", markdown_table(["", *bins], rows)]
        text.append(f"Within {bins[0]} of an edge minus beyond: {_signed(r['near'], 1)} px.")
    if "receptive_field" in result:
        r = result["receptive_field"]
        rows = [
            [f"{part}, {where}", f"{v['radius_50']:.1f}", f"{v['radius_90']:.1f}", _percent(v["foreign"], 1)]
            for where in ("edge", "middle")
            for part, v in zip(parts, r[where], strict=False)
        ]
        head = ["of a pixel", "half within, px", "nine tenths within, px", "on other classes, %"]
        text += ["## Effective receptive field", markdown_table(head, rows)]
        text.append("Of the middle of the largest object of an image, and of a pixel of its class near an edge.")
        for where, name in (("edge", "near an edge"), ("middle", "in the middle of an object")):
            if several:
                change = r[f"{where}_change"]
                text.append(
                    f"From {parts[0]} to {parts[-1]}, {name}: half within {_signed(change['radius_50'], 1)} px, "
                    f"on other classes {_signed(change['foreign'], 100)} points."
                )
    return "\n\n".join(text) + "\n"


def _describe_similarity(result: dict[str, Any], parts: list[str], several: bool) -> list[str]:
    r = result["similarity"]
    rows = [
        [f"{part}, {kind}", *(_number(r[kind][key][i], 3) for key in ("within", "between", "gap"))]
        for kind in ("raw", "centred")
        for i, part in enumerate(parts)
    ]
    text = ["## Cosine similarity of features", markdown_table(["part", "within a class", "between classes", "gap"], rows)]
    if several:
        for kind in ("raw", "centred"):
            change = r[kind]["change"]
            within, between = _more(change["within"], "alike"), _more(change["between"], "alike")
            text.append(
                f"{kind}: features of one class are {within} in {parts[-1]} ({_signed(change['within'], 1, 3)}), "
                f"those of different classes {between} ({_signed(change['between'], 1, 3)}); "
                f"the gap changes by {_signed(change['gap'], 1, 3)}."
            )
    if len(result["layers"]) > 1:
        rows = [
            [part, *(f"{_number(w, 3)} / {_number(b, 3)}" for w, b in layers)]
            for part, layers in zip(parts, r["layers"], strict=True)
        ]
        text.append(markdown_table(["within / between, raw", *result["layers"][:-1]], rows))
    if r["probe"]:
        scores = ", ".join(f"{part} {_percent(miou)}" for part, miou in zip(parts, r["probe"]["mIoU"], strict=True))
        text.append(f"Features labelled by the nearest class mean (cosine, centred) of the other images, mIoU in %: {scores}.")
        if several:
            text[-1] += f" Change {_signed(r['probe']['gain'], 100)}."
    return text


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 2) -> str:
    return _number(None if value is None else 100 * value, digits)


def _signed(change: Change, scale: float, digits: int = 2) -> str:
    if change is None:
        return "–"
    value, low, high = (scale * v for v in change)
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _more(change: Change, word: str) -> str:
    if change is None:
        return f"perhaps more or less {word}"
    if change[1] > 0:
        return f"more {word}"
    return f"less {word}" if change[2] < 0 else f"as {word} as far as one can tell"
