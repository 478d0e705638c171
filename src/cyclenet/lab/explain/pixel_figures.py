"""Figures of single pixels: similarity, Grad-CAM, the paper's Fig. 4, receptive fields."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cyclenet.lab.explain.canvas import (
    HEAT,
    Point,
    color_bar,
    grid,
    mark,
    relative,
    show_heat,
    show_image,
    show_map,
    side_title,
    title,
)
from cyclenet.lab.explain.features import Explained
from cyclenet.lab.explain.geometry import RADII, spread
from cyclenet.labels import IGNORE
from cyclenet.plots.render import color_of_part, new_figure


def similarity_figure(seen: Explained, x: int, y: int) -> Figure:
    """Draw the cosine similarity to one pixel's feature (Fig. 4 b, c).

    A row is a part, a column a layer; the last column is all layers together.
    """
    maps, labels = seen.similarity(x, y), seen.labels[-1]
    figure, axes = grid(len(seen.parts), len(seen.layers) + 1, seen.image)
    for row, part in enumerate(seen.parts):
        show_image(axes[row, 0], seen.image, [(x, y)])
        side_title(axes[row, 0], part)
        for column in range(len(seen.layers)):
            values = seen.over_pixels(maps[row, column])
            shown = show_heat(axes[row, column + 1], values, labels, [(x, y)])
    for column, name in enumerate(seen.layers, 1):
        title(axes[0, column], name)
    title(axes[0, 0], _pixel_title(seen, x, y))
    color_bar(figure, shown, axes, "cosine similarity")
    return figure


def _pixel_title(seen: Explained, x: int, y: int) -> str:
    return f"pixel {x},{y}: {seen.model.classes[seen.labels[-1][y, x]]}"


def grad_cam_figure(seen: Explained, x: int, y: int, target: int | None = None) -> Figure:
    """Draw the class activation map of one pixel's score in each part (Fig. 4 d, e).

    Each map is relative to its own maximum.
    """
    labels = seen.labels[-1]
    target = int(labels[y, x]) if target is None else target
    maps = seen.grad_cam(x, y, target)
    figure, axes = grid(1, len(seen.parts) + 1, seen.image, 2.2)
    show_image(axes[0, 0], seen.image, [(x, y)])
    title(axes[0, 0], _pixel_title(seen, x, y))
    for column, part in enumerate(seen.parts, 1):
        values = seen.over_pixels(relative(maps[column - 1]))
        shown = show_heat(axes[0, column], values, labels, [(x, y)])
        title(axes[0, column], f"{part}: score of {seen.model.classes[target]}")
    color_bar(figure, shown, axes, "activation / maximum")
    return figure


class PixelMaps(NamedTuple):
    """What a row of `figure4` shows of one pixel, without the features that it was made from.

    Attributes:
        image: (H, W, 3).
        labels: (H, W), predicted.
        point: (x, y).
        name: the class that is predicted there, or whose score Grad-CAM explains.
        parts: names of the first and the last part, or of the only one.
        similarity: (parts, H, W), to the concatenated features.
        activation: (parts, H, W).
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
    name = seen.model.classes[int(labels[y, x]) if target is None else target]
    maps = seen.similarity(x, y)[kept, -1], seen.grad_cam(x, y, target)[kept]
    similarity, activation = (np.stack([seen.over_pixels(each) for each in m]) for m in maps)
    parts = [seen.parts[k] for k in kept]
    return PixelMaps(seen.image, labels, (x, y), name, parts, similarity, activation)


def figure4(rows: list[PixelMaps]) -> Figure:
    """Draw the paper's Fig. 4, a row a pixel.

    The columns are the image, similarity in the first and the last part, activation in both.
    """
    parts = rows[0].parts
    figure, axes = grid(len(rows), 1 + 2 * len(parts), rows[0].image)
    for line, row in zip(axes, rows, strict=True):
        show_image(line[0], row.image, [row.point])
        side_title(line[0], f"{row.name} {row.point[0]},{row.point[1]}")
        maps = [*row.similarity, *(relative(values) for values in row.activation)]
        for each, values in zip(line[1:], maps, strict=True):
            shown = show_heat(each, values, row.labels, [row.point])
    names = ["image", *(f"similarity, {part}" for part in parts)]
    names += [f"Grad-CAM, {part}" for part in parts]
    for letter, each, name in zip("abcdefg", axes[0], names, strict=False):
        title(each, f"({letter}) {name}")
    color_bar(figure, shown, axes, "cosine similarity; activation / maximum")
    return figure


def receptive_field_figure(
    seen: Explained, points: list[Point], truth: np.ndarray | None = None
) -> Figure:
    """Draw the effective receptive field of pixels in each part.

    Circles hold half and nine tenths of it. The share on other classes is by the truth, or by the
    prediction where there is none.
    """
    labels = seen.labels[-1] if truth is None else truth
    figure, axes = grid(len(points), len(seen.parts) + 1, seen.image, 2.2)
    for row, (x, y) in enumerate(points):
        fields = seen.receptive_field(x, y)
        top = max(float(np.quantile(fields, 0.999)), 1e-12)
        show_image(axes[row, 0], seen.image, [(x, y)])
        side_title(axes[row, 0], f"pixel {x},{y}")
        for each, part, field in zip(axes[row, 1:], seen.parts, fields, strict=True):
            # The root shows the wide and faint rest of the field.
            values = np.sqrt(np.minimum(field / top, 1))
            shown = show_map(each, values, cmap=HEAT, vmin=0, vmax=1)
            found = spread(field, x, y, labels if labels[y, x] != IGNORE else None)
            angle = np.linspace(0, 2 * np.pi, 100)
            for share, style in zip(RADII, ("-", "--"), strict=True):
                radius = found[f"radius_{share}"]
                circle = x + radius * np.cos(angle), y + radius * np.sin(angle)
                each.plot(*circle, style, color="#56b4e9", lw=0.9)
            mark(each, [(x, y)], seen.size)
            half, most = found["radius_50"], found["radius_90"]
            text = f"{part}: 50 % in {half:.0f} px, 90 % in {most:.0f} px"
            if "foreign" in found:
                text += f"\n{100 * found['foreign']:.0f} % on other classes"
            title(each, text)
    color_bar(figure, shown, axes, "root of the gradient's norm, relative")
    return figure


def probabilities_figure(seen: Explained, x: int, y: int, count: int = 6) -> Figure:
    """Draw the ``count`` largest class probabilities at a pixel in each part."""
    values = seen.probabilities(x, y)
    order = values.max(0).argsort()[::-1][:count]
    figure = new_figure(3.4, 0.5 + 0.3 * len(order))
    axes = figure.subplots()
    height = 0.8 / len(seen.parts)
    for number, part in enumerate(seen.parts):
        places = np.arange(len(order)) + number * height
        width = 100 * values[number, order]
        axes.barh(places, width, height, color=color_of_part(number), label=part)
    names = [seen.model.classes[i] for i in order]
    axes.set_yticks(np.arange(len(order)) + 0.4 - height / 2, names, fontsize=7)
    axes.set(ylim=(len(order), -0.3), xlim=(0, 100))
    axes.set_xlabel("probability, %", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.legend(fontsize=6, frameon=False)
    axes.set_title(f"pixel {x},{y}", fontsize=7)
    return figure
