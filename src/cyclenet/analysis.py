"""What feedback and ADC change, in numbers over a whole split: PartI beside PartII, near edges and far from them."""

import sys
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from cyclenet.boundary import label_distance
from cyclenet.comparison import difference
from cyclenet.data.images import IGNORE
from cyclenet.data.loader import derive
from cyclenet.data.source import Source
from cyclenet.explain import Explained, part_names, spread
from cyclenet.metrics import by_class, class_iou, mean_iou
from cyclenet.models.decoder import ADC
from cyclenet.report import markdown_table
from cyclenet.task import SegmentationTask

BINS = (2, 4, 8, 16, 32)
"""Upper bounds, pixels, of the distances to the nearest edge of the truth by which pixels are told apart; then all beyond."""

TOPICS = ("feedback", "similarity", "offsets", "receptive_field")

Counts = dict[str, np.ndarray]


def bin_names() -> list[str]:
    """Name the bins of distance: ``0-2``, ``2-4``, ..., ``>32``, pixels."""
    return [f"{low}-{high}" for low, high in zip((0, *BINS), BINS, strict=False)] + [f">{BINS[-1]}"]


def analyse(task: SegmentationTask, source: Source, what: list[str], fields: int = 16) -> dict[str, Any]:
    """Measure over all images of a split.

    Args:
        task: the trained model.
        source: the split.
        what: of `TOPICS`; what the model does not have is left out.
        fields: images of which receptive fields are measured, spread evenly over the split.

    Returns:
        Plain types for JSON: ``parts``, ``classes``, ``images``, and a dict for each topic (see `_feedback`, `_similarity`,
        `_offsets`, `_receptive_fields`).

    Raises:
        ValueError: the data set has other classes than the model.
    """
    if source.classes != task.classes:
        raise ValueError("The checkpoint was trained on other classes than this data set has; choose its own.")
    if "offsets" in what and not isinstance(task.net.decoder, ADC):
        what = [topic for topic in what if topic != "offsets"]
    chosen = set(np.linspace(0, len(source) - 1, min(fields, len(source))).round().astype(int).tolist())
    rows: dict[str, list[np.ndarray]] = {}
    found: list[dict[str, Any]] = []
    for index in track(range(len(source)), "analysis", disable=not sys.stderr.isatty()):
        seen, truth = Explained(task, source.image(index)), source.mask(index)
        distance = label_distance(truth)
        counts: Counts = {}
        if "feedback" in what:
            counts |= _count_predictions(seen, truth, distance)
        if "similarity" in what:
            counts |= _count_similarity(seen, truth)
        if "offsets" in what:
            counts |= _count_offsets(seen, truth, distance)
        for key, value in counts.items():
            rows.setdefault(key, []).append(value)
        if "receptive_field" in what and index in chosen:
            found += _measure_fields(seen, truth, distance, source.name(index))
    counts = {key: np.stack(values) for key, values in rows.items()}
    if "similarity" in what:
        counts["probe"] = np.stack([_probe(task, source, i, counts) for i in range(len(source))])
    result: dict[str, Any] = {"parts": part_names(task.net), "classes": source.classes, "images": len(source)}
    result["bins"] = bin_names()
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


def _count_predictions(seen: Explained, truth: np.ndarray, distance: np.ndarray) -> Counts:
    classes, valid = len(seen.task.classes), truth != IGNORE
    true, bins = truth[valid], _bins(distance)[valid]
    pixels, near = [], []
    for part in range(len(seen.parts)):
        predicted = seen.labels(part)[valid]
        hit = predicted == true
        pixels.append(np.stack([np.bincount(ids, minlength=classes) for ids in (true[hit], true, predicted)], 1))
        near.append([np.bincount(b, minlength=len(BINS) + 1) for b in (bins[hit], bins)])
    return {"pixels": np.array(pixels), "near": np.array(near)}


