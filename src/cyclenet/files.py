"""Files that other processes may read at any moment: written whole, or not at all."""

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock

T = TypeVar("T")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to, and rename it to ``path`` when the block ends.

    A reader sees the old file or the new one. Where the block raises, the old file stays and the
    part is removed. The folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays, because some writers choose the format by it.
    part = path.with_name(f".tmp{os.getpid()}-{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with atomic_write(path) as part:
        part.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as a whole; dataclasses become objects. NaN is refused."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def parse_json(kind: type[T], text: str | bytes) -> T:
    """Parse JSON into a dataclass and check every type.

    Raises:
        ValueError: the text is not JSON, or a value is missing or has another type.
    """
    # It costs a tenth of a second, which --help need not pay.
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_json(text)


def read_json(kind: type[T], path: Path) -> T | None:
    """Read a JSON file into a dataclass; None where there is none or it does not fit."""
    try:
        return parse_json(kind, path.read_bytes())
    except (OSError, ValueError):
        return None


def lock(path: Path, seconds: float) -> BaseFileLock:
    """Take a lock file that other processes respect; release it with ``release``.

    The system releases it when the process ends, however it ends.

    Args:
        path: the lock file.
        seconds: how long to wait for it; -1 for ever.

    Raises:
        filelock.Timeout: another process holds it.
        NotImplementedError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path, timeout=seconds)
    held.acquire()
    return held


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for the block; wait for it as long as it takes."""
    held = lock(path, seconds=-1)
    try:
        yield
    finally:
        held.release()
