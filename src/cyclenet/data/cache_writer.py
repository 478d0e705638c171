"""Write the cache of a split's pixels.

One process holds the lock and writes to a temporary folder, which is renamed when it is whole.
"""

import errno
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

from cyclenet.data.base import FolderSource, check_sizes
from cyclenet.data.cache import FORMAT, open_cache, pair_bytes, source_stamps
from cyclenet.data.images import DataError
from cyclenet.devices import cores
from cyclenet.files import locked, write_text
from cyclenet.processes import map_in_threads

PAGE = 4096  # Pairs begin at pages of memory.


def build_cache(source: FolderSource, folder: Path, insist: bool) -> str:
    """Write the cache unless another process does; return why there is none, or "".

    Args:
        source: a whole split.
        folder: folder of the cache.
        insist: write it even where it does not leave as much room again.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(folder.name + ".lock")):
            # Another process may have made it meanwhile.
            return "" if open_cache(source, folder) else _make(source, folder, insist)
    except OSError as error:
        return str(error)


def _make(source: FolderSource, folder: Path, insist: bool) -> str:
    stamps = source_stamps(source)
    entries, total = _layout(source)
    for left in folder.parent.glob(f"{folder.name}.tmp*"):
        # A killed process left it; this one has the lock.
        shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    if total * (1 if insist else 2) > free:
        return (
            f"{folder} would take {total / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free "
            "there"
        )
    part = folder.with_name(f"{folder.name}.tmp{os.getpid()}")
    part.mkdir()
    try:
        _write(source, part, entries, total, f"{folder} ({total / 1e9:.2f} GB, once)")
        content = {"format": FORMAT, "bytes": total, "stamps": stamps, "entries": entries}
        write_text(part / "index.json", json.dumps(content))
        if source_stamps(source) != stamps:
            raise DataError(
                f"Files of {source.pairs[0].image.parent} changed while they were read: try again."
            )
        old = folder.with_name(f"{folder.name}.tmp{os.getpid()}.old")
        if folder.exists() and not (folder / "index.json").is_file():
            raise DataError(f"{folder} is no cache: move it away, or set dataset.cache_root.")
        if folder.exists():
            folder.rename(old)  # Processes that have it mapped keep it.
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ""


def _layout(source: FolderSource) -> tuple[list[dict[str, Any]], int]:
    """Return where each pair begins and its size (height, width), and the bytes of all."""
    entries: list[dict[str, Any]] = []
    total = 0
    for number, pair in enumerate(source.pairs):
        try:
            with Image.open(pair.image) as file:  # This reads its header only.
                size = (file.height, file.width)
        except Exception:
            height, width = source.image(number).shape[:2]  # It says what is wrong with the file.
            size = (height, width)
        entries.append({"start": total, "size": size})
        total += -(-pair_bytes(size) // PAGE) * PAGE
    return entries, total


def _write(
    source: FolderSource, part: Path, entries: list[dict[str, Any]], total: int, title: str
) -> None:
    with (part / "pixels.bin").open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # A full disk says so now.
            os.posix_fallocate(file.fileno(), 0, total)

        def write(index: int) -> int:
            image, mask = source.image(index), source.mask(index)
            check_sizes(source.name(index), image, mask)
            entries[index]["size"] = image.shape[:2]  # A camera's image may lie turned in its file.
            pixels = image.tobytes() + mask.tobytes()
            if os.pwrite(file.fileno(), pixels, entries[index]["start"]) != len(pixels):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
            return zlib.crc32(pixels)

        # Threads suffice: decoders and checksums let others run.
        sums = map_in_threads(write, range(len(entries)), f"Writing {title}", cores())
        for entry, value in zip(entries, sums, strict=True):
            entry["crc32"] = value
        os.fsync(file.fileno())