def _feedback(counts: Counts, classes: list[str]) -> dict[str, Any]:
    """Score each part's prediction: its features, read by the network's own last layers.

    Returns:
        ``mIoU`` and ``IoU`` by class of each part; ``gain``, the last part's mIoU minus the first's with its 95 % interval over
        images; ``accuracy`` of each part by distance to the nearest edge.
    """
    total = counts["pixels"].sum(0)  # (parts, C, 3)
    near = counts["near"].sum(0)  # (parts, (right, all), bins)
    gain = difference([counts["pixels"][:, -1]], [counts["pixels"][:, 0]])
    return {
        "mIoU": mean_iou(total).tolist(),
        "IoU": [by_class(class_iou(part), classes) for part in total],
        "gain": list(gain),
        "accuracy": (near[:, 0] / np.maximum(near[:, 1], 1)).tolist(),
        "pixels": near[0, 1].tolist(),
    }


def _cells(seen: Explained, truth: np.ndarray) -> Tensor:
    """Return the true label (h * w) of each feature: of the pixel in its middle."""
    height, width = seen.last.shape[-2:]
    rows = ((np.arange(height) + 0.5) * truth.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * truth.shape[1] / width).astype(int)
    return torch.from_numpy(truth[np.ix_(rows, columns)].ravel().astype(np.int64))


def _units(outputs: list[Tensor], centred: bool) -> Tensor:
    features = torch.cat(outputs, 1)[0].flatten(1).T.cpu().double()
    return F.normalize(features - features.mean(0) if centred else features, dim=1)


def _count_similarity(seen: Explained, truth: np.ndarray) -> Counts:
    # The mean cosine of all pairs of two sets is the product of the means of their unit vectors: no pair is looked at.
    labels = _cells(seen, truth)
    member = F.one_hot(labels.clamp(max=len(seen.task.classes)), len(seen.task.classes) + 1)[:, :-1].double()
    number = member.sum(0)
    found: dict[str, list[np.ndarray]] = {"raw": [], "centred": [], "sums": []}
    for outputs in seen.passes:
        for kind in ("raw", "centred"):
            sums = member.T @ _units(outputs, kind == "centred")  # (C, D)
            products, pairs = sums @ sums.T, number[:, None] * number[None]
            # A feature is not a pair with itself.
            products, pairs = products - torch.diag(number), pairs - torch.diag(number)
            if kind == "centred":
                found["sums"].append(sums.numpy())
            found[kind].append(torch.where(pairs > 0, products / pairs.clamp(min=1), torch.nan).numpy())
    return {key: np.stack(values) for key, values in found.items()} | {"number": number.numpy()}


def _probe(task: SegmentationTask, source: Source, index: int, counts: Counts) -> np.ndarray:
    """Label an image's features by the nearest class mean of all *other* images; count (parts, C, 3) right, true, predicted."""
    seen = Explained(task, source.image(index))
    labels = _cells(seen, source.mask(index))
    valid, classes = labels != IGNORE, len(task.classes)
    known = torch.from_numpy(counts["number"].sum(0) - counts["number"][index] > 0)
    rows = []
    for part, outputs in enumerate(seen.passes):
        means = torch.from_numpy(counts["sums"][:, part].sum(0) - counts["sums"][index, part])
        scores = _units(outputs, True) @ F.normalize(means, dim=1).T
        predicted = scores.masked_fill(~known, -2).argmax(1)[valid].numpy()
        true = labels[valid].numpy()
        hit = predicted == true
        rows.append(np.stack([np.bincount(ids, minlength=classes) for ids in (true[hit], true, predicted)], 1))
    return np.stack(rows)


