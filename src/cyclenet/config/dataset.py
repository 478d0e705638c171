"""The keys of ``dataset``: every one with its meaning, unit, range and source.

`cyclenet.config.schema` holds the others, and says how they are written.
"""

from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

from cyclenet.config.choices import DATASETS, FOLDER_KEYS
from cyclenet.config.require import (
    require,
    require_choice,
    require_few,
    require_folder_name,
    require_within,
)


def _require_fold(name: str, fold: int | None) -> None:
    if fold is not None:
        able = [key for key, choice in DATASETS.items() if choice.folds]
        require(name in able, f"dataset.fold is for {' and '.join(able)}, not for {name}.")
        require(0 <= fold < 1000, f"dataset.fold must be 0 or more; got {fold}.")


def _require_folder_keys(cfg: "DatasetConfig") -> None:
    usual = {each.name: each for each in fields(DatasetConfig) if each.name in FOLDER_KEYS}
    for key, each in usual.items():
        default = [] if key == "ids" else each.default
        require(
            cfg.name == "folder" or getattr(cfg, key) == default,
            f"dataset.{key} is for dataset=folder, not for {cfg.name}.",
        )
    for key in ("images", "masks"):
        parts = PurePosixPath(getattr(cfg, key))
        require(
            not parts.is_absolute() and ".." not in parts.parts,
            f"dataset.{key} must lie within dataset.root; got {parts}.",
        )
    require(
        not (cfg.ids and cfg.reduce_zero_label),
        "dataset.ids says what 0 means, and dataset.reduce_zero_label too: give one of them.",
    )


BOUNDS = {
    "crop_size": "[32, 16384]",
    "scale": "(0, 16]",
    "flip": "[0, 1]",
    "views": "(0, 16]",
    "pad_value": "[0, 255]",
    "color_jitter": "[0, 1)",
    "batch_size": "[1, 65536]",
    "train_limit": "[0, inf]; 0 (all) or more",
    "val_limit": "[0, inf]; 0 (all) or more",
    "boundary_ratio": "(0, 1)",
    "ignore_id": "[0, 65535]",
    "val_share": "[0, 1)",
    "scenes_train": "[1, 10000000]",
    "scenes_val": "[1, 10000000]",
    "scenes_seed": "[-inf, 4294967295]",
}


