"""Predictions in the form that the benchmarks' servers take, and the check that they are complete and legal."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from cyclenet.data.ade20k import NUM_CLASSES
from cyclenet.data.base import FolderSource
from cyclenet.data.cityscapes import LABEL_IDS
from cyclenet.data.images import DataError

# Id in the file of each train id.
FILE_IDS = {"cityscapes": LABEL_IDS, "ade20k": np.arange(1, NUM_CLASSES + 1, dtype=np.uint8)}


def file_ids(dataset: str) -> np.ndarray:
    """Return the file id of each train id (num_classes,) uint8: Cityscapes' labelIds, ADE20K's 1..150.

    Raises:
        ValueError: the data set has no server.
    """
    if dataset not in FILE_IDS:
        raise ValueError(f"dataset={dataset} has no test server; submissions are for {' and '.join(FILE_IDS)}.")
    return FILE_IDS[dataset]


def file_names(source: FolderSource) -> list[str]:
    """Name the files of a submission: those of the images, as PNG."""
    return [f"{pair.image.stem}.png" for pair in source.pairs]


def write_prediction(path: Path, prediction: np.ndarray, ids: np.ndarray) -> None:
    """Write train ids (H, W) as a PNG of file ids; it is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    Image.fromarray(ids[prediction]).save(part, format="PNG")
    part.replace(path)


def check(folder: Path, source: FolderSource, ids: np.ndarray) -> None:
    """Check that a folder holds one legal prediction of full size for every image, and no other file.

    Raises:
        DataError: naming what is wrong, at most five files of it.
    """
    names = file_names(source)
    wrong = [f"{name} is one too many" for name in sorted({p.name for p in folder.iterdir()} - set(names))]
    for name, pair in zip(names, source.pairs, strict=True):
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
            continue
        try:
            with Image.open(path) as file, Image.open(pair.image) as image:
                mode, size, wanted, labels = file.mode, file.size, image.size, np.asarray(file)
        except OSError:
            wrong.append(f"{name} cannot be read")
            continue
        illegal = np.setdiff1d(labels, ids)
        if mode != "L":
            wrong.append(f"{name} is not an 8-bit image of ids but of mode {mode}")
        elif size != wanted:
            wrong.append(f"{name} is {size[0]}x{size[1]} instead of {wanted[0]}x{wanted[1]}")
        elif len(illegal):
            wrong.append(f"{name} has the illegal id {', '.join(map(str, illegal[:5]))}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DataError(f"{folder} is no whole submission: {'; '.join(wrong[:5])}{more}.")


def pack(folder: Path, source: FolderSource, ids: np.ndarray) -> Path:
    """Check a submission and zip it beside its folder; return the .zip. Raises `DataError` as `check`."""
    check(folder, source, ids)
    target = folder.with_name(folder.name + ".zip")
    part = target.with_name(target.name + ".tmp")
    with zipfile.ZipFile(part, "w") as archive:  # Stored: PNGs do not shrink.
        for name in file_names(source):
            archive.write(folder / name, name)
    part.replace(target)
    return target
