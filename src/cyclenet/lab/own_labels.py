"""What the masks of a strange folder hold, and which classes these may be."""

import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cyclenet.data.images import DataError, read_colors, read_values
from cyclenet.data.legend import read_legend
from cyclenet.files import write_text
from cyclenet.labels import IGNORE
from cyclenet.seeding import derive


@dataclass
class Proposal:
    """What was seen, the keys that fit, and what could not be told.

    Attributes:
        seen: sentences.
        keys: keys of ``dataset`` and their values.
        unknown: sentences about what the user has to say.
    """

    seen: list[str] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def text(self, command: str) -> str:
        """Write it for a terminal."""
        words = ["dataset=folder"]
        for key, value in self.keys.items():
            text = {"None": "null", "True": "true"}.get(str(value), value)
            text = f"[{','.join(value)}]" if isinstance(value, list) else text
            words.append(shlex.quote(f"dataset.{key}={text}"))
        lines = ["", "What this folder looks like:", *(f"  {line}" for line in self.seen)]
        lines += ["Proposed:", f"  {command} {' '.join(words)}"]
        if self.unknown:
            lines += ["What could not be told:", *(f"  {line}" for line in self.unknown)]
        return "\n".join(lines)


def propose_labels(found: Proposal, root: Path, masks: list[Path], of: int, output: Path) -> None:
    """Read masks, and add to a proposal what they hold and the keys that fit.

    Args:
        found: the proposal.
        root: the user's folder.
        masks: the masks that are read.
        of: how many there are.
        output: receives a file of class names where there is none.

    Raises:
        DataError: none of them can be read.
    """
    colors: Counter[int] = Counter()
    numbers: Counter[int] = Counter()
    palette: dict[int, set[int]] = {}
    damaged = 0
    for mask in masks:
        try:
            packed = _colors_of(mask)
            stored = read_values(mask) if packed is None else packed
        except DataError:
            damaged += 1
            continue
        values, counts = np.unique(stored, return_counts=True)
        into = numbers if packed is None else colors
        if packed is None and (shown := read_colors(mask)) is not None:  # It has a palette.
            pairs = np.unique(np.stack([stored.ravel(), shown.ravel()]), axis=1)
            for number, color in pairs.T.tolist():
                palette.setdefault(number, set()).add(color)
        into.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if not colors and not numbers:
        raise DataError(f"None of {len(masks)} masks can be read; the first is {masks[0]}.")
    _describe_labels(found, colors or numbers, bool(colors), len(masks) - damaged)
    if several := [number for number, shown in palette.items() if len(shown) > 1]:
        found.unknown.append(
            f"What numbers mean: the masks' palettes give {several[0]} several colours: save the "
            "masks as RGB."
        )
    if damaged:
        found.unknown.append(f"What {damaged} masks hold that cannot be read.")
    if colors and numbers:
        found.unknown.append("Some masks hold numbers; the proposal is for those with colours.")
    if len(masks) < of:
        found.unknown.append(f"Whether other masks hold more: {len(masks)} of {of} were looked at.")
    if known := _known_legend(root, colors, numbers):
        found.seen.append(f"Their classes are in {known}.")
        found.keys |= {"classes": known} if known != "classes.txt" else {}
    elif colors:
        lines = [f"class_{n} {_show(value, True)}" for n, value in enumerate(sorted(colors))]
        _write_classes(found, root, output, lines)
    else:
        _propose_numbers(found, set(numbers), root, output)


def _describe_labels(found: Proposal, what: Counter[int], colored: bool, masks: int) -> None:
    total = sum(what.values())
    shown = what.most_common(8)
    listed = ", ".join(f"{_show(value, colored)} ({count / total:.1%})" for value, count in shown)
    more = f" and {len(what) - len(shown)} more" if len(what) > len(shown) else ""
    kind = "colours" if colored else "numbers"
    found.seen.append(f"{len(what)} {kind} in {masks} masks: {listed}{more}.")


def _propose_numbers(found: Proposal, numbers: set[int], root: Path, output: Path) -> None:
    there = sorted(numbers - {IGNORE})
    if numbers <= {0, IGNORE}:
        found.keys["ids"] = ["0:background", "255:object"]
        found.unknown.append("Whether 0 is the background and 255 the object, as is proposed.")
        return
    if there[-1] > 254 or len(there) < (there[-1] + 1) / 2:
        found.keys["ids"] = [f"{n}:class_{n}" for n in there]
        found.unknown.append("The names of the classes; a number is left out as NUMBER:ignore.")
    else:
        first = 0 if 0 in numbers else 1
        lines = [f"class_{n}" for n in range(first, there[-1] + 1)]
        _write_classes(found, root, output, lines)
        found.keys |= {"reduce_zero_label": True} if first else {}
        found.unknown.append(
            "Whether 0 means unlabelled, as is proposed: no mask has it."
            if first
            else "Whether 0 is a class: if it is unlabelled, remove its line and add "
            "dataset.reduce_zero_label=true."
        )
    if IGNORE in numbers:
        found.unknown.append("Whether 255 is left out, as is proposed, or a class.")


def _colors_of(mask: Path) -> np.ndarray | None:
    """Return the colours of a colour mask; None of one that stores numbers."""
    try:
        read_values(mask)
    except DataError:
        return read_colors(mask)
    return None


def _show(value: int, is_color: bool) -> str:
    return " ".join(str(value >> s & 255) for s in (16, 8, 0)) if is_color else str(value)


def _known_legend(root: Path, colors: Counter[int], numbers: Counter[int]) -> str | None:
    """Return the text file in the root that names all that the masks hold."""
    for path in sorted(root.glob("*.txt"), key=lambda path: path.name != "classes.txt"):
        try:
            legend = read_legend(path, [], IGNORE, False)
        except (DataError, ValueError):
            continue
        if colors and colors.keys() <= legend.colors.keys():
            return path.name
        legal = {n for n, train_id in enumerate(legend.ids.tolist()) if train_id >= 0}
        if not colors and path.name == "classes.txt" and numbers.keys() <= legal:
            return path.name
    return None


def _write_classes(found: Proposal, root: Path, output: Path, lines: list[str]) -> None:
    # Several data sets may be looked at, also of one name.
    where = root.resolve()
    path = output / f"{where.name}-{derive(str(where)):08x}-classes.txt"
    if (old := output / f"{where.name}-classes.txt").exists():  # From before names had a hash.
        found.seen.append(f"If {old} is of this folder, give dataset.classes={old}.")
    if path.exists():
        found.seen.append(f"{path} was there, and stays as it is.")
    else:
        write_text(path, "\n".join(lines) + "\n")
    found.keys["classes"] = str(path)
    found.unknown.append(f"The names of the {len(lines)} classes: write them into {path}.")
