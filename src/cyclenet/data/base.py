"""Data sets as numbered pairs of image and mask, before any augmentation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cyclenet.data.images import DataError, read_ids, read_image


class Pair(NamedTuple):
    """Two files, and their common name."""

    name: str
    image: Path
    mask: Path


class Source(ABC):
    """Numbered pairs of an image and a mask.

    Attributes:
        classes: names, by train id.
        palette: (num_classes, 3) uint8 colours, by train id.
        pairs: the files; empty where images are drawn.
        server_ids: (num_classes,) uint8 id that the benchmark's server wants for each train id;
            None where there is no server.
    """

    classes: list[str]
    palette: np.ndarray
    pairs: Sequence[Pair] = ()
    server_ids: np.ndarray | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Name a pair, unique in the split."""

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """Return an image (H, W, 3) uint8 RGB."""

    @abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """Return a mask (H, W) uint8 of train ids with 255 ignored."""

    def unpaired_masks(self) -> list[str]:
        """Name masks that have no image, a sentence each."""
        return []


class FolderSource(Source):
    """Pairs of files in a folder.

    A subclass sets `classes`, `palette`, `legal` (for messages) and `ids` (see `read_ids`), and
    lists its pairs and all masks that there are.
    """

    ids: np.ndarray
    legal: str

    def __init__(self, pairs: list[Pair], where: str, masks: list[Path]) -> None:
        if not pairs:
            raise DataError(f"No images in {where}: check dataset.root and the split's name.")
        self.pairs, self.masks = pairs, masks

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def unpaired_masks(self) -> list[str]:
        known = {pair.mask for pair in self.pairs}
        strays = [mask for mask in sorted(self.masks) if mask not in known]
        return [f"{mask} is a mask without an image." for mask in strays]

    def image(self, index: int) -> np.ndarray:
        return read_image(self.pairs[index].image)

    def mask(self, index: int) -> np.ndarray:
        return read_ids(self.pairs[index].mask, self.ids, self.legal)


class Limited(Source):
    """The first ``limit`` pairs of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.classes, self.palette = source.classes, source.palette
        self.pairs, self.server_ids = source.pairs[:limit], source.server_ids

    def __len__(self) -> int:
        return min(self.limit, len(self.source))

    def name(self, index: int) -> str:
        return self.source.name(index)

    def image(self, index: int) -> np.ndarray:
        return self.source.image(index)

    def mask(self, index: int) -> np.ndarray:
        return self.source.mask(index)


def list_split(folder: Path, pattern: str) -> list[Path]:
    """List a split's files in order. Raises `DataError` where there is no such split."""
    if not folder.is_dir():
        parent = folder.parent
        found = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        has = f"{parent} has {', '.join(found)}" if found else f"{parent} has no folders"
        raise DataError(
            f"There is no folder {folder} ({has}): check dataset.root and the split's name."
        )
    return sorted(folder.glob(pattern))


def check_sizes(name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """Raise `DataError` where an image and its mask differ in size."""
    if image.shape[:2] != mask.shape:
        sizes = f"{image.shape[1]}x{image.shape[0]} and {mask.shape[1]}x{mask.shape[0]}"
        raise DataError(
            f"The image and the mask of {name} differ in size: {sizes} (width x height)."
        )
