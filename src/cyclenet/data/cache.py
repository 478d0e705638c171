"""A copy of a split's pixels as they leave the decoder, from which a window is read without reading the rest.

One file a split holds images and train ids, uncompressed; it is mapped into memory, so all loader processes share the
system's page cache. It is written beside its place and renamed when it is whole, and is not used when a source file has
changed since.
"""

import errno
import fcntl
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cyclenet.config import DatasetConfig
from cyclenet.data.base import FolderSource, Source, find_root
from cyclenet.data.images import DataError
from cyclenet.data.loader import check_sizes, cores, derive

FORMAT = 1
PAGE = 4096  # Pairs begin at pages of memory.


class CachedSource(Source):
    """A source whose pixels come from a cache; read-only views of the mapped file, no copies.

    A pair's checksum is verified when a process reads it for the first time.
    """

    def __init__(self, source: FolderSource, folder: Path, entries: list[dict[str, Any]]) -> None:
        self.source, self.folder, self.entries = source, folder, entries
        self.classes, self.palette = source.classes, source.palette
        self.verified = np.zeros(len(entries), bool)
        # Now, so that this process and its forks keep these pixels where the cache is replaced.
        self.file = _identity(folder)
        self.pixels: np.ndarray | None = self._map()

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def image(self, index: int) -> np.ndarray:
        """View an image's pixels. Raises `DataError` if the cache is damaged."""
        height, width = self.entries[index]["size"]
        return self._pair(index)[: height * width * 3].reshape(height, width, 3)

    def mask(self, index: int) -> np.ndarray:
        """View a mask's train ids. Raises `DataError` if the cache is damaged."""
        height, width = self.entries[index]["size"]
        return self._pair(index)[height * width * 3 :].reshape(height, width)

    def _map(self) -> np.ndarray:
        if _identity(self.folder) != self.file:
            raise DataError(f"{self.folder} was replaced or deleted while it was in use: run the same command again.")
        return np.memmap(self.folder / "pixels.bin", np.uint8, "r").view(np.ndarray)

    def _pair(self, index: int) -> np.ndarray:
        if self.pixels is None:
            self.pixels = self._map()
        entry = self.entries[index]
        pair = self.pixels[entry["start"] : entry["start"] + _bytes(entry["size"])]
        if not self.verified[index]:
            if zlib.crc32(pair.data) != entry["crc32"]:
                raise DataError(f"{self.folder} is damaged at {self.name(index)}: delete that folder, it can be made again.")
            self.verified[index] = True
        return pair

    def __getstate__(self) -> dict[str, Any]:
        # Mapped anew in another process, not copied to it.
        return self.__dict__ | {"pixels": None, "verified": np.zeros(len(self), bool)}


def cached(source: Source, cfg: DatasetConfig, split: str, build: bool = False) -> Source:
    """Return a source that reads from its cache where there is a valid one, else the source itself.

    Args:
        source: a whole split.
        cfg: the data set; ``cache`` says whether one is used and made, ``cache_root`` where it lies.
        split: the split's name.
        build: make it where it is missing or outdated, if ``cfg.cache`` allows: ``auto`` where it leaves as much room again.

    Raises:
        DataError: a file cannot be read; or with ``cache=always`` there is no room.
    """
    if cfg.cache == "never" or not isinstance(source, FolderSource):
        return source
    folder = cache_folder(cfg, split)
    found = _open(source, folder)
    if found or not build:
        return found or source
    try:
        with _locked(folder):
            # Another process may have made it meanwhile.
            reason = "" if _open(source, folder) else _make(source, folder, cfg.cache == "always")
            found = _open(source, folder)
    except OSError as error:
        reason = str(error)
    if found:
        return found
    reason = reason or f"{folder} was removed, or its sources were changed, just now"
    if cfg.cache == "always":
        raise DataError(f"{reason}: set dataset.cache_root to another disk, or dataset.cache=never.")
    print(f"No cache: {reason}. (dataset.cache_root sets another disk.)", file=sys.stderr)
    return source


