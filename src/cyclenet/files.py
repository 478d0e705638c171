"""Files that other processes may read at any moment: written whole, or not at all.

A name from outside becomes the name of a file in `safe_name` alone.
"""

import dataclasses
import errno
import json
import os
import re
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, Timeout

T = TypeVar("T")

MOST_YAML_BYTES, MOST_YAML_DEPTH = 1 << 20, 50
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
"""Names that Windows keeps for devices."""


def safe_name(text: str) -> str:
    """Make the name of a file or folder from a text that came from outside.

    A text that is a plain name stays as it is. Otherwise its other signs become _, and a checksum
    keeps different texts apart.
    """
    name = re.sub(r"[^\w.+=@-]", "_", text).lstrip(".-").rstrip(".")
    # File systems allow 255 bytes; a name that was cut, with its checksum, must not be cut again.
    if len(name.encode()) > 200:
        name = name.encode()[:150].decode(errors="ignore").rstrip(".")
    name = f"_{name}" if not name or RESERVED.match(name) else name
    if name == text:
        return name
    return f"{name}-{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def printable(text: str) -> str:
    """Escape what is no UTF-8, as names of files may have, so that the text can be printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def _thread() -> str:
    """Tell a thread from the others of this process; the main one has no mark."""
    if threading.current_thread() is threading.main_thread():
        return ""
    return f"t{threading.get_ident()}"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to, and rename it to ``path`` when the block ends.

    A reader sees the old file or the new one. Where the block raises, the old file stays and the
    part is removed. The folder is created.

    Raises:
        OSError: it could not be written; the error names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays, because some writers choose the format by it.
    part = path.with_name(f".tmp{os.getpid()}{_thread()}-{path.name[-100:]}")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        # Where a write fails, the system's error names no file, or the part.
        if error.filename is None or Path(str(error.filename)) == part:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with atomic_write(path) as part:
        # A file's name may have bytes that are no UTF-8.
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte-order mark.

    Raises:
        ValueError: it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8.") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file that someone else may have written, into plain values.

    Anchors, which can grow without bound, and interpolations are not read.

    Raises:
        ValueError: it is no YAML, too large or too deep, or has anchors.
        OSError: it cannot be read.
    """
    import yaml

    if path.stat().st_size > MOST_YAML_BYTES:
        raise ValueError(f"{path} is larger than 1 MB: it is no configuration.")
    text = read_text(path)
    try:
        depth = 0
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):
                raise ValueError(f"{path} has YAML anchors (*name), which are not read.")
            name = type(token).__name__
            depth += name.endswith("StartToken") - name.endswith("EndToken")
            if depth > MOST_YAML_DEPTH:
                raise ValueError(f"{path} is nested too deeply to be a configuration.")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error


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

    try:
        return TypeAdapter(kind).validate_json(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


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
    """Hold a lock file for the block; say so where another process holds it, and wait for it.

    Raises:
        OSError: the file system has no locks. Two processes that write at once would delete each
            other's work.
    """
    try:
        try:
            held = lock(path, seconds=0)
        except Timeout:
            print(f"Another process holds {path}; waiting for it.", file=sys.stderr)
            held = lock(path, seconds=-1)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOLCK):
            raise
        raise OSError(f"the file system of {path.parent} has no locks ({error})") from error
    try:
        yield
    finally:
        held.release()
