"""Tables and numbers in Markdown, where what comes from outside stays plain text."""

import re
from collections.abc import Sequence

import numpy as np

from cyclenet.files import printable
from cyclenet.lab.intervals import Difference

NONE = "–"  # Stands where there is no number.


class Markup(str):
    """A text that is Markdown already."""


def plain(text: str) -> str:
    """Escape a text, so that Markdown shows it as it is, in one line."""
    return re.sub(r"([\\`*<>|~]|\](?=[(\[:]))", r"\\\1", " ".join(printable(text).split()))


def code(text: str) -> Markup:
    """Set a text as code."""
    line = " ".join(printable(text).split())
    return Markup("`" + line.replace("`", "'").replace("|", "\\|") + "`")


def markdown_table(head: list[str], lines: list[list[str]]) -> str:
    """Format a table whose first column is text and whose others are numbers.

    Cells are plain text, except where they are `Markup`.
    """
    rule: list[str] = [Markup("---"), *[Markup("---:")] * (len(head) - 1)]
    rows = [head, rule, *lines]
    shown = [[c if isinstance(c, Markup) else plain(c) for c in cells] for cells in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in shown)


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
    """Format a difference and the bounds of its interval: the first three numbers."""
    if change is None:
        return NONE
    value, low, high = (scale * each for each in change[:3])
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
