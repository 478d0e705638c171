"""Cityscapes: leftImg8bit and gtFine, 34 label ids mapped to 19 train ids.

Source: https://www.cityscapes-dataset.com.
"""

from pathlib import Path

import numpy as np
from torchvision.datasets import Cityscapes as Torchvision

from cyclenet.data.base import FolderSource, Pair, list_split
from cyclenet.data.images import read_ids
from cyclenet.labels import IGNORE

LABELS = [label for label in Torchvision.classes if label.id >= 0]
TRAIN_LABELS = sorted(
    (label for label in LABELS if 0 <= label.train_id < IGNORE), key=lambda label: label.train_id
)
CLASSES = [label.name for label in TRAIN_LABELS]
PALETTE = np.array([label.color for label in TRAIN_LABELS], np.uint8)


def _label_ids() -> np.ndarray:
    ids = np.full(256, -1)
    for label in LABELS:
        ids[label.id] = label.train_id if 0 <= label.train_id < IGNORE else IGNORE
    return ids


def _train_ids() -> np.ndarray:
    ids = np.full(256, -1)
    ids[: len(CLASSES)] = np.arange(len(CLASSES))
    ids[IGNORE] = IGNORE
    return ids


class Cityscapes(FolderSource):
    """The official layout: ``leftImg8bit/<split>/<city>/*`` and ``gtFine/<split>/<city>/*``.

    The split ``train_extra`` has the coarse masks, ``gtCoarse/train_extra/<city>/*``.

    Masks are ``*_gtFine_labelIds.png`` (34 ids), mapped while loading. Where a pair has only a
    prepared ``*_gtFine_labelTrainIds.png``, that is read as it is. A mask that is saved under
    the other kind's name is refused: its ids are illegal there.
    """

    classes = CLASSES
    palette = PALETTE
    ids = _label_ids()
    legal = "Cityscapes' label ids 0..33 (19 train ids with 255 belong in *_labelTrainIds.png)"
    server_ids = np.array([label.id for label in TRAIN_LABELS], np.uint8)

    def __init__(self, split: str, root: Path) -> None:
        pairs, kind = [], "gtCoarse" if split == "train_extra" else "gtFine"
        for image in list_split(root / "leftImg8bit" / split, "*/*_leftImg8bit.png"):
            name = image.name.removesuffix("_leftImg8bit.png")
            folder = root / kind / split / image.parent.name
            mask = folder / f"{name}_{kind}_labelIds.png"
            prepared = folder / f"{name}_{kind}_labelTrainIds.png"
            use_prepared = prepared.exists() and not mask.exists()
            pairs.append(Pair(name, image, prepared if use_prepared else mask))
        masks = list((root / kind / split).glob(f"*/*_{kind}_labelIds.png"))
        super().__init__(pairs, f"{root}/leftImg8bit/{split}", masks)

    def mask(self, index: int) -> np.ndarray:
        path = self.pairs[index].mask
        if path.name.endswith("labelTrainIds.png"):
            return read_ids(path, _train_ids(), "Cityscapes' train ids 0..18 and 255")
        return super().mask(index)
