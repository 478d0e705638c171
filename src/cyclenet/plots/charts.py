"""Charts of evaluations: confusion matrix and trimap curve."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from cyclenet.plots.render import new_figure, save_figure
from cyclenet.scoring.results import EvaluationResult, TrimapScores

MOST_NAMES = 30  # Above so many classes, numbers and names of classes would be too small to read.


def confusion_chart(path: Path, result: EvaluationResult, title: str) -> None:
    """Draw a confusion matrix, each row divided by its true pixels, and the IoU of each class."""
    names, counts = list(result.IoU), np.array(result.confusion)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(6.0, 0.34 * len(names) + 2)
    figure = new_figure(side * 1.45, side)
    left, right = figure.subplots(1, 2, width_ratios=[3, 1])
    _draw_shares(left, share, names)
    values = [100 * (np.nan if value is None else value) for value in result.IoU.values()]
    ticks = list(range(len(names)))
    right.barh(ticks, values, color="#2b6a99")
    right.set_yticks(ticks, [] if len(names) <= MOST_NAMES else names)
    right.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 100), xlabel="IoU, %")
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_shares(axes: Axes, share: np.ndarray, names: list[str]) -> None:
    axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90)
    axes.set_yticks(ticks, names)
    axes.set(xlabel="predicted", ylabel="true (rows sum to 1)")
    if len(names) > MOST_NAMES:
        return
    for row, column in zip(*np.nonzero(share >= 0.01), strict=True):
        value = share[row, column]
        shade = "black" if value > 0.6 else "white"
        text = f"{100 * value:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)


def trimap_chart(path: Path, trimap: TrimapScores, title: str) -> None:
    """Draw IoU by the width of the band around edges: of each class, and the mean."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    if len(trimap.IoU) <= MOST_NAMES:
        for name, curve in trimap.IoU.items():
            percent = [100 * (np.nan if value is None else value) for value in curve]
            axes.plot(trimap.widths, percent, lw=0.8, alpha=0.6)
            if curve[-1] is not None:
                end = (trimap.widths[-1] + 0.5, 100 * curve[-1])
                axes.text(*end, name, fontsize=7, va="center")
    axes.plot(trimap.widths, [100 * v for v in trimap.mIoU], "k-o", ms=3, label="mean")
    axes.set(xlabel="width of the band on each side of an edge, pixels", ylabel="IoU, %")
    axes.set_ylim(0, 100)
    axes.set_title(title, fontsize=9)
    axes.legend()
    save_figure(figure, path)
