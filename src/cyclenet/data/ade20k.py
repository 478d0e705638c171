"""ADE20K's scene parsing benchmark: ADEChallengeData2016, 150 classes.

Source: http://sceneparsing.csail.mit.edu.
"""

from pathlib import Path

import numpy as np

from cyclenet.data.base import FolderSource, Pair, list_split
from cyclenet.data.images import DataError
from cyclenet.files import read_text
from cyclenet.labels import IGNORE, color_map

NUM_CLASSES = 150


class ADE20K(FolderSource):
    """The official layout: ``images/<split>/*.jpg`` and ``annotations/<split>/*.png``.

    File id 0 is "other objects" and ignored; 1..150 become 0..149. The benchmark defines no
    colours, so they are PASCAL VOC's. ``root`` may be the folder or its parent.
    """

    palette = color_map(NUM_CLASSES)
    ids = np.concatenate([[IGNORE], np.arange(NUM_CLASSES), np.full(255 - NUM_CLASSES, -1)])
    legal = "ADE20K's 0..150"
    server_ids = np.arange(1, NUM_CLASSES + 1, dtype=np.uint8)

    def __init__(self, split: str, root: Path) -> None:
        inner = root / "ADEChallengeData2016"
        root = inner if inner.is_dir() else root
        folder = root / "annotations" / split
        images = list_split(root / "images" / split, "*.jpg")
        pairs = [Pair(image.stem, image, folder / f"{image.stem}.png") for image in images]
        super().__init__(pairs, f"{root}/images/{split}", list(folder.glob("*.png")))
        self.classes = _read_names(root / "objectInfo150.txt")


def _read_names(path: Path) -> list[str]:
    # The columns are Idx, Ratio, Train, Val, Name; a name is a list of synonyms.
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: it comes with ADEChallengeData2016.zip and names the classes."
        )
    lines = read_text(path).splitlines()[1:]
    names = [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip()]
    if len(names) != NUM_CLASSES:
        raise DataError(
            f"{path} names {len(names)} classes instead of {NUM_CLASSES}; unpack it again."
        )
    return names
