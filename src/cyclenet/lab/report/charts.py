"""Charts that compare arms: curves, dots, a heat map, score against cost."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from cyclenet.plots.render import COLORS, new_figure, save_figure


class Curve(NamedTuple):
    """The curves of one arm, one a seed."""

    label: str
    x: list[list[float]]
    y: list[list[float]]


def curves_chart(path: Path, curves: list[Curve], xlabel: str, ylabel: str) -> None:
    """Draw one colour an arm: a thin line a seed, and a thick one for their mean.

    There is a mean where all seeds have the same x.
    """
    figure = new_figure(7.5, 4 + 0.2 * len(curves))
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        style = ("-", "--", ":")[number // len(COLORS) % 3]
        for x, y in zip(curve.x, curve.y, strict=True):
            width, alpha = (0.8, 0.5) if len(curve.x) > 1 else (1.8, 1.0)
            # Dots, because a line of one point would not be seen.
            marker = "." if len(x) < 20 else ""
            axes.plot(x, y, style, color=color, lw=width, alpha=alpha, marker=marker, ms=3)
        if len(curve.x) > 1 and len({tuple(x) for x in curve.x}) == 1:
            axes.plot(curve.x[0], np.mean(curve.y, 0), style, color=color, lw=2)
        axes.plot([], [], style, color=color, lw=2, label=curve.label)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    # Names of arms are long: inside the axes they would hide the curves.
    figure.legend(loc="outside lower left", fontsize=8)
    save_figure(figure, path)


def dots_chart(path: Path, rows: list[tuple[str, list[float]]], xlabel: str) -> None:
    """Draw a line for each arm: a dot a seed, and a bar at their mean."""
    longest = max(len(label) for label, _ in rows)
    figure = new_figure(6 + 0.06 * longest, 1.2 + 0.32 * len(rows))
    axes = figure.subplots()
    for y, (_, values) in enumerate(rows):
        color, mean = COLORS[y % len(COLORS)], float(np.mean(values))
        axes.plot(values, [y] * len(values), "o", mfc="none", color=color)
        axes.plot([mean, mean], [y - 0.3, y + 0.3], color=color, lw=2)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)


def heat_map(
    path: Path, values: np.ndarray, rows: list[str], columns: list[str], title: str
) -> None:
    """Draw IoU (rows, columns) in percent, coloured by the difference to the first row.

    NaN is left empty.
    """
    change = values - values[:1]
    reach = max(float(np.nanmax(np.abs(change), initial=0)), 1.0)
    width = 2.5 + 0.11 * max(map(len, rows)) + 0.5 * len(columns)
    figure = new_figure(min(width, 60), 1.6 + 0.34 * len(rows))
    axes = figure.subplots()
    shown = axes.imshow(change, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
        color = "white" if abs(change[i, j]) > 0.7 * reach else "black"
        text = f"{values[i, j]:.1f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(shown, label="difference to the first row", pad=0.01)
    axes.set_title(title, fontsize=9)
    save_figure(figure, path)


class CostPoint(NamedTuple):
    """An arm's GFLOPs with each module counted once, as executed, and its mIoU in percent."""

    label: str
    once: float
    executed: float
    miou: float


def cost_chart(path: Path, points: list[CostPoint], paper: list[tuple[str, float, float]]) -> None:
    """Draw mIoU against GFLOPs: each arm from what is counted once to what is executed.

    Args:
        path: file of the picture.
        points: the arms.
        paper: label, GFLOPs and mIoU as printed in the paper.
    """
    figure = new_figure(7 + 4 * bool(paper), 4 + 0.2 * len(points))
    panels = figure.subplots(1, 1 + bool(paper), squeeze=False)
    axes = panels[0, 0]
    for number, (label, once, executed, miou) in enumerate(points):
        color = COLORS[number % len(COLORS)]
        axes.plot([once, executed], [miou, miou], color=color, lw=1)
        marker = "osD"[number // len(COLORS) % 3]
        axes.plot(once, miou, marker, mfc="white", color=color)
        axes.plot(executed, miou, marker, color=color, label=label)
    axes.set(xlabel="GFLOPs (open: each module once, filled: as executed)", ylabel="mIoU, %")
    axes.set_title("ours")
    figure.legend(loc="outside lower left", fontsize=8)
    axes.grid(alpha=0.3)
    if paper:
        _draw_paper(panels[0, 1], paper)
    save_figure(figure, path)


def _draw_paper(axes: Axes, paper: list[tuple[str, float, float]]) -> None:
    for label, gflops, miou in paper:
        axes.plot(gflops, miou, "s", color="#555555")
        axes.annotate(label, (gflops, miou), fontsize=6, xytext=(4, 4), textcoords="offset points")
    axes.margins(x=0.35, y=0.15)
    axes.set(xlabel="GFLOPs, Table 1", ylabel="mIoU, %")
    axes.set_title("paper: Cityscapes val, ResNet-101")
    axes.grid(alpha=0.3)