@dataclass
class DatasetConfig:
    """Images, masks and the paper's augmentation (section 4.1)."""

    # Data set: cityscapes, ade20k, camvid, folder (your own), or scenes (drawn, no download).
    name: str = "scenes"
    # Folder of the data. Where it is not set, $CITYSCAPES_ROOT, $ADE20K_ROOT, $CAMVID_ROOT or
    # $FOLDER_ROOT counts, then data/<name>.
    root: str | None = None
    # Cache of the training split's decoded pixels (Cityscapes: 25 GB). `auto` writes it on first
    # use where it leaves as much room again, `always` insists, `never` neither makes nor uses it.
    cache: str = "auto"
    # Folder of the caches. Where it is not set, $CYCLENET_CACHE counts, then data/cache. A local
    # SSD is best.
    cache_root: str | None = None
    # Fetch ADE20K (0.9 GB) or CamVid (0.2 GB) into the root where it is missing.
    download: bool = False
    # Name of the split that is trained on, or several as [train,val]. Cityscapes' train_extra has
    # the coarse masks.
    train_split: Any = "train"
    # Name of the split that is validated on; null validates and evaluates nothing.
    val_split: str | None = "val"
    # Cross-validation: train on all folds but this one, and validate on it. CamVid has 0 to 4, by
    # drive; `folder` has those of its folds.csv. null takes the splits.
    fold: int | None = None
    # folder: folder of the images in the root. The split's folder follows, or stands in it as
    # {split}, such as {split}/images.
    images: str = "images"
    # folder: folder of the masks in the root, likewise.
    masks: str = "masks"
    # folder: suffix of image names, before the extension, that mask names lack, such as _img.
    image_suffix: str = ""
    # folder: suffix of mask names, before the extension, that image names lack, such as _mask.
    mask_suffix: str = ""
    # folder: file of the class names, in the root or anywhere; a line may have a colour (R G B).
    classes: str = "classes.txt"
    # folder: what the numbers of masks mean, as [0:ignore,7:road,8:road]. It replaces the file of
    # the class names.
    ids: list[str] = field(default_factory=list)
    # folder: number of the pixels that do not count.
    ignore_id: int = 255
    # folder: whether 0 does not count, and the classes begin with 1.
    reduce_zero_label: bool = False
    # folder: share of the images that are validated on where there is neither a folder nor a list
    # of the split. Whole subfolders are held out, the same ones every time.
    val_share: float = 0.0
    # Use only the first N training images, for trials; 0 uses all.
    train_limit: int = 0
    # Use only the first N validation images, for trials; 0 uses all.
    val_limit: int = 0
    # Scenes: seed of the data set, not of the run.
    scenes_seed: int = 0
    # Scenes: number of training images.
    scenes_train: int = 1000
    # Scenes: number of validation images.
    scenes_val: int = 100
    # Scenes: height and width of an image, pixels; at most 1024 x 2048.
    scenes_size: list[int] = field(default_factory=lambda: [256, 512])
    # Height and width of a training crop, pixels. The paper prints "796796"; Table 1 and the prior
    # work say 769 x 769.
    crop_size: list[int] = field(default_factory=lambda: [256, 256])
    # Images in one step over all processes, so that results do not depend on their number.
    batch_size: int = 8
    # Lowest and highest random scaling factor of the image's own size, drawn uniformly.
    scale: list[float] = field(default_factory=lambda: [0.75, 2.0])
    # Probability of a horizontal flip.
    flip: float = 0.5
    # Random brightness, contrast and saturation, by factors in 1 - x to 1 + x, and hue by a fourth
    # of x; 0 for none.
    color_jitter: float = 0.0
    # Boundary IoU: reach of a boundary as a share of the image's diagonal. Cheng et al. have 0.02,
    # their Cityscapes code 0.005.
    boundary_ratio: float = 0.02
    # RGB that fills a crop beyond a small image (ImageNet's mean, as in semseg). Its mask is 255.
    pad_value: list[int] = field(default_factory=lambda: [124, 116, 104])
    # With a frozen backbone: scales of whole images whose features the crops are windows of. They
    # replace `scale`. [] crops images as usual.
    views: list[float] = field(default_factory=list)
    # Whether a frozen backbone's features of the views are written once to the folder of the caches
    # and read from there. Not with trainer.precision=64-true.
    cache_features: bool = False

    def __post_init__(self) -> None:
        require_choice("dataset.name", self.name, DATASETS)
        require_choice("dataset.cache", self.cache, ("auto", "always", "never"))
        for key in ("crop_size", "scenes_size"):
            size = list(getattr(self, key))
            require(
                len(size) == 2 and min(size) >= 32,
                f"dataset.{key} must be [height, width], each at least 32; got {size}.",
            )
        height, width = self.scenes_size
        require(
            height <= 1024 and width <= 2048,
            f"dataset.scenes_size must be at most [1024, 2048]; got {self.scenes_size}.",
        )
        scale = list(self.scale)
        require(
            len(scale) == 2 and 0 < scale[0] <= scale[1],
            f"dataset.scale must be [low, high] with 0 < low <= high; got {scale}.",
        )
        _require_folder_keys(self)
        require_within(self, "dataset.", BOUNDS)
        require(
            not (self.views and self.color_jitter),
            "dataset.color_jitter would change images whose features are views: set it to 0.",
        )
        require(
            len(self.pad_value) == 3,
            f"dataset.pad_value must be three integers; got {list(self.pad_value)}.",
        )
        require_few("dataset.views", self.views, 8)
        require(
            not self.cache_features or len(self.views) > 0,
            "dataset.cache_features=true needs dataset.views, the scales that features are kept "
            "of: for instance [1,1.5].",
        )
        _require_fold(self.name, self.fold)
        if not isinstance(self.train_split, str):
            self.train_split = list(self.train_split or [""])
        names = [self.train_split] if isinstance(self.train_split, str) else self.train_split
        for name in names:
            require_folder_name("dataset.train_split", name)
        require(len(set(names)) == len(names), "dataset.train_split names a split twice.")
        if self.val_split is not None:
            require_folder_name("dataset.val_split", self.val_split)
        require(
            not any("+" in name for name in (*names, self.val_split or "")),
            "dataset.train_split and dataset.val_split may have no + in a name: rename the folder.",
        )

    @property
    def training_split(self) -> str:
        """The split that is trained on; with a fold, all the others."""
        if self.fold is not None:
            return f"not-fold{self.fold}"
        several = not isinstance(self.train_split, str)
        return "+".join(map(str, self.train_split)) if several else str(self.train_split)

    @property
    def validation_split(self) -> str | None:
        """The split that is validated on, if any; with a fold, that one."""
        return self.val_split if self.fold is None else f"fold{self.fold}"

    def split_or_usual(self, wanted: str | None) -> str:
        """Return a split that was asked for, else the one that is validated on.

        Raises:
            ValueError: there is none.
        """
        split = wanted or self.validation_split
        if split is None:
            raise ValueError("dataset.val_split is null: give the split to look at (split=NAME).")
        return split
