"""Drawn street scenes as a data set, in Cityscapes' 19 classes.

An image and its mask are a pure function of (seed, split, index). What makes the scenes hard is
meant to: walls share the materials of buildings, pavements the greys of roads, riders the clothes
of pedestrians, so that only context tells them apart; poles, signs and bicycles are a few pixels
wide; things occlude each other; light, haze, shadow, texture, blur and noise vary.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cyclenet.data.base import Source
from cyclenet.data.cityscapes import CLASSES, PALETTE
from cyclenet.data.images import DataError
from cyclenet.data.scenes.street import Street


class Scenes(Source):
    """Drawn street scenes. Its splits ``train`` and ``val`` share no scene.

    Args:
        split: ``train`` or ``val``.
        scenes_seed: seed of the data set.
        scenes_train: number of training scenes.
        scenes_val: number of validation scenes.
        scenes_size: (height, width), pixels.

    Raises:
        DataError: the split has another name.
    """

    classes = CLASSES
    palette = PALETTE

    def __init__(
        self,
        split: str,
        scenes_seed: int,
        scenes_train: int,
        scenes_val: int,
        scenes_size: Sequence[int],
    ) -> None:
        lengths = {"train": scenes_train, "val": scenes_val}
        if split not in lengths:
            raise DataError(f"Scenes has the splits train and val, not {split!r}.")
        self.seed, self.split, self.length = scenes_seed, split, lengths[split]
        self.size = (scenes_size[0], scenes_size[1])

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{self.split}_{index:05d}"

    def stamp(self, index: int) -> list[Any]:
        return ["scenes", self.seed, self.split, index, *self.size]

    def image(self, index: int) -> np.ndarray:
        return self._draw(index)[0]

    def mask(self, index: int) -> np.ndarray:
        return self._draw(index)[1]

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return _draw_once(self.seed, self.split, index, *self.size)


def draw_scene(
    seed: int, split: str, index: int, height: int = 256, width: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene.

    Returns:
        Image (height, width, 3) uint8 RGB and mask (height, width) uint8 with 255 ignored.
    """
    digest = hashlib.blake2b(f"{seed}/{split}/{index}".encode(), digest_size=8).digest()
    street = Street(np.random.default_rng(int.from_bytes(digest, "little")), height, width)
    street.draw_background()
    street.draw_sides()
    street.draw_things()
    street.draw_bonnet()
    return street.develop()


# An image and its mask are asked for one after the other, and come from one drawing.
_draw_once = lru_cache(maxsize=1)(draw_scene)
