"""The window that is cut first and resized then, against the crop of the resized image."""

import cv2
import numpy as np
import pytest
from scipy.stats import ks_2samp

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.transforms import TrainTransform
from cyclenet.seeding import derive

SIZE = 240
# Of every pixel, where it is: row in the first channel, column in the second.
ROW, COLUMN = np.indices((SIZE, SIZE), dtype=np.uint8)
COORDINATES = np.stack([ROW, COLUMN, ROW], -1)
NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 19, (90, 120), dtype=np.uint8)


def window(image: np.ndarray) -> tuple[float, float, float]:
    """Read off a crop of COORDINATES: pixels of the image per pixel of the crop, and the place of
    its first row and column.
    """
    inner = image[8:-8, 8:-8].astype(float)
    slopes = [
        np.polyfit(np.arange(len(line)), line, 1) for line in (inner[:, 0, 0], inner[0, :, 1])
    ]
    return slopes[0][0], *(intercept - 8 * slope for slope, intercept in slopes)


def resized_then_cropped(rng: np.random.Generator, crop: int) -> np.ndarray:
    length = round(SIZE * rng.uniform(0.75, 2.0))
    top, left = rng.integers(0, length - crop + 1, 2)
    return cv2.resize(COORDINATES, (length, length))[top : top + crop, left : left + crop]


def test_scales_and_places_are_distributed_as_those_of_resize_then_crop():
    crop, rng = 100, np.random.default_rng(0)
    transform = TrainTransform(DatasetConfig(crop_size=[crop, crop], flip=0.0))
    ours = np.array([window(transform(COORDINATES, ROW, derive(seed))[0]) for seed in range(1000)])
    then = np.array([window(resized_then_cropped(rng, crop)) for _ in range(1000)])
    assert 1 / 2.02 < ours[:, 0].min() < 0.51 and 1.3 < ours[:, 0].max() < 1 / 0.74
    for values in (
        lambda x: 1 / x[:, 0],
        lambda x: x[:, 1],
        lambda x: x[:, 2],
        lambda x: x[:, 1] * x[:, 0],
    ):
        assert ks_2samp(values(ours), values(then)).pvalue > 0.01
    # The check can fail: a scale range that is off by a tenth.
    assert ks_2samp(1.1 / ours[:, 0], 1 / then[:, 0]).pvalue < 1e-4


def test_scale_place_and_flip_are_drawn_one_by_one():
    """albumentations seeds all transforms of a Compose alike: of one number came the scale, the
    place and the flip.
    """
    crop = 100
    transform = TrainTransform(DatasetConfig(crop_size=[crop, crop]))
    drawn = []
    for seed in range(1000):
        image, _ = transform(COORDINATES, ROW, derive(seed))
        flipped = image[0, 0, 1] > image[0, -1, 1]
        step, top, left = window(image[:, ::-1] if flipped else image)
        room = SIZE - crop * step
        drawn.append((1 / step, top / room, left / room, flipped))
    correlation = np.corrcoef(np.array(drawn, float).T) - np.eye(4)
    assert np.abs(correlation).max() < 0.12  # Four standard deviations of 1000 independent draws.


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.0, 1.6])
def test_a_window_of_the_whole_image_is_the_resized_image(factor):
    """With a crop as large as the scaled image nothing is left to chance, and no window has an
    edge.
    """
    size = (round(90 * factor), round(120 * factor))
    transform = TrainTransform(
        DatasetConfig(crop_size=list(size), scale=[factor, factor], flip=0.0)
    )
    image, mask = transform(NOISE, LABELS, 0)
    assert np.array_equal(image, cv2.resize(NOISE, size[::-1], interpolation=cv2.INTER_LINEAR))
    assert np.array_equal(
        mask, cv2.resize(LABELS, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_window_is_a_crop_of_the_resized_image_where_both_begin_at_a_pixel(seed):
    """At scale 2 every window does; but for the pixels at its edge, which do not see beyond."""
    image, mask = TrainTransform(DatasetConfig(crop_size=[64, 64], scale=[2.0, 2.0], flip=0.0))(
        NOISE, LABELS, seed
    )
    whole = cv2.resize(NOISE, (240, 180), interpolation=cv2.INTER_LINEAR)
    labels = np.kron(LABELS, np.ones((2, 2), np.uint8))
    places = [
        (top, left)
        for top in range(0, 180 - 63, 2)
        for left in range(0, 240 - 63, 2)
        if np.array_equal(labels[top : top + 64, left : left + 64], mask)
    ]
    ((top, left),) = places
    assert np.array_equal(whole[top + 1 : top + 63, left + 1 : left + 63], image[1:-1, 1:-1])


def test_image_and_mask_are_sampled_at_the_same_places():
    """A picture of the labels stays the picture of the labels."""
    labels = np.zeros((90, 120), np.uint8)
    labels[:, 60:] = labels[45:] = 10
    picture = np.repeat(20 * labels[..., None], 3, 2)
    transform = TrainTransform(DatasetConfig(crop_size=[64, 64]))
    for seed in range(50):
        image, mask = transform(picture, labels, seed)
        for value, label in ((0, 0), (200, 10)):
            assert (mask[(image == value).all(-1)] == label).all()
        # Between them, on one side of the middle or the other.
        grey = image[..., 0].astype(int)
        assert (mask[(grey > 110) & (mask != 255)] == 10).all() and (
            mask[(grey < 90) & (mask != 255)] == 0
        ).all()
