"""What the numbers of a data set mean: a look at some masks, and a digest to compare."""

from typing import Any

import numpy as np

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import FolderSource, Limited, Source
from cyclenet.data.cache import CachedSource
from cyclenet.data.open import find_root
from cyclenet.labels import IGNORE
from cyclenet.seeding import derive, spread

LOOKED_AT = 16  # Masks of a split that are looked at before a training; they are spread over it.


NAMES = {"train_names": "training", "val_names": "validation"}
"""Keys of a meaning that are digests of the names of a split's images."""


def check_meaning(source: Source) -> None:
    """Refuse masks of which nothing can be learned, before a training.

    Raises:
        ValueError: in all masks that were looked at, no pixel counts, or one class alone does.
        DataError: a mask cannot be read.
    """
    if not source.pairs:  # It is drawn.
        return
    chosen = spread(len(source), LOOKED_AT)
    pixels = np.zeros(256, np.int64)
    for index in chosen:
        pixels += np.bincount(source.mask(index).ravel(), minlength=256)
    counted = np.flatnonzero(pixels[:IGNORE])
    where = f"{source.pairs[0].mask.parent}: in {len(chosen)} masks"
    if not len(counted):
        raise ValueError(f"{where} every pixel is ignored (255): there is nothing to learn.")
    if len(counted) == 1 and pixels[IGNORE]:
        name, share = source.classes[counted[0]], pixels[IGNORE] / pixels.sum()
        raise ValueError(
            f"{where} every pixel is {name} ({counted[0]}) or ignored (255, {share:.0%} of them): "
            "where 255 stands for a class, write the number of its line in classes.txt instead."
        )


def describe_meaning(train: Source, val: Source) -> dict[str, Any]:
    """Return plain values by which it is told whether two splits mean the same as before."""
    inner = train
    while isinstance(inner, Limited | CachedSource):
        inner = inner.source
    ids = derive(*inner.meaning) if isinstance(inner, FolderSource) else 0
    names = {"train_names": digest_names(train), "val_names": digest_names(val)}
    return {"classes": list(train.classes), "train_images": len(train), "ids": ids} | names


def digest_names(source: Source) -> int:
    """Return a number that the names of a split's images have in common with no others."""
    return derive(*(source.name(index) for index in range(len(source))))


def digest_root(cfg: DatasetConfig) -> int:
    """Return a number that the folder of the data, without links, has in common with no other."""
    return derive(str(find_root(cfg).resolve()))


def describe_change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say what a split means that it did not mean before; "" where nothing changed.

    Checkpoints that were written before a key existed do not have it.
    """
    for key in now:
        if before.get(key, now[key]) != now[key]:
            if key in NAMES:
                return f"the {NAMES[key]} images have other names, so they are others"
            return f"{key} was {before[key]} and is {now[key]}"
    return ""
