"""Cross-validation: the split ``fold<n>``, and ``not-fold<n>`` with all other folds."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from unicodedata import normalize

from cyclenet.data.base import Pair
from cyclenet.data.images import DataError
from cyclenet.files import read_text


def is_fold(split: str) -> bool:
    """Tell whether a split is a fold, or all folds but one."""
    return re.fullmatch(r"(not-)?fold\d+", split) is not None


def choose_fold(
    split: str, pairs: list[Pair], folds: Mapping[str, int], near: Mapping[str, int]
) -> list[Pair]:
    """Return the pairs of a fold, or of all others, by name.

    Args:
        split: ``fold<n>`` or ``not-fold<n>``.
        pairs: pairs of all folds; those that are in none are left out.
        folds: number of each pair's fold, by the pair's name.
        near: number of another fold that has nearly the same image, by a pair's name: the pair is
            not trained on where that fold is held out.

    Raises:
        DataError: there is no such fold.
    """
    wanted, held_out = int(split.split("fold")[1]), not split.startswith("not-")
    if wanted not in folds.values():
        there = ", ".join(map(str, sorted(set(folds.values()))))
        raise DataError(f"There is no fold {wanted}; there are {there}: check dataset.fold.")
    pairs = sorted((pair for pair in pairs if pair.name in folds), key=lambda pair: pair.name)
    if held_out:
        return [pair for pair in pairs if folds[pair.name] == wanted]
    if set(folds.values()) == {wanted}:
        raise DataError(f"All images are of fold {wanted}, so none is left to train on: add folds.")
    return [p for p in pairs if folds[p.name] != wanted and near.get(p.name) != wanted]


def read_folds(path: Path) -> dict[str, int]:
    """Read ``folds.csv``: a line ``image,fold`` for each image, which may begin with that heading.

    Raises:
        DataError: there is no such file, or a line is wrong.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: write a line IMAGE,FOLD for each image into it, such as "
            "train/a/0001,2."
        )
    folds: dict[str, int] = {}
    text = normalize("NFC", read_text(path))  # Names of images have this form too.
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        if not row or (number == 1 and row == ["image", "fold"]):
            continue
        if len(row) != 2 or not row[1].strip().isdecimal() or row[0] in folds:
            raise DataError(
                f"{path}, line {number}: {','.join(row)!r} is not an image that is named once, "
                "and the number of its fold."
            )
        folds[row[0]] = int(row[1])
    return folds
