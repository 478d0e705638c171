"""Predictions in the form that the benchmarks' servers take, checked to be complete and legal."""

import hashlib
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.progress import track

from cyclenet.config.choices import DATASETS
from cyclenet.config.commands import SubmitConfig
from cyclenet.data.base import Pair
from cyclenet.data.images import DataError
from cyclenet.data.open import check_classes, open_split
from cyclenet.deploy.load import find, load, run_of
from cyclenet.files import atomic_write, read_json, safe_name, write_json

MOST_NAMED = 5  # Wrong files that a message names.


@dataclass
class MadeBy:
    """What the PNGs of a submission were made by: checkpoint, protocol, images and their folder.

    It lies beside the folder, and a stopped submission continues only where it is the same.
    """

    sha256: str
    protocol: str
    root: str
    images: str = ""


def submit(cfg: SubmitConfig) -> tuple[Path, int]:
    """Predict a split, check it and zip it; continue where the same was stopped.

    Returns:
        The .zip, and the number of its files.

    Raises:
        ValueError: the data set has no server or other classes than the model, or the predictions
            are not whole.
    """
    ids = server_ids(cfg.dataset.name)
    source = open_split(cfg.dataset, cfg.split)
    checkpoint = find(cfg.ckpt_path).resolve()
    model = load(checkpoint, device=cfg.accelerator, protocol=cfg.protocol)
    check_classes(source, model.classes, cfg.dataset.name, cfg.ckpt_path)
    name = safe_name(f"{cfg.dataset.name}-{cfg.split}-{cfg.protocol.name}")
    folder = Path(cfg.output) if cfg.output else run_of(checkpoint) / "submit" / name
    folder.mkdir(parents=True, exist_ok=True)
    _start(folder, source.pairs, checkpoint, cfg.protocol.describe())
    numbers = track(range(len(source)), cfg.split, disable=not sys.stderr.isatty())
    for index in numbers:
        path = folder / file_name(source.pairs[index])
        if not path.is_file():
            write_prediction(path, model.predict(source.image(index)).labels, ids)
    return pack(folder, source.pairs, ids), len(source)


def _start(folder: Path, pairs: Sequence[Pair], checkpoint: Path, protocol: str) -> None:
    """Remove PNGs that another model or protocol made.

    Raises:
        ValueError: files of the submission's names are there that no submission made.
    """
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    stats = [(pair.image.name, pair.image.stat()) for pair in pairs]
    stamps = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    images = hashlib.sha256(stamps.encode()).hexdigest()
    made_by = MadeBy(sha256, protocol, str(pairs[0].image.resolve().parent), images)
    note = folder.with_name(folder.name + ".json")
    target = folder.with_name(folder.name + ".zip")
    before = read_json(MadeBy, note)
    there = [path for path in (target, *(folder / file_name(p) for p in pairs)) if path.exists()]
    if before is None and there:
        raise ValueError(f"{there[0]} would be replaced, and no submission made it: set output=.")
    if before and not before.images:  # An earlier version did not note them.
        before.images = images
    if before != made_by:  # The .zip stands until the new one is whole.
        for path in set(there) - {target}:
            path.unlink(missing_ok=True)
        write_json(note, made_by)
    for part in folder.glob(".tmp[0-9]*-*.png"):
        part.unlink()


def server_ids(dataset: str) -> np.ndarray:
    """Return the id that a data set's server wants for each train id, (num_classes,) uint8.

    Raises:
        ValueError: the data set has no server.
    """
    ids: np.ndarray | None = DATASETS[dataset].load().server_ids
    if ids is None:
        served = [name for name, row in DATASETS.items() if row.load().server_ids is not None]
        raise ValueError(
            f"dataset={dataset} has no test server; submissions are for {' and '.join(served)}."
        )
    return ids


def file_name(pair: Pair) -> str:
    """Name a file of a submission: the image's name, as PNG."""
    return f"{pair.image.stem}.png"


def write_prediction(path: Path, prediction: np.ndarray, ids: np.ndarray) -> None:
    """Write train ids (H, W) as a PNG of the server's ids."""
    with atomic_write(path) as part:
        Image.fromarray(ids[prediction]).save(part, format="PNG")


def check(folder: Path, pairs: Sequence[Pair], ids: np.ndarray) -> None:
    """Check that a folder holds one legal prediction of full size for every image, and no more.

    Raises:
        DataError: naming what is wrong, at most five files of it.
    """
    names = {file_name(pair) for pair in pairs}
    extra = sorted({path.name for path in folder.iterdir()} - names)
    wrong = [f"{name} is one too many" for name in extra]
    for pair in pairs:
        if fault := _fault(folder / file_name(pair), pair.image, ids):
            wrong.append(f"{file_name(pair)} {fault}")
    if wrong:
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise DataError(f"{folder} is no whole submission: {'; '.join(wrong[:MOST_NAMED])}{more}.")


def _fault(path: Path, image: Path, ids: np.ndarray) -> str:
    """Say what is wrong with a prediction; "" where nothing is."""
    if not path.is_file():
        return "is missing"
    try:
        with Image.open(path) as file, Image.open(image) as original:
            mode, size, labels = file.mode, file.size, np.asarray(file)
            wanted = ImageOps.exif_transpose(original).size
    except OSError:
        return "cannot be read"
    if mode != "L":
        return f"is not an 8-bit image of ids but of mode {mode}"
    if size != wanted:
        return f"is {size[0]}x{size[1]} instead of {wanted[0]}x{wanted[1]}"
    illegal = np.setdiff1d(labels, ids)
    if len(illegal):
        return f"has the illegal id {', '.join(map(str, illegal[:5]))}"
    return ""


def pack(folder: Path, pairs: Sequence[Pair], ids: np.ndarray) -> Path:
    """Check a submission and zip it beside its folder; return the .zip. Raises as `check`."""
    check(folder, pairs, ids)
    target = folder.with_name(folder.name + ".zip")
    # The files are stored as they are, because PNGs do not shrink.
    with atomic_write(target) as part, zipfile.ZipFile(part, "w") as archive:
        for pair in pairs:
            archive.write(folder / file_name(pair), file_name(pair))
    return target
