"""Hold images out for validation where no one made a split."""

import math
from itertools import pairwise
from pathlib import Path, PurePosixPath

from cyclenet.data.images import DataError
from cyclenet.seeding import derive

STRETCHES = 20
"""Stretches of neighbouring images that a folder without subfolders is cut into for a split."""


def held_out(names: list[str], share: float, split: str, root: Path) -> list[str]:
    """Return the names of ``train`` or ``val`` where no one made a split.

    The choice depends on the names alone, so every run makes the same; new images change it. Whole
    folders are held out, for neighbours resemble each other, where those that are small enough make
    at least half of the share; else stretches of neighbours.

    Raises:
        DataError: there are too few images.
    """
    names, most = sorted(names), max(share * len(names), 1)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(PurePosixPath(name).parent.as_posix(), []).append(name)
    held = _fill(groups, most)
    if len(groups) < 2 or len(held) < most / 2:
        count = min(max(STRETCHES, math.ceil(1 / share)), len(names))
        cuts = [len(names) * number // count for number in range(count + 1)] if count else []
        held = _fill({str(low): names[low:high] for low, high in pairwise(cuts)}, most)
    if not held or len(held) == len(names):
        raise DataError(f"{root} has too few images to hold some out: set dataset.val_share=0.")
    if split == "val":
        return sorted(held)
    return [name for name in names if name not in set(held)]


def _fill(groups: dict[str, list[str]], most: float) -> list[str]:
    """Return the names of whole groups, in a fixed random order; one that would exceed ``most`` is
    passed over.
    """
    held: list[str] = []
    for key in sorted(groups, key=lambda key: derive(key)):
        if len(held) + len(groups[key]) <= most:
            held += groups[key]
    return held
