"""Figures of what a network makes of an image, for papers: PNG, PDF and SVG, the same bytes every time.

Colour maps are perceptually uniform and can be read by the colour-blind; classes have the data set's own colours, and their
names beside them.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from cyclenet.data.images import IGNORE
from cyclenet.lab.explain.features import Explained, components, spread
from cyclenet.plots.charts import COLORS
from cyclenet.plots.pictures import colorize, disagreement

HEAT = "inferno"
FORMATS = ("png", "pdf", "svg")
# Okabe and Ito's: both right, put right, made wrong, both wrong.
CHANGES = {"right in both": "#f2f2f2", "put right": "#0072b2", "made wrong": "#d55e00", "wrong in both": "#4d4d4d"}
Point = tuple[int, int]


def render(figure: Figure, ending: str) -> bytes:
    """Return a figure as the bytes of a png, pdf or svg file, without dates; 300 dots an inch where it is made of dots."""
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[ending]
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "cyclenet", "pdf.fonttype": 42, "svg.fonttype": "none"}):
        figure.savefig(buffer, format=ending, dpi=300, metadata=metadata, bbox_inches="tight", pad_inches=0.03)
    return buffer.getvalue()


def save(figure: Figure, path: Path, formats: list[str]) -> list[Path]:
    """Write a figure as ``path`` with each format's ending; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(f"{path.name}.{ending}") for ending in formats]
    for target, ending in zip(written, formats, strict=True):
        target.write_bytes(render(figure, ending))
    return written


def _grid(rows: int, columns: int, image: np.ndarray, width: float = 1.7) -> tuple[Figure, np.ndarray]:
    # Somewhat higher than needed: a grid of pictures moves together, and what is left over is cut off (`save`).
    size = (columns * width + 0.6, rows * (width * image.shape[0] / image.shape[1] + 0.4) + 0.5)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.01, compress=True)
    figure = Figure(figsize=size, layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.set(xticks=[], yticks=[])
    return figure, axes


def _show(axes: Axes, values: np.ndarray, size: tuple[int, int], **options: Any) -> Any:
    # In pixels of the image, whatever the map's own resolution.
    height, width = size
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(values, extent=extent, **({"interpolation": "nearest"} | options))


def _mark(axes: Axes, points: list[Point], size: tuple[int, int], ring: bool = True) -> None:
    for x, y in points:
        if ring:
            axes.plot(x, y, "o", ms=5.5, mfc="none", mec="white", mew=2)
        axes.plot(x, y, "o", ms=5.5, mfc="none", mec="#d00000", mew=1.1)
    axes.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))


def _edges(axes: Axes, labels: np.ndarray) -> None:
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    _show(axes, np.ma.masked_equal(edge, False), labels.shape, cmap=ListedColormap(["white"]), alpha=0.45, vmin=0, vmax=1)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=7, pad=2)


def _side(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=7)


def _bar(figure: Figure, shown: Any, axes: Any, label: str, location: str = "right") -> None:
    bar = figure.colorbar(shown, ax=axes, shrink=0.9, pad=0.01, aspect=30, location=location)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=6)


def similarity(seen: Explained, x: int, y: int) -> Figure:
    """Draw the cosine similarity to one pixel's feature: a row a part, a column a layer, last all together (Fig. 4 b, c)."""
    maps, labels = seen.similarity(x, y), seen.labels[-1]
    figure, axes = _grid(len(seen.parts), len(seen.layers) + 1, seen.image)
    for row, part in enumerate(seen.parts):
        axes[row, 0].imshow(seen.image)
        _mark(axes[row, 0], [(x, y)], seen.size)
        _side(axes[row, 0], part)
        for column, name in enumerate(seen.layers):
            shown = _show(axes[row, column + 1], maps[row, column], seen.size, cmap=HEAT, vmin=0, vmax=1)
            _edges(axes[row, column + 1], labels)
            _mark(axes[row, column + 1], [(x, y)], seen.size)
            if row == 0:
                _title(axes[row, column + 1], name)
    _title(axes[0, 0], f"pixel {x},{y}: {_named(seen, labels[y, x])}")
    _bar(figure, shown, axes, "cosine similarity")
    return figure


def _named(seen: Explained, label: int) -> str:
    return seen.task.classes[label]


