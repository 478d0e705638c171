"""What the figures of one image share: a grid of pictures, marks, titles and colour bars.

Colour maps are perceptually uniform and can be read by the colour-blind. Classes have the data
set's own colours, and their names beside them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from cyclenet.files import atomic_write
from cyclenet.plots.render import render

HEAT = "inferno"
Point = tuple[int, int]  # Column and row of a pixel.


def render_tight(figure: Figure, ending: str) -> bytes:
    """Return a figure as bytes, cut to what is drawn; letters stay letters in SVG."""
    letters = {"svg.fonttype": "none"}
    return render(figure, ending, bbox_inches="tight", pad_inches=0.03, rc=letters)


def save_formats(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure as ``path`` with each format's ending."""
    written = [path.with_name(f"{path.name}.{ending}") for ending in formats]
    for target, ending in zip(written, formats, strict=True):
        with atomic_write(target) as part:
            part.write_bytes(render_tight(figure, ending))
    return written


def grid(
    rows: int, columns: int, image: np.ndarray, width: float = 1.7
) -> tuple[Figure, np.ndarray]:
    """Return a figure of (rows, columns) axes for pictures of an image, ``width`` inches each."""
    # It is made too high on purpose: the layout packs the pictures, and `render_tight` cuts off
    # the rest.
    height = width * image.shape[0] / image.shape[1] + 0.4
    layout = ConstrainedLayoutEngine(
        w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.01, compress=True
    )
    figure = Figure(figsize=(columns * width + 0.6, rows * height + 0.5), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.set(xticks=[], yticks=[])
    return figure, axes


def show_map(axes: Axes, values: np.ndarray, **options: Any) -> Any:
    """Draw a map that has a value for each pixel of an image."""
    return axes.imshow(values, **({"interpolation": "nearest"} | options))


def show_heat(axes: Axes, values: np.ndarray, labels: np.ndarray, points: list[Point]) -> Any:
    """Draw a map in [0, 1] with the edges of the labels and marked pixels; return the image."""
    shown = show_map(axes, values, cmap=HEAT, vmin=0, vmax=1)
    draw_edges(axes, labels)
    mark(axes, points, labels.shape)
    return shown


def show_image(axes: Axes, image: np.ndarray, points: list[Point]) -> None:
    """Draw an image with marked pixels."""
    axes.imshow(image)
    mark(axes, points, image.shape[:2])


def mark(axes: Axes, points: list[Point], size: tuple[int, ...]) -> None:
    """Mark pixels with rings, and keep the axes to the image."""
    for x, y in points:
        axes.plot(x, y, "o", ms=5.5, mfc="none", mec="white", mew=2)
        axes.plot(x, y, "o", ms=5.5, mfc="none", mec="#d00000", mew=1.1)
    axes.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))


def draw_edges(axes: Axes, labels: np.ndarray) -> None:
    """Draw the edges between labels as white lines."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    lines: np.ndarray = np.ma.masked_equal(edge, False)
    white = ListedColormap(["white"])
    show_map(axes, lines, cmap=white, alpha=0.45, vmin=0, vmax=1)


def title(axes: Axes, text: str) -> None:
    """Write a title above a picture."""
    axes.set_title(text, fontsize=7, pad=2)


def side_title(axes: Axes, text: str) -> None:
    """Write a title beside a row."""
    axes.set_ylabel(text, fontsize=7)


def color_bar(figure: Figure, shown: Any, axes: Any, label: str, location: str = "right") -> None:
    """Draw the scale of a map."""
    bar = figure.colorbar(shown, ax=axes, shrink=0.9, pad=0.01, aspect=30, location=location)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=6)


def patches(names: Sequence[str], colors: Sequence[Any]) -> list[Patch]:
    """Return swatches with names, for a legend."""
    return [
        Patch(facecolor=color, edgecolor="#666666", lw=0.4, label=name)
        for name, color in zip(names, colors, strict=True)
    ]


def class_legend(
    figure: Figure, classes: list[str], palette: np.ndarray, present: list[int]
) -> None:
    """Name the classes that are shown, with their colours, under a figure."""
    handles = patches([classes[i] for i in present], [palette[i] / 255 for i in present])
    columns = max(int(figure.get_figwidth() / 0.95), 1)
    options = {"ncols": columns, "fontsize": 6, "frameon": False, "handlelength": 1.2}
    figure.legend(handles=handles, loc="outside lower center", **options)


def relative(values: np.ndarray) -> np.ndarray:
    """Return values as shares of the largest."""
    top = float(values.max())
    return values / top if top > 0 else values
