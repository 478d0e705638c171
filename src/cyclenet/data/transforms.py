"""The paper's augmentation: random scale, crop and flip (section 4.1). The one file that imports albumentations.

Normalisation is the model's first layer, on its device: a quarter of the bytes leave the loader, and a checkpoint knows how
its input was normalised.
"""

import os

# Before the import: albumentations asks the network for a newer version of itself.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np

from cyclenet.config import DatasetConfig
from cyclenet.data.images import IGNORE

# Loader processes are what runs in parallel; OpenCV's own threads would compete with them.
cv2.setNumThreads(0)


class TrainTransform:
    """Random scale, random crop with padding, random flip; a pure function of (image, mask, seed).

    An image smaller than the crop is padded around with ``dataset.pad_value`` and mask 255 (as semseg).
    """

    def __init__(self, cfg: DatasetConfig) -> None:
        height, width = cfg.crop_size
        # `scale_limit` is relative to 1; a factor is drawn uniformly and applies to the image's own size.
        scale = A.RandomScale((cfg.scale[0] - 1, cfg.scale[1] - 1), cv2.INTER_LINEAR, cv2.INTER_NEAREST, p=1.0)
        pad = A.PadIfNeeded(height, width, border_mode=cv2.BORDER_CONSTANT, fill=tuple(cfg.pad_value), fill_mask=IGNORE)
        self.compose = A.Compose([scale, pad, A.RandomCrop(height, width), A.HorizontalFlip(p=cfg.flip)])

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Augment (H, W, 3) uint8 and (H, W) uint8 to the crop's size; ``seed`` in 0..2**32 - 1."""
        self.compose.set_random_seed(seed)
        sample = self.compose(image=image, mask=mask)
        return sample["image"], sample["mask"]