def grad_cam(seen: Explained, x: int, y: int, target: int | None = None) -> Figure:
    """Draw the class activation map of one pixel's score in each part, each relative to its own maximum (Fig. 4 d, e)."""
    labels = seen.labels[-1]
    target = int(labels[y, x]) if target is None else target
    maps = seen.grad_cam(x, y, target)
    figure, axes = _grid(1, len(seen.parts) + 1, seen.image, 2.2)
    axes[0, 0].imshow(seen.image)
    _mark(axes[0, 0], [(x, y)], seen.size)
    _title(axes[0, 0], f"pixel {x},{y}: {_named(seen, labels[y, x])}")
    for column, part in enumerate(seen.parts, 1):
        shown = _activation(axes[0, column], maps[column - 1], labels, (x, y))
        _title(axes[0, column], f"{part}: score of {_named(seen, target)}")
    _bar(figure, shown, axes, "activation / maximum")
    return figure


def _activation(axes: Axes, values: np.ndarray, labels: np.ndarray, point: Point) -> Any:
    top = float(values.max())
    shown = _show(axes, values / top if top > 0 else values, labels.shape, cmap=HEAT, vmin=0, vmax=1)
    _edges(axes, labels)
    _mark(axes, [point], labels.shape)
    return shown


class PixelMaps(NamedTuple):
    """What a row of `figure4` shows of one pixel, without the features that it was made from.

    Attributes:
        image: (H, W, 3).
        labels: (H, W), predicted.
        point: (x, y).
        name: the class that is predicted there, or whose score Grad-CAM explains.
        parts: names of the first and the last part; of one where there is one.
        similarity: (parts, h, w), to the concatenated features.
        activation: (parts, h, w).
    """

    image: np.ndarray
    labels: np.ndarray
    point: Point
    name: str
    parts: list[str]
    similarity: np.ndarray
    activation: np.ndarray


def pixel_maps(seen: Explained, x: int, y: int, target: int | None = None) -> PixelMaps:
    """Compute a row of `figure4`."""
    kept = [0, -1] if len(seen.parts) > 1 else [0]
    labels = seen.labels[-1]
    name = _named(seen, int(labels[y, x]) if target is None else target)
    maps, activation = seen.similarity(x, y)[kept, -1], seen.grad_cam(x, y, target)[kept]
    return PixelMaps(seen.image, labels, (x, y), name, [seen.parts[k] for k in kept], maps, activation)


def figure4(rows: list[PixelMaps]) -> Figure:
    """Draw the paper's Fig. 4: image, similarity in the first and the last part, activation in both; a row a pixel."""
    kinds = rows[0].parts
    figure, axes = _grid(len(rows), 1 + 2 * len(kinds), rows[0].image)
    letters = iter("abcdefg")
    _title(axes[0, 0], f"({next(letters)}) image")
    for line, row in zip(axes, rows, strict=True):
        size = row.labels.shape
        line[0].imshow(row.image)
        _mark(line[0], [row.point], size)
        _side(line[0], f"{row.name} {row.point[0]},{row.point[1]}")
        for column in range(len(kinds)):
            shown = _show(line[1 + column], row.similarity[column], size, cmap=HEAT, vmin=0, vmax=1)
            _edges(line[1 + column], row.labels)
            _mark(line[1 + column], [row.point], size)
            _activation(line[1 + column + len(kinds)], row.activation[column], row.labels, row.point)
    for column, kind in enumerate(kinds, 1):
        _title(axes[0, column], f"({next(letters)}) similarity, {kind}")
    for column, kind in enumerate(kinds, 1 + len(kinds)):
        _title(axes[0, column], f"({next(letters)}) Grad-CAM, {kind}")
    _bar(figure, shown, axes, "cosine similarity; activation / maximum")
    return figure