def _similarity(counts: Counts, classes: list[str]) -> dict[str, Any]:
    """Tell whether features of one class are more alike than those of different classes.

    Returns:
        ``raw`` (Fig. 4's cosine) and ``centred`` (after the image's mean feature is subtracted): ``within`` and ``between`` of
        each part, the mean over images of the mean over classes, or pairs of classes, that occur; ``gap``, their difference;
        ``change`` of all three, the last part minus the first with its 95 % interval over images; ``classes``, the similarity
        within each. ``probe``: mIoU of each part if features are labelled by the nearest class mean of the other images, and
        the last's minus the first's with its interval.
    """
    result: dict[str, Any] = {}
    off = ~np.eye(len(classes), dtype=bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Of classes and images that have none.
        for kind in ("raw", "centred"):
            matrices = counts[kind]  # (images, parts, C, C)
            within = np.nanmean(np.diagonal(matrices, axis1=2, axis2=3), -1)
            between = np.nanmean(matrices[..., off], -1)
            values = {"within": within, "between": between, "gap": within - between}
            result[kind] = {key: np.nanmean(value, 0).tolist() for key, value in values.items()}
            result[kind]["change"] = {key: _interval(value[:, -1] - value[:, 0]) for key, value in values.items()}
            by = np.nanmean(np.diagonal(matrices, axis1=2, axis2=3), 0)
            result[kind]["classes"] = [by_class(part, classes) for part in by]
    result["probe"] = {
        "mIoU": mean_iou(counts["probe"].sum(0)).tolist(),
        "gain": list(difference([counts["probe"][:, -1]], [counts["probe"][:, 0]])),
    }
    return result


def _interval(values: np.ndarray, draws: int = 2000) -> list[float]:
    """Return the mean over images and the bounds of its 95 % bootstrap interval; images without a value are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return [float("nan")] * 3
    picks = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return [float(values.mean()), float(low), float(high)]


def _count_offsets(seen: Explained, truth: np.ndarray, distance: np.ndarray) -> Counts:
    offsets = seen.offsets()
    height, width = offsets.shift.shape[:2]
    rows = ((np.arange(height) + 0.5) * truth.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * truth.shape[1] / width).astype(int)
    grid = np.ix_(rows, columns)
    valid = truth[grid] != IGNORE
    bins = _bins(distance[grid])[valid]
    length = np.hypot(offsets.shift[..., 0], offsets.shift[..., 1]).mean((2, 3))
    values = [np.ones_like(length), length]
    if offsets.modulation is not None:
        values.append(offsets.modulation.mean((2, 3)))
    return {"moved": np.array([np.bincount(bins, v[valid], minlength=len(BINS) + 1) for v in values])}


def _offsets(counts: Counts) -> dict[str, Any]:
    """Return the mean ``length`` of ADC's displacements, pixels of the image, and its mean ``modulation``, by distance."""
    moved = counts["moved"].sum(0)
    number = np.maximum(moved[0], 1)
    result = {"length": (moved[1] / number).tolist(), "mean_length": float(moved[1].sum() / max(moved[0].sum(), 1))}
    if len(moved) > 2:
        result["modulation"] = (moved[2] / number).tolist()
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
    """Average `cyclenet.explain.spread` near edges and in the middles of objects.

    Returns:
        ``edge`` and ``middle``: of each part the mean of each measure; ``edge_change`` and ``middle_change``, the last part's
        minus the first's with its 95 % interval over images; ``points``, each that was measured.
    """
    result: dict[str, Any] = {"points": found}
    measures = ("radius_50", "radius_90", "foreign")
    for where in ("edge", "middle"):
        by_part = [[row for row in found if row["where"] == where and row["part"] == part] for part in parts]
        result[where] = [{key: float(np.mean([row[key] for row in rows])) for key in measures} for rows in by_part if rows]
        if by_part[0]:
            change = {
                key: np.array([b[key] - a[key] for a, b in zip(by_part[0], by_part[-1], strict=True)]) for key in measures
            }
            result[f"{where}_change"] = {key: _interval(value) for key, value in change.items()}
    return result


def describe(result: dict[str, Any]) -> str:
    """Write an analysis as Markdown: tables, and a sentence for what changed from the first part to the last."""
    parts, several = result["parts"], len(result["parts"]) > 1
    text = [f"# Analysis over {result['images']} images", ""]
    if "feedback" in result:
        r = result["feedback"]
        text += ["## Prediction from each part", ""]
        rows = [
            [part, f"{100 * miou:.2f}", *(f"{100 * value:.1f}" for value in accuracy)]
            for part, miou, accuracy in zip(parts, r["mIoU"], r["accuracy"], strict=True)
        ]
        text += [markdown_table(["part", "mIoU, %", *(f"accuracy {b} px" for b in result["bins"])], rows), ""]
        if several:
            text += [
                f"{parts[-1]} minus {parts[0]}: {_signed(r['gain'], 100)} points of mIoU. The layers after CycleASPP were "
                f"trained on {parts[-1]} alone; a reading that favours neither is the nearest class mean, under similarity.",
                "",
            ]
        names = [[name, *(_percent(part[name]) for part in r["IoU"])] for name in result["classes"]]
        text += [markdown_table(["class", *(f"IoU {p}, %" for p in parts)], names), ""]
    if "similarity" in result:
        r = result["similarity"]
        text += ["## Cosine similarity of features", ""]
        rows = [
            [f"{p}, {kind}", *(f"{r[kind][key][i]:.3f}" for key in ("within", "between", "gap"))]
            for kind in ("raw", "centred")
            for i, p in enumerate(parts)
        ]
        text += [markdown_table(["part", "within a class", "between classes", "gap"], rows), ""]
        if several:
            for kind in ("raw", "centred"):
                change = r[kind]["change"]
                text.append(
                    f"{kind}: features of one class are {_more(change['within'], 'alike')} in {parts[-1]} "
                    f"({_signed(change['within'], 1, 3)}), those of different classes {_more(change['between'], 'alike')} "
                    f"({_signed(change['between'], 1, 3)}); the gap changes by {_signed(change['gap'], 1, 3)}."
                )
                text.append("")
        scores = ", ".join(f"{p} {100 * m:.2f}" for p, m in zip(parts, r["probe"]["mIoU"], strict=True))
        line = f"Features labelled by the nearest class mean of the other images, mIoU in %: {scores}"
        text += [line + (f"; change {_signed(r['probe']['gain'], 100)}." if several else "."), ""]
    if "offsets" in result:
        r = result["offsets"]
        text += ["## ADC by distance to the nearest edge", ""]
        rows = [["displacement, px", *(f"{v:.2f}" for v in r["length"])]]
        if "modulation" in r:
            rows.append(["modulation", *(f"{v:.3f}" for v in r["modulation"])])
        text += [markdown_table(["", *(f"{b} px" for b in result["bins"])], rows), ""]
    if "receptive_field" in result:
        r = result["receptive_field"]
        text += ["## Effective receptive field", ""]
        rows = [
            [f"{p}, {where}", f"{v['radius_50']:.1f}", f"{v['radius_90']:.1f}", f"{100 * v['foreign']:.1f}"]
            for where in ("edge", "middle")
            for p, v in zip(parts, r[where], strict=False)
        ]
        text += [markdown_table(["of a pixel", "half within, px", "nine tenths within, px", "on other classes, %"], rows), ""]
        for where, name in (("edge", "near an edge"), ("middle", "in the middle of an object")):
            if several and f"{where}_change" in r:
                change = r[f"{where}_change"]
                text += [
                    f"From {parts[0]} to {parts[-1]}, {name}: half within {_signed(change['radius_50'], 1)} px, "
                    f"on other classes {_signed(change['foreign'], 100)} points.",
                    "",
                ]
    return "\n".join(text)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _signed(change: list[float], scale: float, digits: int = 2) -> str:
    value, low, high = (scale * v for v in change)
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _more(change: list[float], word: str) -> str:
    if change[1] > 0:
        return f"more {word}"
    return f"less {word}" if change[2] < 0 else f"as {word} as far as one can tell"
