"""Any data set, laid out in folders: ``dataset=folder dataset.root=DIR``."""

from collections import Counter
from pathlib import Path

import numpy as np

from cyclenet.data.base import FolderSource, Pair, list_split
from cyclenet.data.images import IMAGE_ENDINGS, DataError
from cyclenet.labels import IGNORE, color_map


class Folder(FolderSource):
    """``images/<split>/NAME.jpg`` (or another image), ``masks/<split>/NAME.png``, ``classes.txt``.

    A mask holds the number of a pixel's line in ``classes.txt``, counted from 0; 255 is ignored.
    The colours are PASCAL VOC's.
    """

    def __init__(self, split: str, root: Path) -> None:
        found = list_split(root / "images" / split, "*")
        images = [path for path in found if path.suffix.lower() in IMAGE_ENDINGS]
        folder = root / "masks" / split
        pairs = [Pair(image.stem, image, folder / f"{image.stem}.png") for image in images]
        for name, count in Counter(pair.name for pair in pairs).items():
            if count > 1:
                raise DataError(
                    f"{root}/images/{split} has two images named {name}: "
                    "remove one, for they share a mask."
                )
        super().__init__(pairs, f"{root}/images/{split}", list(folder.glob("*.png")))
        self.classes = _read_names(root / "classes.txt")
        count = len(self.classes)
        self.palette = color_map(count)
        self.ids = np.concatenate([np.arange(count), np.full(255 - count, -1), [IGNORE]])
        self.legal = f"0..{count - 1} (the lines of classes.txt) and 255"


def _read_names(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: write the classes' names into it, a line each, in the order "
            "of their ids."
        )
    names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
        raise DataError(
            f"{path} must name 2 to 255 different classes, a line each; it has {len(names)}."
        )
    return names
