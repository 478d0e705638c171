"""Figures of whole images: ADC's offsets, predictions of the parts, the paper's Fig. 3."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cyclenet.lab.explain.canvas import (
    Point,
    class_legend,
    color_bar,
    grid,
    mark,
    patches,
    show_image,
    show_map,
    side_title,
    title,
)
from cyclenet.lab.explain.features import Explained, Offsets
from cyclenet.lab.explain.geometry import components
from cyclenet.labels import IGNORE
from cyclenet.plots.pictures import colorize, disagreement

# The colours are Okabe and Ito's, in the order of `changes`.
CHANGES = {
    "right in both": "#f2f2f2",
    "put right": "#0072b2",
    "made wrong": "#d55e00",
    "wrong in both": "#4d4d4d",
}
ARROWS = 18  # Rows of arrows in the figure of the offsets.


def offsets_figure(seen: Explained, points: list[Point]) -> Figure:
    """Draw what ADC does: displacement, modulation, features before and after, chosen samples."""
    found = seen.offsets
    weight = np.ones(found.shift.shape[:-1]) if found.modulation is None else found.modulation
    rows = 2 + -(-len(points) // 3)
    figure, axes = grid(rows, 3, seen.image, 2.4)
    where, length, factor, arrows, before, after = axes[:2].ravel()
    show_image(where, seen.image, points)
    title(where, "image")
    distance = np.hypot(found.shift[..., 0], found.shift[..., 1]).mean((2, 3))
    shown = show_map(length, seen.over_pixels(distance), cmap="viridis", vmin=0)
    color_bar(figure, shown, length, "pixels of the image", "bottom")
    title(length, "mean displacement")
    if found.modulation is None:
        place = {"ha": "center", "va": "center", "fontsize": 7, "transform": factor.transAxes}
        factor.text(0.5, 0.5, "none (model.mask_scale=0)", **place)
    else:
        shown = show_map(factor, seen.over_pixels(weight.mean((2, 3))), cmap="cividis")
        color_bar(figure, shown, factor, "factor", "bottom")
    title(factor, "mean modulation")
    _draw_arrows(arrows, seen, found, weight)
    show_map(before, seen.over_pixels(components(found.upsampled)))
    title(before, "context features, upsampled")
    show_map(after, seen.over_pixels(components(found.aligned)))
    title(after, "context features, aligned")
    for each, point in zip(axes[2:].ravel(), points, strict=False):
        _draw_samples(each, seen, found.positions, weight, point)
    for each in axes[2:].ravel()[len(points) :]:
        each.set_axis_off()
    return figure


def _draw_arrows(axes: Axes, seen: Explained, found: Offsets, weight: np.ndarray) -> None:
    """Draw the mean displacement by modulation, long enough to be seen."""
    shift, (height, width) = found.shift, found.shift.shape[:2]
    centre = shift.shape[3] // 2
    plain = (found.positions - shift)[:, :, 0, centre]
    total = np.maximum(weight.sum((2, 3)), 1e-12)[..., None]
    moved = (shift * weight[..., None]).sum((2, 3)) / total
    step = max(height // ARROWS, 1)
    places = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    chosen = moved[places[0], places[1]]
    usual = float(np.percentile(np.hypot(chosen[..., 0], chosen[..., 1]), 95))
    at = plain[places[0], places[1]].T.swapaxes(1, 2)
    apart = step * seen.size[1] / width
    longer = max(round(apart / usual), 1) if usual > 0 else 1
    axes.imshow(seen.image, alpha=0.45)
    vectors = (longer * chosen).T.swapaxes(1, 2)
    axes.quiver(*at, *vectors, angles="xy", scale_units="xy", scale=1, width=0.003, color="#a03000")
    mark(axes, [], seen.size)
    title(axes, f"mean displacement by modulation, {longer} x as long")


def _draw_samples(
    axes: Axes, seen: Explained, positions: np.ndarray, weight: np.ndarray, point: Point
) -> None:
    """Draw the samples (of each group of channels) that make one pixel, close up."""
    row, column = seen.cell(*point, positions.shape[:2])
    at, share = positions[row, column].reshape(-1, 2), weight[row, column].ravel()
    axes.imshow(seen.image, interpolation="nearest")
    for sample, size in zip(at, share / max(float(share.max()), 1e-12), strict=True):
        axes.plot(*zip(point, sample, strict=True), color="#56b4e9", lw=0.8)
        axes.plot(*sample, "o", ms=2 + 4 * float(size), color="#e69f00", mec="black", mew=0.4)
    mark(axes, [point], seen.size)
    reach = max(float(np.abs(at - point).max()) * 1.3, 12.0)
    across = reach / (seen.size[0] / seen.size[1])
    x, y = point
    axes.set(xlim=(x - across, x + across), ylim=(y + reach, y - reach))
    title(axes, f"samples of {x},{y} (size: modulation)")


def changes(
    first: np.ndarray, last: np.ndarray, truth: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Compare two predictions (H, W), pixel by pixel.

    Returns:
        0 right in both, 1 put right, 2 made wrong, 3 wrong in both; and which pixels count. Without
        a truth, 1 where they differ.
    """
    if truth is None:
        return (first != last).astype(np.uint8), np.ones(first.shape, bool)
    before, after = first == truth, last == truth
    kinds = np.where(before, np.where(after, 0, 2), np.where(after, 1, 3)).astype(np.uint8)
    return kinds, truth != IGNORE


