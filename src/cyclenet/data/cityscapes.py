"""Cityscapes: leftImg8bit and gtFine, 34 label ids mapped to 19 train ids (https://www.cityscapes-dataset.com)."""

from pathlib import Path

import numpy as np
from torchvision.datasets import Cityscapes as Torchvision

from cyclenet.data.base import FolderSource, Pair, list_split
from cyclenet.data.images import IGNORE, read_ids

LABELS = [label for label in Torchvision.classes if label.id >= 0]
TRAIN_LABELS = sorted((label for label in LABELS if 0 <= label.train_id < IGNORE), key=lambda label: label.train_id)
CLASSES = [label.name for label in TRAIN_LABELS]
PALETTE = np.array([label.color for label in TRAIN_LABELS], np.uint8)
LABEL_IDS = np.array([label.id for label in TRAIN_LABELS], np.uint8)
"""(19,) label id of each train id, for the test server."""


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

    Masks are ``*_gtFine_labelIds.png`` (34 ids), mapped while loading; where a pair has only a pre-made
    ``*_gtFine_labelTrainIds.png``, that is taken as it is. One under the other's name is refused by its ids.
    """

    classes = CLASSES
    palette = PALETTE
    ids = _label_ids()
    legal = "Cityscapes' label ids 0..33 (19 train ids with 255 belong in *_labelTrainIds.png)"

    def __init__(self, root: Path, split: str) -> None:
        images = list_split(root / "leftImg8bit" / split, "*/*_leftImg8bit.png")
        pairs = []
        for image in images:
            name = image.name.removesuffix("_leftImg8bit.png")
            folder = root / "gtFine" / split / image.parent.name
            mask, premade = folder / f"{name}_gtFine_labelIds.png", folder / f"{name}_gtFine_labelTrainIds.png"
            pairs.append(Pair(name, image, premade if premade.exists() and not mask.exists() else mask))
        masks = list((root / "gtFine" / split).glob("*/*_gtFine_labelIds.png"))
        super().__init__(pairs, f"{root}/leftImg8bit/{split}", masks)

    def mask(self, index: int) -> np.ndarray:
        path = self.pairs[index].mask
        if path.name.endswith("labelTrainIds.png"):
            return read_ids(path, _train_ids(), "Cityscapes' train ids 0..18 and 255")
        return super().mask(index)
