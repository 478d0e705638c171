"""Any data set, laid out in folders: ``dataset=folder dataset.root=DIR``."""

from pathlib import Path

import numpy as np

from cyclenet.data.base import FolderSource, Pair, find_files, list_split, list_tree
from cyclenet.data.folds import choose_fold, is_fold, read_folds
from cyclenet.data.images import IMAGE_ENDINGS, DataError
from cyclenet.files import read_text
from cyclenet.labels import IGNORE, color_map

UNREAD_ENDINGS = {".gif", ".jp2", ".heic", ".heif", ".avif", ".tga", ".exr", ".jfif", ".npy"}
"""Endings of pictures that are not read, but named."""


class Folder(FolderSource):
    """``images/<split>/NAME.jpg`` (or another image), ``masks/<split>/NAME.png``, ``classes.txt``.

    NAME may have subfolders, and endings any case. A mask holds the number of a pixel's line in
    ``classes.txt``, counted from 0; 255 is ignored. The colours are PASCAL VOC's. ``folds.csv``
    may put images into folds, whatever their split: a line ``<split>/NAME,<number>`` for each.
    """

    def __init__(self, split: str, root: Path) -> None:
        folds = read_folds(root / "folds.csv") if is_fold(split) else {}
        inside = "." if folds else split
        list_split(root / "images" / inside, "*")  # It names the splits that there are.
        images = list_tree(root / "images" / inside, IMAGE_ENDINGS)
        folder = root / "masks" / inside
        masks = list_tree(folder, {".png"})
        pairs = [
            Pair(name, image, masks.get(name, folder / f"{name}.png"))
            for name, image in images.items()
        ]
        if folds:
            if missing := [name for name in folds if name not in images]:
                raise DataError(
                    f"{root}/folds.csv names {missing[0]}, but there is no such image in "
                    f"{root}/images."
                )
            pairs, masks = choose_fold(split, pairs, folds, {}), {}
        super().__init__(pairs, f"{root}/images/{split}", list(masks.values()))
        if masks and not any(name in masks for name in images):
            raise DataError(
                f"No image of {root}/images/{split} has a mask of its name; masks there are called "
                f"like {next(iter(masks))}.png: name masks as their images ({pairs[0].name}.png)."
            )
        self.folders = (root / "images" / inside, folder)
        self.classes = _read_names(root / "classes.txt")
        count = len(self.classes)
        self.palette = color_map(count)
        self.ids = np.concatenate([np.arange(count), np.full(255 - count, -1), [IGNORE]])
        self.legal = f"0..{count - 1} (the lines of classes.txt) and 255"

    def strays(self) -> list[str]:
        """Name masks without an image, and pictures of a kind that is not read."""
        pictures = IMAGE_ENDINGS | UNREAD_ENDINGS
        images, masks = (find_files(folder, pictures) for folder in self.folders)
        return super().strays() + [
            f"{path} is not read: {what} end in {' '.join(sorted(endings))}."
            for files, what, endings in (
                (images, "images", IMAGE_ENDINGS),
                (masks, "masks", {".png"}),
            )
            for path in files
            if path.suffix.lower() not in endings
        ]


def _read_names(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: write the classes' names into it, a line each, in the order "
            "of their ids."
        )
    names = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if "" in names:
        raise DataError(
            f"{path} has an empty line {names.index('') + 1}, and a class's id is the number of "
            "its line: name every id."
        )
    if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
        raise DataError(
            f"{path} must name 2 to 255 different classes, a line each; it has {len(names)}."
        )
    return names