def feedback_figure(seen: Explained, truth: np.ndarray | None) -> Figure:
    """Draw each part's prediction, its errors, and what changed from the first to the last."""
    palette = np.array(seen.model.palette, np.uint8)
    labels, several = seen.labels, len(seen.labels) > 1
    figure, axes = grid(2, 1 + len(labels) + several, seen.image, 1.9)
    axes[0, 0].imshow(seen.image)
    title(axes[0, 0], "image")
    present = [np.unique(each) for each in labels]
    if truth is None:
        axes[1, 0].set_axis_off()
    else:
        axes[1, 0].imshow(colorize(truth, palette), interpolation="nearest")
        title(axes[1, 0], "truth")
        present.append(np.unique(truth[truth != IGNORE]))
    for column, (part, each) in enumerate(zip(seen.parts, labels, strict=True), 1):
        axes[0, column].imshow(colorize(each, palette), interpolation="nearest")
        title(axes[0, column], f"prediction from {part}")
        _draw_errors(axes[1, column], seen.image, each, truth)
    if several:
        _draw_changes(axes[:, -1], labels[0], labels[-1], truth)
    found = np.unique(np.concatenate(present)).tolist()
    class_legend(figure, seen.model.classes, palette, found)
    return figure


def _draw_errors(
    axes: Axes, image: np.ndarray, labels: np.ndarray, truth: np.ndarray | None
) -> None:
    if truth is None:
        axes.set_axis_off()
        return
    wrong = (labels != truth) & (truth != IGNORE)
    picture = np.where(wrong[..., None], np.uint8(255), image // 3)
    axes.imshow(picture, interpolation="nearest")
    share = 100 * wrong.sum() / max((truth != IGNORE).sum(), 1)
    title(axes, f"errors in white: {share:.1f} % of pixels")


def _draw_changes(
    axes: np.ndarray, first: np.ndarray, last: np.ndarray, truth: np.ndarray | None
) -> None:
    """Draw what changed, and under it what the colours mean."""
    changed, counted = changes(first, last, truth)
    colors = list(CHANGES.values())
    picture: np.ndarray = np.ma.masked_array(changed, ~counted)
    options = {"cmap": ListedColormap(colors), "vmin": 0, "vmax": 3}
    axes[0].imshow(picture, interpolation="nearest", **options)
    text, names = "changed", {"the same": colors[0], "changed": colors[1]}
    if truth is not None:
        kinds = changed[counted]
        right, wrong = (100 * np.mean(kinds == k) if len(kinds) else 0.0 for k in (1, 2))
        text, names = f"put right {right:.1f} %, made wrong {wrong:.1f} %", CHANGES
    title(axes[0], text)
    axes[1].set_axis_off()
    handles = patches(list(names), list(names.values()))
    options = {"title": "first to last part", "title_fontsize": 7}
    axes[1].legend(handles=handles, loc="upper left", fontsize=7, frameon=False, **options)


class Predicted(NamedTuple):
    """An image (H, W, 3), its truth (H, W) or None, and predictions of it (H, W)."""

    image: np.ndarray
    truth: np.ndarray | None
    predictions: list[np.ndarray]


def figure3(
    columns: list[Predicted], titles: list[str], classes: list[str], palette: np.ndarray
) -> Figure:
    """Draw the paper's Fig. 3: a column an image, with its truth and predictions below it.

    Red squares show where most pixels are right in some predictions and wrong in others.

    Args:
        columns: the images.
        titles: names of the predictions.
        classes: names, by train id.
        palette: their colours.
    """
    any_truth = any(each.truth is not None for each in columns)
    lines = ["image", *(["truth"] if any_truth else []), *titles]
    figure, axes = grid(len(lines), len(columns), columns[0].image, 2.2)
    present: set[int] = set()
    for number, (image, truth, predictions) in enumerate(columns):
        shown = {"image": image}
        # An image without a truth, beside others that have one, leaves its place empty.
        if truth is not None:
            shown["truth"] = colorize(truth, palette)
        for name, prediction in zip(titles, predictions, strict=True):
            shown[name] = colorize(prediction, palette)
        several = truth is not None and len(predictions) > 1
        squares = disagreement(predictions, truth) if several and truth is not None else []
        for row, name in enumerate(lines):
            if name not in shown:
                continue
            axes[row, number].imshow(shown[name], interpolation="nearest")
            for left, top, side in squares:
                box = Rectangle((left, top), side, side, fill=False, ec="#d00000", lw=1)
                axes[row, number].add_patch(box)
        for each in [*predictions, *([] if truth is None else [truth])]:
            present |= set(np.unique(each).tolist())
    for row, name in enumerate(lines):
        side_title(axes[row, 0], name)
    class_legend(figure, classes, palette, sorted(present - {IGNORE}))
    return figure
