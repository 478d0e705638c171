"""Tables and numbers in Markdown."""

from collections.abc import Sequence

import numpy as np

from cyclenet.scoring.intervals import Difference

NONE = "–"
"""Stands where there is no number."""


def markdown_table(head: list[str], lines: list[list[str]]) -> str:
    """Format a table whose first column is text and whose others are numbers."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


def number(value: float | None, digits: int = 2, scale: float = 1) -> str:
    """Format a number."""
    return NONE if value is None else f"{scale * value:.{digits}f}"


def percent(value: float | None, digits: int = 2) -> str:
    """Format a share as percent."""
    return number(value, digits, 100)


def spread(values: Sequence[float | None], digits: int = 2, scale: float = 1) -> str:
    """Format mean ± standard deviation of values; no number where one of them is missing."""
    known = [scale * value for value in values if value is not None]
    if not known or len(known) < len(values):
        return NONE
    mean = f"{np.mean(known):.{digits}f}"
    return f"{mean} ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else mean


def interval(
    change: Difference | Sequence[float] | None, scale: float = 100, digits: int = 2
) -> str:
    """Format a difference and the bounds of its interval."""
    if change is None:
        return NONE
    value, low, high = (scale * each for each in change)
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