def cache_folder(cfg: DatasetConfig, split: str) -> Path:
    """Return the folder of a split's cache: one for each data set, split and root."""
    parent = Path(cfg.cache_root or os.environ.get("CYCLENET_CACHE") or "data/cache")
    return parent / f"{cfg.name}-{split}-{derive(str(find_root(cfg).resolve())):08x}"


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = (folder / "pixels.bin").stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _bytes(size: tuple[int, int]) -> int:
    return size[0] * size[1] * 4


def _stamps(source: FolderSource) -> list[list[Any]]:
    # What tells that a file is another than it was, and that its ids mean what they meant.
    ids = derive(*source.ids.tolist())
    stamps = []
    for pair in source.pairs:
        files = [path.stat() for path in (pair.image, pair.mask) if path.exists()]
        stamps.append([pair.name, pair.mask.name, ids, *(value for s in files for value in (s.st_size, s.st_mtime_ns))])
    return stamps


def _open(source: FolderSource, folder: Path) -> CachedSource | None:
    try:
        index = json.loads((folder / "index.json").read_text())
        size = (folder / "pixels.bin").stat().st_size
        whole = index["format"] == FORMAT and index["bytes"] == size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole or index["stamps"] != _stamps(source):
        return None
    return CachedSource(source, folder, index["entries"])


def _make(source: FolderSource, folder: Path, always: bool) -> str:
    # Returns why there is none, or "".
    stamps = _stamps(source)
    entries: list[dict[str, Any]] = []
    total = 0
    for number, pair in enumerate(source.pairs):
        try:
            with Image.open(pair.image) as file:  # Its header only.
                size = (file.height, file.width)
        except Exception:
            size = source.image(number).shape[:2]  # Says what is wrong with it.
        entries.append({"start": total, "size": size})
        total += -(-_bytes(size) // PAGE) * PAGE
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{folder.name}.tmp*"):
        shutil.rmtree(left, ignore_errors=True)  # Of a process that was killed: this one has the lock.
    free = shutil.disk_usage(folder.parent).free
    if total * (1 if always else 2) > free:
        return f"{folder} would take {total / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free there"
    part = folder.with_name(f"{folder.name}.tmp{os.getpid()}")
    part.mkdir()
    try:
        _write(source, part, entries, total, f"{folder} ({total / 1e9:.2f} GB, once)")
        content = {"format": FORMAT, "bytes": total, "stamps": stamps, "entries": entries}
        (part / "index.json").write_text(json.dumps(content))
        if _stamps(source) != stamps:
            raise DataError(f"Files of {source.pairs[0].image.parent} changed while they were read: try again.")
        old = folder.with_name(f"{folder.name}.tmp{os.getpid()}.old")
        if folder.exists():
            folder.rename(old)  # Processes that have it mapped keep it.
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ""


def _write(source: FolderSource, part: Path, entries: list[dict[str, Any]], total: int, title: str) -> None:
    from rich.progress import track

    with (part / "pixels.bin").open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # A disk that is full says so now.
            os.posix_fallocate(file.fileno(), 0, total)

        def write(index: int) -> int:
            image, mask = source.image(index), source.mask(index)
            check_sizes(source.name(index), image, mask)
            pixels = image.tobytes() + mask.tobytes()
            if os.pwrite(file.fileno(), pixels, entries[index]["start"]) != len(pixels):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
            return zlib.crc32(pixels)

        # Threads: decoders and checksums let others run.
        terminal = sys.stderr.isatty()
        if not terminal:
            print(f"Writing {title}", file=sys.stderr)
        with ThreadPoolExecutor(cores()) as pool:
            try:
                sums = pool.map(write, range(len(entries)))
                for entry, value in zip(entries, track(sums, title, len(entries), disable=not terminal), strict=True):
                    entry["crc32"] = value
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        os.fsync(file.fileno())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process writes {folder}; waiting for it.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # Two that write at once would delete each other's work.
            raise OSError(f"the file system of {folder.parent} has no locks") from error
        yield
