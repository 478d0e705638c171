"""Data sets as numbered pairs of image and mask, before any augmentation."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cyclenet.config import DatasetConfig
from cyclenet.data.images import DataError, read_ids, read_image


class Source(ABC):
    """Numbered pairs: `image(i)` is (H, W, 3) uint8 RGB, `mask(i)` is (H, W) uint8 train ids with 255 ignored.

    Attributes:
        classes: names, by train id.
        palette: (num_classes, 3) uint8 colours, by train id.
    """

    classes: list[str]
    palette: np.ndarray

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Name a pair, unique in the split."""

    def strays(self) -> list[str]:
        """Name files that belong to no pair, a sentence each."""
        return []

    @abstractmethod
    def image(self, index: int) -> np.ndarray: ...

    @abstractmethod
    def mask(self, index: int) -> np.ndarray: ...


class Pair(NamedTuple):
    """Two files, and their common name."""

    name: str
    image: Path
    mask: Path


class FolderSource(Source):
    """Pairs of files in a folder.

    A subclass sets `classes`, `palette`, `legal` (for messages) and `ids` (see `read_ids`), and lists its pairs and all
    masks that there are.
    """

    ids: np.ndarray
    legal: str

    def __init__(self, pairs: list[Pair], where: str, masks: list[Path]) -> None:
        if not pairs:
            raise DataError(f"No images in {where}: check dataset.root and the split's name.")
        self.pairs, self.masks = pairs, masks

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def strays(self) -> list[str]:
        known = {pair.mask for pair in self.pairs}
        return [f"{mask} is a mask without an image." for mask in sorted(self.masks) if mask not in known]

    def image(self, index: int) -> np.ndarray:
        return read_image(self.pairs[index].image)

    def mask(self, index: int) -> np.ndarray:
        return read_ids(self.pairs[index].mask, self.ids, self.legal)


def list_split(folder: Path, pattern: str) -> list[Path]:
    """List a split's files in order. Raises `DataError` if there is no such split."""
    if not folder.is_dir():
        parent = folder.parent
        found = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        has = f"{parent} has {', '.join(found)}" if found else f"{parent} has no folders"
        raise DataError(f"There is no folder {folder} ({has}): check dataset.root and the split's name.")
    return sorted(folder.glob(pattern))


HOW_TO_GET = {
    "cityscapes": "register at www.cityscapes-dataset.com, then `pip install cityscapesscripts` and "
    "`csDownload -d DIR leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip`, and unzip both there",
    "ade20k": "add dataset.download=true to fetch it (0.9 GB)",
    "camvid": "add dataset.download=true to fetch it (0.2 GB)",
    "folder": "lay out your data there as the README's Data section says",
}


def find_root(cfg: DatasetConfig) -> Path:
    """Return the data's folder: ``dataset.root``, else ``$<NAME>_ROOT``, else ``data/<name>``.

    Raises:
        DataError: it does not exist, and is not to be downloaded.
    """
    variable = f"{cfg.name.upper()}_ROOT"
    root = Path(cfg.root or os.environ.get(variable) or Path("data") / cfg.name)
    if cfg.name != "scenes" and not cfg.download and not root.is_dir():
        raise DataError(f"There is no folder {root}: set dataset.root or ${variable}, or {HOW_TO_GET[cfg.name]}.")
    return root


def build_source(cfg: DatasetConfig, split: str) -> Source:
    """Open a split of the data set that ``cfg.name`` names, and fetch it first if ``dataset.download`` asks for it.

    Raises:
        DataError: it is missing, empty, or could not be fetched.
    """
    # Imported here: Cityscapes' label table costs a second of torchvision.
    if cfg.name == "scenes":
        from cyclenet.data.scenes import Scenes

        return Scenes(cfg, split)
    root = find_root(cfg)
    if cfg.download:
        from cyclenet.data.download import download

        download(cfg.name, root)
    if cfg.name == "cityscapes":
        from cyclenet.data.cityscapes import Cityscapes

        return Cityscapes(root, split)
    if cfg.name == "ade20k":
        from cyclenet.data.ade20k import ADE20K

        return ADE20K(root, split)
    if cfg.name == "folder":
        from cyclenet.data.folder import Folder

        return Folder(root, split)
    from cyclenet.data.camvid import CamVid

    return CamVid(root, split)
