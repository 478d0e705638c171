"""Plots with matplotlib: confusion matrices, trimap and learning curves, heat maps."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Okabe and Ito's colours, which the colour-blind can tell apart, with a darker yellow for thin lines; then grey.
COLORS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#b8a800", "#888888")


class Curve(NamedTuple):
    """A line of a plot: several curves of one arm, one a seed."""

    label: str
    x: list[list[float]]
    y: list[list[float]]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cyclenet"
    import matplotlib.pyplot as plt

    return plt


def confusion_picture(path: Path, scores: dict[str, Any], counts: np.ndarray, title: str) -> None:
    """Draw a confusion matrix, each row divided by its true pixels, and the IoU of each class."""
    plt = _pyplot()
    names = list(scores["IoU"])
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(6.0, 0.34 * len(names) + 2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(side * 1.45, side), width_ratios=[3, 1], layout="constrained")
    left.imshow(share, cmap="cividis", vmin=0, vmax=1)
    ticks = range(len(names))
    left.set_xticks(ticks, names, rotation=90)
    left.set_yticks(ticks, names)
    left.set_xlabel("predicted")
    left.set_ylabel("true (rows sum to 1)")
    if len(names) <= 30:
        for row in ticks:
            for column in ticks:
                if share[row, column] >= 0.01:
                    shade = "black" if share[row, column] > 0.6 else "white"
                    left.text(column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", fontsize=7, color=shade)
    values = [value or 0.0 for value in scores["IoU"].values()]
    right.barh(list(ticks), [100 * value for value in values], color="#2b6a99")
    right.set_yticks(ticks, [] if len(names) <= 30 else names)
    right.set_ylim(len(names) - 0.5, -0.5)
    right.set_xlim(0, 100)
    right.set_xlabel("IoU, %")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def trimap_picture(path: Path, trimap: dict[str, Any], title: str) -> None:
    """Draw IoU against the width of the band around edges, of each class and on the mean."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, curve in trimap["IoU"].items():
        if len(trimap["IoU"]) <= 30:
            axes.plot(trimap["widths"], [100 * (v if v is not None else np.nan) for v in curve], lw=0.8, alpha=0.6)
            axes.text(trimap["widths"][-1] + 0.5, 100 * (curve[-1] or 0.0), name, fontsize=7, va="center")
    axes.plot(trimap["widths"], [100 * v for v in trimap["mIoU"]], "k-o", ms=3, label="mean")
    axes.set(xlabel="width of the band on each side of an edge, pixels", ylabel="IoU, %", ylim=(0, 100), title=title)
    axes.title.set_fontsize(9)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no random ids: the same report is the same file.
    figure.savefig(path, metadata={"Date": None})
    _pyplot().close(figure)


def curves_picture(path: Path, curves: list[Curve], xlabel: str, ylabel: str) -> None:
    """Draw one colour an arm, a thin line a seed and a thick one for their mean (where all have the same x)."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7.5, 4 + 0.2 * len(curves)), layout="constrained")
    for number, curve in enumerate(curves):
        color, style = COLORS[number % len(COLORS)], ("-", "--", ":")[number // len(COLORS) % 3]
        alike = len({tuple(x) for x in curve.x}) == 1
        for x, y in zip(curve.x, curve.y, strict=True):
            width, alpha = (0.8, 0.5) if len(curve.x) > 1 else (1.8, 1.0)
            # A line of one point would not be seen.
            axes.plot(x, y, style, color=color, lw=width, alpha=alpha, marker="." if len(x) < 20 else "", ms=3)
        if len(curve.x) > 1 and alike:
            axes.plot(curve.x[0], np.mean(curve.y, 0), style, color=color, lw=2)
        axes.plot([], [], style, color=color, lw=2, label=curve.label)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=8)  # Names of arms are long: within, they would hide the curves.
    _save(figure, path)


def dots_picture(path: Path, rows: list[tuple[str, list[float]]], xlabel: str) -> None:
    """Draw a line for each arm: a dot a seed, and a bar at their mean."""
    plt = _pyplot()
    size = (6 + 0.06 * max(len(label) for label, _ in rows), 1.2 + 0.32 * len(rows))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for y, (_, values) in enumerate(rows):
        axes.plot(values, [y] * len(values), "o", mfc="none", color=COLORS[y % len(COLORS)])
        axes.plot([np.mean(values)] * 2, [y - 0.3, y + 0.3], color=COLORS[y % len(COLORS)], lw=2)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def heat_map(path: Path, values: np.ndarray, rows: list[str], columns: list[str], title: str) -> None:
    """Draw IoU (rows, columns) in percent as numbers, coloured by the difference to the first row; NaN is left empty."""
    plt = _pyplot()
    change = values - values[:1]
    reach = max(float(np.nanmax(np.abs(change), initial=0)), 1.0)
    width = 2.5 + 0.11 * max(map(len, rows)) + 0.5 * len(columns)
    figure, axes = plt.subplots(figsize=(min(width, 60), 1.6 + 0.34 * len(rows)), layout="constrained")
    shown = axes.imshow(change, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    for i, j in np.ndindex(*values.shape):
        if not np.isnan(values[i, j]):
            dark = abs(change[i, j]) > 0.7 * reach
            axes.text(j, i, f"{values[i, j]:.1f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    figure.colorbar(shown, label="difference to the first row", pad=0.01)
    axes.set_title(title, fontsize=9)
    _save(figure, path)


def cost_picture(path: Path, points: list[tuple[str, float, float, float]], paper: list[tuple[str, float, float]]) -> None:
    """Draw mIoU (percent) against GFLOPs: each arm from what is counted once to what is executed.

    Args:
        path: of the picture.
        points: (label, GFLOPs once, GFLOPs executed, mIoU).
        paper: (label, GFLOPs, mIoU) as printed.
    """
    plt = _pyplot()
    size = (7 + 4 * bool(paper), 4 + 0.2 * len(points))
    figure, panels = plt.subplots(1, 1 + bool(paper), figsize=size, layout="constrained", squeeze=False)
    axes = panels[0, 0]
    for number, (label, once, executed, miou) in enumerate(points):
        color = COLORS[number % len(COLORS)]
        axes.plot([once, executed], [miou, miou], color=color, lw=1)
        axes.plot(once, miou, "o", mfc="white", color=color)
        axes.plot(executed, miou, "o", color=color, label=label)
    axes.set(xlabel="GFLOPs (open: each module once, filled: as executed)", ylabel="mIoU, %", title="ours")
    figure.legend(loc="outside lower left", fontsize=8)
    axes.grid(alpha=0.3)
    if paper:
        axes = panels[0, 1]
        for label, gflops, miou in paper:
            axes.plot(gflops, miou, "s", color="#555555")
            axes.annotate(label, (gflops, miou), fontsize=6, xytext=(4, 4), textcoords="offset points")
        axes.margins(x=0.35, y=0.15)
        axes.set(xlabel="GFLOPs, Table 1", ylabel="mIoU, %", title="paper: Cityscapes val, ResNet-101")
        axes.grid(alpha=0.3)
    _save(figure, path)