def offsets(seen: Explained, points: list[Point]) -> Figure:
    """Draw how far ADC moves its samples, its modulation, features before and after, and the samples of chosen pixels."""
    found = seen.offsets
    height, width = found.shift.shape[:2]
    zoom = np.array([seen.size[1] / width, seen.size[0] / height])
    rows = 2 + -(-len(points) // 3)
    figure, axes = _grid(rows, 3, seen.image, 2.4)
    where, length, factor, arrows, before, after = axes[:2].ravel()
    where.imshow(seen.image)
    _mark(where, points, seen.size)
    _title(where, "image")
    distance = np.hypot(found.shift[..., 0], found.shift[..., 1]).mean((2, 3))
    _bar(figure, _show(length, distance, seen.size, cmap="viridis", vmin=0), length, "pixels of the image", "bottom")
    _title(length, "mean displacement")
    weight = np.ones(found.shift.shape[:-1]) if found.modulation is None else found.modulation
    if found.modulation is None:
        factor.text(0.5, 0.5, "none (model.mask_scale=0)", ha="center", va="center", fontsize=7, transform=factor.transAxes)
    else:
        _bar(figure, _show(factor, weight.mean((2, 3)), seen.size, cmap="cividis"), factor, "factor", "bottom")
    _title(factor, "mean modulation")
    moved = (found.shift * weight[..., None]).sum((2, 3)) / np.maximum(weight.sum((2, 3)), 1e-12)[..., None]
    step = max(height // 18, 1)
    grid = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    chosen = moved[grid[0], grid[1]]
    usual = float(np.percentile(np.hypot(chosen[..., 0], chosen[..., 1]), 95))
    longer = max(round(step * float(zoom[0]) / usual), 1) if usual > 0 else 1
    at = ((grid + 0.5) * zoom[::-1, None, None] - 0.5)[::-1]
    arrows.imshow(seen.image, alpha=0.45)
    arrows.quiver(
        *at, *(longer * chosen).T.swapaxes(1, 2), angles="xy", scale_units="xy", scale=1, width=0.003, color="#a03000"
    )
    _mark(arrows, [], seen.size)
    _title(arrows, f"mean displacement by modulation, {longer} x as long")
    _show(before, components(found.upsampled), seen.size)
    _title(before, "context features, upsampled")
    _show(after, components(found.aligned), seen.size)
    _title(after, "context features, aligned")
    for each, (x, y) in zip(axes[2:].ravel(), points, strict=False):
        _samples(each, seen, found.positions, weight, (x, y))
    for each in axes[2:].ravel()[len(points) :]:
        each.set_axis_off()
    return figure


def _samples(axes: Axes, seen: Explained, positions: np.ndarray, weight: np.ndarray, point: Point) -> None:
    # The nine samples (of each group of channels) that make one pixel, close up.
    row, column = seen.cell(*point, positions.shape[:2])
    at, share = positions[row, column].reshape(-1, 2), weight[row, column].ravel()
    axes.imshow(seen.image, interpolation="nearest")
    for sample, size in zip(at, share / max(float(share.max()), 1e-12), strict=True):
        axes.plot(*zip(point, sample, strict=True), color="#56b4e9", lw=0.8)
        axes.plot(*sample, "o", ms=2 + 4 * float(size), color="#e69f00", mec="black", mew=0.4)
    _mark(axes, [point], seen.size)
    reach = max(float(np.abs(at - point).max()) * 1.3, 12.0)
    shape = seen.size[0] / seen.size[1]
    axes.set(xlim=(point[0] - reach / shape, point[0] + reach / shape), ylim=(point[1] + reach, point[1] - reach))
    _title(axes, f"samples of {point[0]},{point[1]} (size: modulation)")


def receptive_field(seen: Explained, points: list[Point], truth: np.ndarray | None = None) -> Figure:
    """Draw the effective receptive field of pixels in each part; circles hold half and nine tenths of it.

    The share on other classes is by the truth, or by the prediction where there is none.
    """
    labels = seen.labels[-1] if truth is None else truth
    figure, axes = _grid(len(points), len(seen.parts) + 1, seen.image, 2.2)
    for row, (x, y) in enumerate(points):
        fields = seen.receptive_field(x, y)
        top = max(np.quantile(fields, 0.999), 1e-12)
        axes[row, 0].imshow(seen.image)
        _mark(axes[row, 0], [(x, y)], seen.size)
        _side(axes[row, 0], f"pixel {x},{y}")
        for column, (part, field) in enumerate(zip(seen.parts, fields, strict=True), 1):
            # The root shows the wide and faint rest of it.
            shown = _show(axes[row, column], np.sqrt(np.minimum(field / top, 1)), seen.size, cmap=HEAT, vmin=0, vmax=1)
            measured = spread(field, x, y, labels if labels[y, x] != IGNORE else None)
            angle = np.linspace(0, 2 * np.pi, 100)
            for share, style in ((50, "-"), (90, "--")):
                radius = measured[f"radius_{share}"]
                axes[row, column].plot(x + radius * np.cos(angle), y + radius * np.sin(angle), style, color="#56b4e9", lw=0.9)
            _mark(axes[row, column], [(x, y)], seen.size)
            text = f"{part}: 50 % in {measured['radius_50']:.0f} px, 90 % in {measured['radius_90']:.0f} px"
            if "foreign" in measured:
                text += f"\n{100 * measured['foreign']:.0f} % on other classes"
            _title(axes[row, column], text)
    _bar(figure, shown, axes, "root of the gradient's norm, relative")
    return figure


def _patches(names: list[str], colors: list[Any]) -> list[Patch]:
    return [Patch(facecolor=color, edgecolor="#666666", lw=0.4, label=name) for name, color in zip(names, colors, strict=True)]


def _legend(figure: Figure, classes: list[str], palette: np.ndarray, present: list[int]) -> None:
    handles = _patches([classes[i] for i in present], [palette[i] / 255 for i in present])
    columns = max(int(figure.get_figwidth() / 0.95), 1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=6, frameon=False, handlelength=1.2)


def changes(first: np.ndarray, last: np.ndarray, truth: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Compare two predictions (H, W): 0 right in both, 1 put right, 2 made wrong, 3 wrong in both; and which pixels count.

    Without a truth: 1 where they differ.
    """
    if truth is None:
        return (first != last).astype(np.uint8), np.ones(first.shape, bool)
    before, after = first == truth, last == truth
    kinds = np.where(before, np.where(after, 0, 2), np.where(after, 1, 3)).astype(np.uint8)
    return kinds, truth != IGNORE


def _changes(axes: np.ndarray, first: np.ndarray, last: np.ndarray, truth: np.ndarray | None) -> None:
    # The picture, and under it what its colours mean.
    changed, counted = changes(first, last, truth)
    colors = list(CHANGES.values())
    picture = np.ma.masked_array(changed, ~counted)
    axes[0].imshow(picture, cmap=ListedColormap(colors), vmin=0, vmax=3, interpolation="nearest")
    text, names = "changed", {"the same": colors[0], "changed": colors[1]}
    if truth is not None:
        right, wrong = (100 * (changed[counted] == kind).mean() if counted.any() else 0.0 for kind in (1, 2))
        text, names = f"put right {right:.1f} %, made wrong {wrong:.1f} %", CHANGES
    _title(axes[0], text)
    axes[1].set_axis_off()
    handles = _patches(list(names), list(names.values()))
    axes[1].legend(handles=handles, loc="upper left", fontsize=7, frameon=False, title="first to last part", title_fontsize=7)


def feedback(seen: Explained, truth: np.ndarray | None) -> Figure:
    """Draw each part's prediction, its errors, and what changed from the first part to the last."""
    palette = np.array(seen.task.palette, np.uint8)
    labels = seen.labels
    # Of a model with one part nothing changes.
    several = len(labels) > 1
    figure, axes = _grid(2, 1 + len(labels) + several, seen.image, 1.9)
    axes[0, 0].imshow(seen.image)
    _title(axes[0, 0], "image")
    present = [np.unique(each) for each in labels]
    if truth is None:
        axes[1, 0].set_axis_off()
    else:
        axes[1, 0].imshow(colorize(truth, palette), interpolation="nearest")
        _title(axes[1, 0], "truth")
        present.append(np.unique(truth[truth != IGNORE]))
    for column, (part, each) in enumerate(zip(seen.parts, labels, strict=True), 1):
        axes[0, column].imshow(colorize(each, palette), interpolation="nearest")
        _title(axes[0, column], f"prediction from {part}")
        if truth is None:
            axes[1, column].set_axis_off()
            continue
        wrong = (each != truth) & (truth != IGNORE)
        axes[1, column].imshow(np.where(wrong[..., None], np.uint8(255), seen.image // 3), interpolation="nearest")
        share = 100 * wrong.sum() / max((truth != IGNORE).sum(), 1)
        _title(axes[1, column], f"errors in white: {share:.1f} % of pixels")
    if several:
        _changes(axes[:, -1], labels[0], labels[-1], truth)
    _legend(figure, seen.task.classes, palette, np.unique(np.concatenate(present)).tolist())
    return figure


def figure3(
    rows: list[tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]],
    titles: list[str],
    classes: list[str],
    palette: np.ndarray,
) -> Figure:
    """Draw the paper's Fig. 3: a column an image; rows: image, truth, predictions.

    Red squares show where most pixels are right in some predictions and wrong in others.

    Args:
        rows: (image, truth or None, predictions), an image each.
        titles: of the predictions.
        classes: names, by train id.
        palette: their colours.
    """
    lines = ["image", *(["truth"] if any(truth is not None for _, truth, _ in rows) else []), *titles]
    figure, axes = _grid(len(lines), len(rows), rows[0][0], 2.2)
    present: set[int] = set()
    for column, (image, truth, predictions) in enumerate(rows):
        shown = [
            image,
            *([colorize(truth, palette)] if truth is not None else []),
            *(colorize(p, palette) for p in predictions),
        ]
        boxes = disagreement(predictions, truth) if truth is not None and len(predictions) > 1 else []
        # An image without a truth, beside others that have one, leaves its place empty.
        places = [row for row, name in enumerate(lines) if not (name == "truth" and truth is None)]
        for row, picture in zip(places, shown, strict=True):
            axes[row, column].imshow(picture, interpolation="nearest")
            for left, top, side in boxes:
                axes[row, column].add_patch(Rectangle((left, top), side, side, fill=False, ec="#d00000", lw=1))
        for each in [*predictions, *([truth] if truth is not None else [])]:
            present |= set(np.unique(each).tolist())
    for row, name in enumerate(lines):
        _side(axes[row, 0], name)
    _legend(figure, classes, palette, sorted(present - {IGNORE}))
    return figure


def probabilities(seen: Explained, x: int, y: int, count: int = 6) -> Figure:
    """Draw the class probabilities at a pixel in each part, the ``count`` largest."""
    values = seen.probabilities(x, y)
    order = values.max(0).argsort()[::-1][:count]
    figure = Figure(figsize=(3.4, 0.5 + 0.3 * len(order)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(seen.parts)
    for number, part in enumerate(seen.parts):
        axes.barh(
            np.arange(len(order)) + number * height,
            100 * values[number, order],
            height,
            color=COLORS[2 + 3 * number % 6],
            label=part,
        )
    axes.set_yticks(np.arange(len(order)) + 0.4 - height / 2, [seen.task.classes[i] for i in order], fontsize=7)
    axes.set(ylim=(len(order), -0.3), xlim=(0, 100))
    axes.set_xlabel("probability, %", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.legend(fontsize=6, frameon=False)
    axes.set_title(f"pixel {x},{y}", fontsize=7)
    return figure


def analysis(result: dict[str, Any]) -> dict[str, Figure]:
    """Draw what `cyclenet.lab.explain.analysis.analyse` found, a figure a topic."""
    figures, parts = {}, result["parts"]
    colors = [COLORS[(2 + 3 * number) % len(COLORS)] for number in range(len(parts))]
    bins = np.arange(len(result["bins"]))
    if "feedback" in result:
        found = result["feedback"]
        figure = Figure(figsize=(max(7.2, 0.3 * len(result["classes"]) + 3), 2.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[2, 1])
        _class_bars(left, [list(by.values()) for by in found["IoU"]], parts, colors, result["classes"], 100)
        left.set_ylabel("IoU, %", fontsize=8)
        for part, accuracy, color in zip(parts, found["accuracy"], colors, strict=True):
            right.plot(bins, 100 * np.array(accuracy, float), "o-", ms=3, color=color, label=part)  # None becomes NaN.
        _distances(right, bins, result["bins"], "right pixels, %")
        right.legend(fontsize=6, frameon=False)
        figures["feedback"] = figure
    if "similarity" in result:
        found = result["similarity"]
        figure = Figure(figsize=(max(7.2, 0.3 * len(result["classes"]) + 3), 2.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 2])
        for number, part in enumerate(parts):
            values = np.array([found[kind][key][number] for kind in ("raw", "centred") for key in ("within", "between")], float)
            left.bar(np.arange(4) + number * 0.8 / len(parts), values, 0.8 / len(parts), color=colors[number], label=part)
        names = ["within,\nraw", "between,\nraw", "within,\ncentred", "between,\ncentred"]
        left.set_xticks(np.arange(4) + 0.4 - 0.4 / len(parts), names, fontsize=6)
        left.set_ylabel("mean cosine similarity", fontsize=8)
        left.axhline(0, color="black", lw=0.5)
        left.tick_params(axis="y", labelsize=6)
        left.legend(fontsize=6, frameon=False)
        _class_bars(right, [list(by.values()) for by in found["raw"]["classes"]], parts, colors, result["classes"], 1)
        right.set_ylabel("similarity within a class, raw", fontsize=8)
        figures["similarity"] = figure
    if "offsets" in result:
        found = result["offsets"]
        figure = Figure(figsize=(3.6, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(bins, np.array(found["length"], float), "o-", ms=3, color=COLORS[5], label="displacement")
        _distances(axes, bins, result["bins"], "mean displacement, pixels")
        axes.set_ylim(bottom=0)
        if "modulation" in found:
            other = axes.twinx()
            other.plot(bins, np.array(found["modulation"], float), "s--", ms=3, color=COLORS[4], label="modulation")
            other.set_ylabel("mean modulation", fontsize=8)
            other.tick_params(labelsize=6)
        lines = [Line2D([], [], color=COLORS[5], marker="o", ms=3, label="displacement")]
        lines += [Line2D([], [], color=COLORS[4], marker="s", ms=3, ls="--", label="modulation")] * ("modulation" in found)
        figure.legend(handles=lines, loc="outside upper center", ncols=2, fontsize=6, frameon=False)
        figures["offsets"] = figure
    if result.get("receptive_field", {}).get("points"):
        figures["receptive_field"] = _fields(result["receptive_field"], parts, colors)
    return figures


def _fields(found: dict[str, Any], parts: list[str], colors: list[str]) -> Figure:
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    rng = np.random.default_rng(0)  # Points beside each other rather than on each other.
    measures = {
        "radius_50": "radius that holds half, pixels",
        "radius_90": "radius of nine tenths, pixels",
        "foreign": "on other classes, %",
    }
    for axes, (key, label) in zip(figure.subplots(1, 3), measures.items(), strict=True):
        scale = 100 if key == "foreign" else 1
        for group, where in enumerate(("edge", "middle")):
            for number, part in enumerate(parts):
                values = [scale * p[key] for p in found["points"] if p["where"] == where and p["part"] == part]
                at = group + (number + 0.5) * 0.7 / len(parts)
                axes.plot(at + rng.uniform(-0.05, 0.05, len(values)), values, ".", ms=3, color=colors[number], alpha=0.6)
                if values:
                    axes.plot(
                        [at - 0.12, at + 0.12],
                        [np.mean(values)] * 2,
                        color=colors[number],
                        lw=2,
                        label=part if not group else None,
                    )
        axes.set_xticks([0.35, 1.35], ["near an edge", "middle of\nan object"], fontsize=7)
        axes.set_ylabel(label, fontsize=8)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=6)
    axes.legend(fontsize=6, frameon=False)
    return figure


def _class_bars(
    axes: Axes, rows: list[list[Any]], parts: list[str], colors: list[str], classes: list[str], scale: float
) -> None:
    at = np.arange(len(classes))
    for number, values in enumerate(rows):
        heights = [scale * (v if v is not None else np.nan) for v in values]
        axes.bar(at + number * 0.8 / len(parts), heights, 0.8 / len(parts), color=colors[number], label=parts[number])
    axes.set_xticks(at + 0.4 - 0.4 / len(parts), classes, rotation=60, ha="right", fontsize=6, rotation_mode="anchor")
    axes.tick_params(axis="y", labelsize=6)
    axes.legend(fontsize=6, frameon=False)


def _distances(axes: Axes, bins: np.ndarray, names: list[str], label: str) -> None:
    axes.set_xticks(bins, names, fontsize=6)
    axes.set_xlabel("distance to the nearest true edge, pixels", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(axis="y", labelsize=6)
    axes.grid(alpha=0.3)
