"""Figures of an analysis over a split, one a topic."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cyclenet.lab.explain.results import (
    FeedbackFound,
    FieldsFound,
    OffsetsFound,
    SimilarityFound,
    SplitAnalysis,
)
from cyclenet.plots.render import COLORS, color_of_part, new_figure
from cyclenet.scoring.metrics import ByClass

MEASURES = {
    "radius_50": ("radius that holds half, pixels", 1),
    "radius_90": ("radius of nine tenths, pixels", 1),
    "foreign": ("on other classes, %", 100),
}


def split_figures(result: SplitAnalysis) -> dict[str, Figure]:
    """Draw what an analysis found, a figure for each topic."""
    figures = {}
    if result.feedback:
        figures["feedback"] = _draw_feedback(result, result.feedback)
    if result.similarity:
        figures["similarity"] = _draw_similarity(result, result.similarity)
    if result.offsets:
        figures["offsets"] = _draw_offsets(result, result.offsets)
    if result.receptive_field and result.receptive_field.points:
        figures["receptive_field"] = _draw_fields(result.parts, result.receptive_field)
    return figures


def _wide_figure(result: SplitAnalysis) -> Figure:
    return new_figure(max(7.2, 0.3 * len(result.classes) + 3), 2.8)


def _draw_feedback(result: SplitAnalysis, found: FeedbackFound) -> Figure:
    figure = _wide_figure(result)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    _draw_class_bars(left, found.IoU, result.parts, 100)
    left.set_ylabel("IoU, %", fontsize=8)
    bins = np.arange(len(result.bins))
    for number, (part, accuracy) in enumerate(zip(result.parts, found.accuracy, strict=True)):
        values = 100 * np.array(accuracy, float)  # None becomes NaN.
        right.plot(bins, values, "o-", ms=3, color=color_of_part(number), label=part)
    _label_distances(right, result.bins, "right pixels, %")
    right.legend(fontsize=6, frameon=False)
    return figure


def _draw_similarity(result: SplitAnalysis, found: SimilarityFound) -> Figure:
    figure = _wide_figure(result)
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    width = 0.8 / len(result.parts)
    kinds = [found.raw.within, found.raw.between, found.centred.within, found.centred.between]
    for number, part in enumerate(result.parts):
        values = np.array([kind[number] for kind in kinds], float)
        left.bar(
            np.arange(4) + number * width, values, width, color=color_of_part(number), label=part
        )
    names = ["within,\nraw", "between,\nraw", "within,\ncentred", "between,\ncentred"]
    left.set_xticks(np.arange(4) + 0.4 - width / 2, names, fontsize=6)
    left.set_ylabel("mean cosine similarity", fontsize=8)
    left.axhline(0, color="black", lw=0.5)
    left.tick_params(axis="y", labelsize=6)
    left.legend(fontsize=6, frameon=False)
    _draw_class_bars(right, found.raw.classes, result.parts, 1)
    right.set_ylabel("similarity within a class, raw", fontsize=8)
    return figure


def _draw_offsets(result: SplitAnalysis, found: OffsetsFound) -> Figure:
    figure = new_figure(3.6, 2.6)
    axes = figure.subplots()
    bins = np.arange(len(result.bins))
    axes.plot(bins, np.array(found.length, float), "o-", ms=3, color=COLORS[5])
    _label_distances(axes, result.bins, "mean displacement, pixels")
    axes.set_ylim(bottom=0)
    lines = [Line2D([], [], color=COLORS[5], marker="o", ms=3, label="displacement")]
    if found.modulation:
        other = axes.twinx()
        style: dict[str, Any] = {"color": COLORS[4], "marker": "s", "ms": 3, "ls": "--"}
        other.plot(bins, np.array(found.modulation, float), **style)
        other.set_ylabel("mean modulation", fontsize=8)
        other.tick_params(labelsize=6)
        lines.append(Line2D([], [], label="modulation", **style))
    options = {"ncols": 2, "fontsize": 6, "frameon": False}
    figure.legend(handles=lines, loc="outside upper center", **options)
    return figure


def _draw_fields(parts: list[str], found: FieldsFound) -> Figure:
    figure = new_figure(7.2, 2.6)
    for axes, key in zip(figure.subplots(1, 3), MEASURES, strict=True):
        label, scale = MEASURES[key]
        for group, where in enumerate(("edge", "middle")):
            for number, part in enumerate(parts):
                values = [
                    scale * getattr(point, key)
                    for point in found.points
                    if point.where == where and point.part == part
                ]
                at = group + (number + 0.5) * 0.7 / len(parts)
                _draw_points(axes, at, values, color_of_part(number), "" if group else part)
        axes.set_xticks([0.35, 1.35], ["near an edge", "middle of\nan object"], fontsize=7)
        axes.set_ylabel(label, fontsize=8)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=6)
    axes.legend(fontsize=6, frameon=False)
    return figure


def _draw_points(axes: Axes, at: float, values: list[float], color: str, label: str) -> None:
    """Draw values as points beside each other, and their mean as a bar."""
    if not values:
        return
    jitter = np.random.default_rng(0).uniform(-0.05, 0.05, len(values))
    axes.plot(at + jitter, values, ".", ms=3, color=color, alpha=0.6)
    mean = float(np.mean(values))
    axes.plot([at - 0.12, at + 0.12], [mean, mean], color=color, lw=2, label=label or None)


def _draw_class_bars(axes: Axes, rows: list[ByClass], parts: list[str], scale: float) -> None:
    classes = list(rows[0])
    at, width = np.arange(len(classes)), 0.8 / len(parts)
    for number, values in enumerate(rows):
        heights = [scale * (np.nan if value is None else value) for value in values.values()]
        axes.bar(
            at + number * width, heights, width, color=color_of_part(number), label=parts[number]
        )
    axes.set_xticks(
        at + 0.4 - width / 2, classes, rotation=60, ha="right", fontsize=6, rotation_mode="anchor"
    )
    axes.tick_params(axis="y", labelsize=6)
    axes.legend(fontsize=6, frameon=False)


def _label_distances(axes: Axes, names: list[str], label: str) -> None:
    axes.set_xticks(np.arange(len(names)), names, fontsize=6)
    axes.set_xlabel("distance to the nearest true edge, pixels", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(axis="y", labelsize=6)
    axes.grid(alpha=0.3)
