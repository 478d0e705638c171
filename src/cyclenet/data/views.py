"""Views: whole images at a few scales, mirrored or not. A crop is a window of their features.

A frozen backbone's features of a view need computing only once (`cyclenet.data.features`).
"""

import random
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from cyclenet.config.schema import DatasetConfig
from cyclenet.labels import IGNORE
from cyclenet.models.resize import Grid


class View(NamedTuple):
    """A scale of the image's own size, and whether the image is mirrored."""

    scale: float
    mirrored: bool


AS_IT_IS = View(1.0, False)


class Place(NamedTuple):
    """Where a crop begins, in cells of the coarsest features of a view."""

    top: int
    left: int


class Views:
    """Draw views and crops, and make a view's pixels and mask.

    A view that is smaller than the crop is padded below and on the right, with
    ``dataset.pad_value`` and mask 255. A crop covers whole cells of the network's grid.
    """

    def __init__(self, cfg: DatasetConfig, grid: Grid) -> None:
        self.cfg, self.grid = cfg, grid
        self.crop = (cfg.crop_size[0], cfg.crop_size[1])

    def all(self) -> list[View]:
        """Return the views of an image that training may draw."""
        sides = [False] * (self.cfg.flip < 1) + [True] * (self.cfg.flip > 0)
        return [View(scale, mirrored) for scale in self.cfg.views for mirrored in sides]

    def draw(self, size: tuple[int, int], seed: int) -> tuple[View, Place]:
        """Draw a view and a crop of an image of a size (height, width); a function of the seed."""
        rng = random.Random(seed)
        view = View(rng.choice(self.cfg.views), rng.random() < self.cfg.flip)
        cells = self.grid.cells(self.padded(size, view))
        most = [side - crop for side, crop in zip(cells, self.grid.cells(self.crop), strict=True)]
        return view, Place(rng.randint(0, most[0]), rng.randint(0, most[1]))

    def scaled(self, size: tuple[int, int], view: View) -> tuple[int, int]:
        """Return the (height, width) of an image's view, before padding."""
        return max(round(size[0] * view.scale), 1), max(round(size[1] * view.scale), 1)

    def padded(self, size: tuple[int, int], view: View) -> tuple[int, int]:
        """Return the (height, width) that an image's view has for the network."""
        height, width = self.scaled(size, view)
        return self.grid.padded((max(height, self.crop[0]), max(width, self.crop[1])))

    def pixels(self, image: np.ndarray, view: View) -> np.ndarray:
        """Make a view (h, w, 3) uint8 of an image (H, W, 3) uint8."""
        scaled = self._scale(image, view, cv2.INTER_LINEAR)
        height, width = (max(n, crop) for n, crop in zip(scaled.shape, self.crop, strict=False))
        return _pad(scaled, (height, width), self.cfg.pad_value)

    def crop_mask(self, mask: np.ndarray, view: View, place: Place) -> np.ndarray:
        """Make the crop's mask from a mask (H, W) uint8 of train ids."""
        scaled = self._scale(mask, view, cv2.INTER_NEAREST_EXACT)
        padded = _pad(scaled, self.padded((mask.shape[0], mask.shape[1]), view), IGNORE)
        top, left = place.top * self.grid.stride, place.left * self.grid.stride
        return padded[top : top + self.crop[0], left : left + self.crop[1]]

    def windows(
        self, shapes: list[tuple[int, int]], padded: tuple[int, int], place: Place
    ) -> list[tuple[slice, slice]]:
        """Return the rows and columns of a crop in feature maps (h, w) of a padded view."""
        return [
            (
                self.grid.window(height, padded[0], place.top, self.crop[0]),
                self.grid.window(width, padded[1], place.left, self.crop[1]),
            )
            for height, width in shapes
        ]

    def _scale(self, array: np.ndarray, view: View, interpolation: int) -> np.ndarray:
        height, width = self.scaled((array.shape[0], array.shape[1]), view)
        if (height, width) != array.shape[:2]:
            array = cv2.resize(array, (width, height), interpolation=interpolation)
        return array[:, ::-1] if view.mirrored else array


def _pad(array: np.ndarray, size: tuple[int, int], fill: Any) -> np.ndarray:
    below, right = size[0] - array.shape[0], size[1] - array.shape[1]
    return cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_CONSTANT, value=fill)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Return (H, W, 3) uint8 pixels as (3, H, W), in channels-last layout."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
