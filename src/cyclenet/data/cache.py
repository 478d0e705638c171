"""A copy of a split's pixels as they leave the decoder, from which windows are read directly.

One file a split holds images and train ids, uncompressed. It is mapped into memory, so all loader
processes share the system's page cache. It is written beside its place and renamed when it is
whole, and is not used when a source file has changed since.
"""

import os
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import FolderSource, Source
from cyclenet.data.images import DataError
from cyclenet.data.open import find_root
from cyclenet.files import parse_json
from cyclenet.seeding import derive

FORMAT = 2


class CachedSource(Source):
    """A source whose pixels come from a cache: read-only views of the mapped file, no copies.

    A pair's checksum is verified when a process reads it for the first time.
    """

    def __init__(self, source: FolderSource, folder: Path, entries: list[dict[str, Any]]) -> None:
        self.source, self.folder, self.entries = source, folder, entries
        self.classes, self.palette, self.pairs = source.classes, source.palette, source.pairs
        self.verified = np.zeros(len(entries), bool)
        # The file is mapped now: this process and its forks go on reading the old pixels if the
        # cache is replaced meanwhile.
        self.file = _file_identity(folder)
        self.pixels: np.ndarray | None = self._map()

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def stamp(self, index: int) -> list[Any]:
        return self.source.stamp(index)

    def image(self, index: int) -> np.ndarray:
        """View an image's pixels. Raises `DataError` where the cache is damaged."""
        height, width = self.entries[index]["size"]
        return self._pair(index)[: height * width * 3].reshape(height, width, 3)

    def mask(self, index: int) -> np.ndarray:
        """View a mask's train ids. Raises `DataError` where the cache is damaged."""
        height, width = self.entries[index]["size"]
        return self._pair(index)[height * width * 3 :].reshape(height, width)

    def _map(self) -> np.ndarray:
        if _file_identity(self.folder) != self.file:
            raise DataError(
                f"{self.folder} was replaced or deleted while it was in use: "
                "run the same command again."
            )
        return np.memmap(self.folder / "pixels.bin", np.uint8, "r").view(np.ndarray)

    def _pair(self, index: int) -> np.ndarray:
        if self.pixels is None:
            self.pixels = self._map()
        entry = self.entries[index]
        pair = self.pixels[entry["start"] : entry["start"] + pair_bytes(entry["size"])]
        if not self.verified[index]:
            if zlib.crc32(pair.data) != entry["crc32"]:
                raise DataError(
                    f"{self.folder} is damaged at {self.name(index)}: "
                    "delete that folder, it can be made again."
                )
            self.verified[index] = True
        return pair

    def __getstate__(self) -> dict[str, Any]:
        # Another process maps the file anew instead of receiving a copy.
        return self.__dict__ | {"pixels": None, "verified": np.zeros(len(self), bool)}


def cached(source: Source, cfg: DatasetConfig, split: str, build: bool = False) -> Source:
    """Return a source that reads from its cache where there is a valid one, else the source.

    Args:
        source: a whole split.
        cfg: the data set; ``cache`` says whether one is used and made, ``cache_root`` where.
        split: the split's name.
        build: make the cache where it is missing or outdated, if ``cfg.cache`` allows it; with
            ``auto`` only where it leaves as much room again.

    Raises:
        DataError: a file cannot be read; or there is no room, with ``cache=always``.
    """
    if cfg.cache == "never" or not isinstance(source, FolderSource):
        return source
    folder = cache_folder(cfg, split)
    found = open_cache(source, folder)
    if found or not build:
        return found or source
    from cyclenet.data.cache_writer import build_cache

    reason = build_cache(source, folder, insist=cfg.cache == "always")
    found = open_cache(source, folder)
    if found:
        return found
    reason = reason or f"{folder} was removed, or its sources were changed, just now"
    if cfg.cache == "always":
        raise DataError(
            f"{reason}: set dataset.cache_root to another disk, or dataset.cache=never."
        )
    print(f"No cache: {reason}. (dataset.cache_root sets another disk.)", file=sys.stderr)
    return source


def cache_folder(cfg: DatasetConfig, split: str) -> Path:
    """Return the folder of a split's cache: one for each data set, split and root."""
    parent = Path(cfg.cache_root or os.environ.get("CYCLENET_CACHE") or "data/cache")
    return parent / f"{cfg.name}-{split}-{derive(str(find_root(cfg).resolve())):08x}"


def open_cache(source: FolderSource, folder: Path) -> CachedSource | None:
    """Open a cache; None where there is none that is whole and of the source as it is now."""
    try:
        index = parse_json(dict[str, Any], (folder / "index.json").read_bytes())
        size = (folder / "pixels.bin").stat().st_size
        whole = index["format"] == FORMAT and index["bytes"] == size
    except (OSError, ValueError, KeyError):
        return None
    if not whole or index["stamps"] != source_stamps(source):
        return None
    return CachedSource(source, folder, index["entries"])


def pair_bytes(size: tuple[int, int]) -> int:
    """Return the bytes of an image and its mask, from their (height, width)."""
    return size[0] * size[1] * 4


def source_stamps(source: FolderSource) -> list[list[Any]]:
    """Describe a source's files: paths, sizes, times, and what their ids mean.

    A cache is outdated where these differ.
    """
    ids = derive(*source.meaning)
    stamps, parents = [], dict[Path, Path]()
    for pair in source.pairs:
        files = [path.stat() for path in (pair.image, pair.mask) if path.exists()]
        numbers = [value for s in files for value in (s.st_size, s.st_mtime_ns)]
        paths = []
        for path in (pair.image, pair.mask):
            if path.parent not in parents:  # Another name of the root is no other data.
                parents[path.parent] = path.parent.resolve()
            paths.append(str(parents[path.parent] / path.name))
        stamps.append([*paths, ids, *numbers])
    return stamps


def _file_identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = (folder / "pixels.bin").stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns
