"""Data sets as numbered pairs of image and mask, before any augmentation."""

import os
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from cyclenet.data.images import DataError, read_bytes, read_ids, read_image


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

    def stamp(self, index: int) -> list[Any]:
        """Return values that identify the image's content; files of its features are named by them.

        Raises:
            ValueError: this source has none.
        """
        raise ValueError(f"{type(self).__name__} has no stamps: set dataset.cache_features=false.")

    def strays(self) -> list[str]:
        """Name files that are not used, such as masks that have no image, a sentence each."""
        return []


class FolderSource(Source):
    """Pairs of files in a folder.

    A subclass sets `classes`, `palette`, `legal` (for messages) and `ids` (see `read_ids`), and
    lists its pairs and all masks that there are.
    """

    ids: np.ndarray
    legal: str

    pairs: list[Pair]

    def __init__(self, pairs: list[Pair], where: str, masks: list[Path]) -> None:
        if not pairs:
            raise DataError(f"No images in {where}: check dataset.root and the split's name.")
        self.pairs, self.masks = pairs, masks
        self._stamps: dict[int, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    @property
    def meaning(self) -> list[int]:
        """The table from stored ids to train ids: another one makes other data of the files."""
        return self.ids.tolist()

    def strays(self) -> list[str]:
        known = {pair.mask for pair in self.pairs}
        strays = [mask for mask in sorted(self.masks) if mask not in known]
        return [f"{mask} is a mask without an image." for mask in strays]

    def stamp(self, index: int) -> list[Any]:
        # The content counts, not place or time, which a copy of the data changes.
        if index not in self._stamps:
            raw = read_bytes(self.pairs[index].image)
            self._stamps[index] = [len(raw), zlib.crc32(raw)]
        return self._stamps[index]

    def image(self, index: int) -> np.ndarray:
        return read_image(self.pairs[index].image, paired=True)

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

    def stamp(self, index: int) -> list[Any]:
        return self.source.stamp(index)

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


def find_files(folder: Path, endings: Collection[str]) -> list[Path]:
    """Find the files of a folder and its subfolders that have one of some endings, in any case.

    Hidden files and folders (``._a.jpg``, ``__MACOSX``) are left out. Links to folders elsewhere
    are followed, each folder once; a link to nothing is listed, so that whoever reads it says so.
    A folder inside that cannot be read is named on standard error.

    Raises:
        OSError: the folder itself cannot be read.
    """

    def refuse(error: OSError) -> None:
        if not folder.is_dir():  # Where there is no folder, there are no files.
            return
        if Path(error.filename) == folder:
            raise error
        print(f"{error.filename} is left out: {error.strerror}.", file=sys.stderr)

    home = folder.resolve()
    found: list[Path] = []
    seen = {home, *home.parents}
    for where, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        shown = sorted(name for name in folders if not _hidden(name))
        folders.clear()
        for name in shown:
            path = Path(where, name)
            real = path.resolve()
            inside = real.is_relative_to(home) and not any(
                map(_hidden, real.relative_to(home).parts)
            )
            # A link to a folder inside is skipped: the walk reaches that folder by its own path.
            if real not in seen and not (inside and path != folder / real.relative_to(home)):
                seen.add(real)
                folders.append(name)
        paths = [Path(where, name) for name in names if not _hidden(name)]
        found += [
            path
            for path in paths
            if path.suffix.lower() in endings and (path.is_file() or path.is_symlink())
        ]
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def name_files(files: Sequence[Path], root: Path) -> list[str]:
    """Name files for their outputs: relative to the root, with /, each unlike all others.

    Endings are left out, unless two names would then be one (a.jpg and a.png, a.mp4 and a/1.png).
    """
    whole = [path.relative_to(root).as_posix() for path in files]
    bare = [PurePosixPath(name).with_suffix("").as_posix() for name in whole]
    folded = [name.casefold() for name in bare]  # Some file systems know no case.
    folders = {parent.as_posix() for name in folded for parent in PurePosixPath(name).parents}
    clash = len(set(folded)) < len(folded) or folders & set(folded)
    return whole if clash else bare


def check_sizes(name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """Raise `DataError` where an image and its mask differ in size."""
    if image.shape[:2] != mask.shape:
        sizes = f"{image.shape[1]}x{image.shape[0]} and {mask.shape[1]}x{mask.shape[0]}"
        raise DataError(
            f"The image and the mask of {name} differ in size: {sizes} (width x height, upright): "
            "give a mask of the image's size."
        )
