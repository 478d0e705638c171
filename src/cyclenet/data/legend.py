"""What the numbers or colours of one's own masks mean."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclenet.data.images import DataError
from cyclenet.files import read_text
from cyclenet.labels import IGNORE, color_map

IGNORED = "ignore"  # Name that ``dataset.ids`` gives to pixels that do not count.

MOST_ID = 65535


@dataclass
class Legend:
    """From what a mask stores to train ids.

    Attributes:
        classes: names, by train id.
        palette: (classes, 3) uint8 RGB.
        ids: train id of every stored number, -1 where it is illegal; 256 or more.
        colors: train id of every colour of a colour mask, as 0xRRGGBB; empty where there is none.
        legal: what numbers are legal, for messages.
    """

    classes: list[str]
    palette: np.ndarray
    ids: np.ndarray
    colors: dict[int, int]
    legal: str


def read_legend(path: Path, ids: list[str], ignore_id: int, reduce_zero_label: bool) -> Legend:
    """Read the classes of one's own data.

    Args:
        path: a class a line, in the order of the ids: ``name``, ``name R G B`` or ``R G B name``.
            The name ``ignore`` leaves pixels out. Not read where there are ``ids``.
        ids: ``number:name`` of all legal numbers; the name ``ignore`` leaves pixels out.
        ignore_id: number of the pixels that do not count.
        reduce_zero_label: whether 0 does not count and the classes begin with 1.

    Raises:
        DataError: it is missing, or does not say which number is which class.
    """
    table = np.full(max(256, ignore_id + 1), -1)
    colors: list[tuple[str, tuple[int, int, int]]] = []
    if ids:
        numbers = [_parse_id(word) for word in ids]
        meant = dict(numbers)
        if len(meant) < len(numbers):
            raise DataError("dataset.ids gives a number twice: give each number one name.")
        if ignore_id != IGNORE and meant.get(ignore_id, IGNORED) != IGNORED:
            raise DataError(
                f"dataset.ignore_id={ignore_id} is {meant[ignore_id]} in dataset.ids: give one."
            )
        names = list(dict.fromkeys(name for _, name in numbers if name != IGNORED))
        table = np.full(max(len(table), max(number for number, _ in numbers) + 1), -1)
        table[ignore_id] = IGNORE
        for number, name in numbers:
            table[number] = names.index(name) if name in names else IGNORE
        where, legal = "dataset.ids", ", ".join(ids)
    else:
        lines, colors = _read_names(path)
        names = [name for name in lines if name != IGNORED]
        first = int(reduce_zero_label)
        if first <= ignore_id < first + len(lines):
            raise DataError(
                f"dataset.ignore_id={ignore_id} is the class {lines[ignore_id - first]} of {path}: "
                "choose another, or list the numbers in dataset.ids."
            )
        table = np.full(max(len(table), first + len(lines)), -1)
        for number, name in enumerate(lines[: MOST_ID - first], first):
            table[number] = names.index(name) if name in names else IGNORE
        table[ignore_id] = IGNORE
        if reduce_zero_label:
            table[0] = IGNORE
        where = str(path)
        legal = f"{first}..{first + len(lines) - 1} (the lines of {path.name}) and {ignore_id}"
    _check_names(names, where)
    palette, packed = color_map(len(names)), {}
    for name, color in colors:
        packed[_pack(color)] = names.index(name) if name in names else IGNORE
        if name in names:
            palette[names.index(name)] = color
    if len(packed) < len(colors):
        raise DataError(f"{where} gives two classes one colour: give each its own.")
    return Legend(names, palette, table, packed, legal)


def _pack(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _parse_id(word: str) -> tuple[int, str]:
    number, _, name = (part.strip() for part in word.partition(":"))
    if not number.isdecimal() or not name or int(number) > MOST_ID:
        raise DataError(
            f"dataset.ids must list numbers and names as [0:{IGNORED},7:road], numbers up to "
            f"{MOST_ID}; got {word!r}."
        )
    return int(number), name


def _check_names(names: list[str], where: str) -> None:
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(f"{where} names {twice[0]} twice: give each class a name of its own.")
    if not 2 <= len(names) <= 255:
        raise DataError(f"{where} must name 2 to 255 classes; it has {len(names)}.")


def _read_names(path: Path) -> tuple[list[str], list[tuple[str, tuple[int, int, int]]]]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: write the classes' names into it, a line each, in the order "
            "of their ids."
        )
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if "" in lines:
        raise DataError(
            f"{path} has an empty line {lines.index('') + 1}, and a class's id is the number of "
            "its line: name every id."
        )
    if comments := [line for line in lines if line.startswith("#")]:
        raise DataError(
            f"{path} has the line {comments[0]!r}, and a class's id is the number of its line: "
            "remove what is no class."
        )
    names, colors = [], []
    for line in lines:
        words = line.replace(",", " ").split()
        for color, name in ((words[-3:], words[:-3]), (words[:3], words[3:])):
            if name and len(color) == 3 and all(w.isdecimal() and int(w) < 256 for w in color):
                line = " ".join(name)
                colors.append((line, (int(color[0]), int(color[1]), int(color[2]))))
                break
        names.append(line)
    if colors and len(colors) < len(lines):
        missing = next(name for name in names if name not in dict(colors))
        raise DataError(
            f"{path} gives {len(colors)} of {len(lines)} classes a colour, and {missing} none: "
            "give all or none of them one."
        )
    heads = [re.match(r"(\d+)[\s:,;]+(\D|(\d+[\s:,;]+){3})", line) for line in lines]
    numbers = [int(head[1]) for head in heads if head]
    counted = len(numbers) == len(lines) == len(set(numbers)) and min(numbers, default=2) < 2
    if counted and numbers != list(range(len(lines))):
        raise DataError(
            f"{path} begins its lines with numbers, and a class's id is the number of its line: "
            "leave them out, or list numbers and names in dataset.ids=[0:road,7:sky]."
        )
    rows = [line.replace(",", " ").split() for line in lines]
    numbered = all(_are_four(row[:4], row[4:5]) for row in rows)
    opaque = all(row[-1:] == ["255"] and _are_four(row[-4:], row[-5:-4]) for row in rows)
    if rows and (numbered or opaque):
        raise DataError(
            f"{path} has four numbers in a line ({lines[0]!r}), and a colour has three: leave out "
            "the number of the line, or the opacity."
        )
    return names, colors


def _are_four(words: list[str], name: list[str]) -> bool:
    """Tell whether words are four numbers beside a word that is none."""
    return len(words) == 4 and all(map(str.isdecimal, words)) and not all(map(str.isdecimal, name))
