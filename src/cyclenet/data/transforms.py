"""The paper's augmentation: random scale, crop and flip (section 4.1).

This is the one file that imports albumentations. Normalisation is the model's first layer, on its
device: a quarter of the bytes leave the loader, and a checkpoint knows how its input was
normalised.
"""

import os
from typing import Any

# This stands before the import: albumentations asks the network for a newer version of itself.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np

from cyclenet.config.schema import DatasetConfig
from cyclenet.labels import IGNORE

# Loader processes are what runs in parallel; OpenCV's own threads would compete with them.
cv2.setNumThreads(0)


class TrainTransform:
    """Random scale, crop with padding, flip and colours; a function of (image, mask, seed)."""

    def __init__(self, cfg: DatasetConfig) -> None:
        transforms = [RandomWindow(cfg), A.HorizontalFlip(p=cfg.flip)]
        if x := cfg.color_jitter:
            transforms.append(
                A.ColorJitter((1 - x, 1 + x), (1 - x, 1 + x), (1 - x, 1 + x), x / 4, p=1)
            )
        self.compose = A.Compose(transforms)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment (H, W, 3) uint8 and (H, W) uint8 to the crop; ``seed`` is in 0..2**32 - 1."""
        # Each transform has a seed of its own. `Compose.set_random_seed` gives all the same, and
        # then small scales are those that are flipped.
        for number, transform in enumerate(self.compose.transforms):
            transform.set_random_seed(seed + number)
        sample = self.compose(image=image, mask=mask)
        return sample["image"], sample["mask"]


class RandomWindow(A.DualTransform):  # type: ignore[misc]
    """Random scale and random crop in the other order: only the window that is needed is resized.

    The factor is drawn uniformly and applies to the image's own size; all positions are equally
    likely. The result is what a crop of the resized image is, except that windows begin and end at
    whole pixels of the image rather than of the resized one. Masks are sampled at the centres of
    pixels, as images are. A scaled image smaller than the crop is padded around with
    ``dataset.pad_value`` and mask 255 (as semseg).
    """

    def __init__(self, cfg: DatasetConfig) -> None:
        super().__init__(p=1.0)
        self.crop_size, self.scale = list(cfg.crop_size), list(cfg.scale)
        self.pad_value = list(cfg.pad_value)

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the window: rows and columns in the image, its scaled size, the padding before."""
        factor = self.py_random.uniform(*self.scale)
        height, width = params["shape"][:2]
        rows, tall, above = self._draw(height, self.crop_size[0], factor)
        columns, wide, left = self._draw(width, self.crop_size[1], factor)
        return {"rows": rows, "columns": columns, "size": (tall, wide), "before": (above, left)}

    def _draw(self, length: int, crop: int, factor: float) -> tuple[slice, int, int]:
        scaled = min(max(round(length * factor), 1), crop)
        window = min(max(round(scaled / factor), 1), length) if scaled == crop else length
        start = self.py_random.randint(0, length - window)
        return slice(start, start + window), scaled, (crop - scaled) // 2

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return self._window(img, cv2.INTER_LINEAR, self.pad_value, **params)

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        return self._window(mask, cv2.INTER_NEAREST_EXACT, IGNORE, **params)

    def _window(
        self,
        array: np.ndarray,
        interpolation: int,
        fill: Any,
        rows: slice,
        columns: slice,
        size: tuple[int, int],
        before: tuple[int, int],
        **params: Any,
    ) -> np.ndarray:
        resized = cv2.resize(array[rows, columns], size[::-1], interpolation=interpolation)
        if list(size) == self.crop_size:
            return resized
        padded = np.empty((*self.crop_size, *array.shape[2:]), array.dtype)
        padded[:] = fill
        top, left = before
        padded[top : top + size[0], left : left + size[1]] = resized
        return padded
