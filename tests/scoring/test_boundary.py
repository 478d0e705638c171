"""Boundary metrics against direct implementations of their definitions."""

import cv2
import numpy as np
import pytest

from cyclenet.scoring.boundary import TRIMAP_WIDTHS, boundary_counts, label_distance, trimap_counts


def blobs(rng, height=37, width=52, classes=4, ignore=True):
    """Smooth regions, as masks have, with an ignored one."""
    noise = np.stack(
        [
            cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 4)
            for _ in range(classes + ignore)
        ]
    )
    mask = noise.argmax(0).astype(np.uint8)
    mask[mask == classes] = 255
    return mask


def nearest_other(labels, chessboard, outside):
    """For each pixel, look at every other one."""
    height, width = labels.shape
    padded = np.pad(labels.astype(int), 1, constant_values=-1 if outside else -2)
    y, x = np.mgrid[-1 : height + 1, -1 : width + 1]
    found = np.full(labels.shape, np.inf)
    for i in range(height):
        for j in range(width):
            other = (padded != labels[i, j]) & (padded != -2)
            dy, dx = np.abs(y[other] - i), np.abs(x[other] - j)
            if len(dy):
                found[i, j] = (
                    np.maximum(dy, dx).min() if chessboard else np.sqrt((dy**2 + dx**2).min())
                )
    return found


@pytest.mark.parametrize("chessboard", [False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_distance_is_to_the_nearest_other_label(chessboard, outside):
    rng = np.random.default_rng(0)
    for labels in (
        blobs(rng),
        rng.integers(0, 3, (9, 14), dtype=np.uint8),
        np.full((6, 7), 3, np.uint8),
    ):
        found = label_distance(labels, chessboard, outside)
        np.testing.assert_allclose(found, nearest_other(labels, chessboard, outside), rtol=1e-6)


def mask_boundary(mask, reach):
    """Erode ``reach`` times by 3 x 3, with nothing beyond the image; what goes is the boundary."""
    padded = np.pad(mask, 1).astype(bool)
    for _ in range(reach):
        p = np.pad(padded, 1)
        padded = np.all(
            [
                p[i : i + padded.shape[0], j : j + padded.shape[1]]
                for i in range(3)
                for j in range(3)
            ],
            0,
        )
    return mask & ~padded[1:-1, 1:-1]


@pytest.mark.parametrize("ratio", [0.001, 0.02, 0.1])
def test_boundary_iou_equals_its_definition(ratio):
    rng = np.random.default_rng(1)
    mask, prediction = blobs(rng), blobs(rng, ignore=False)
    prediction = np.where(
        rng.random(mask.shape) < 0.5, prediction, np.where(mask == 255, 0, mask)
    ).astype(np.uint8)
    prediction = cv2.medianBlur(prediction, 5)
    reach = max(1, round(ratio * float(np.hypot(*mask.shape))))
    counts = boundary_counts(prediction, mask, 5, ratio)
    valid = mask != 255
    for c in range(5):
        true, predicted = (
            mask_boundary((array == c) & valid, reach) for array in (mask, prediction)
        )
        assert counts[c].tolist() == [(true & predicted).sum(), true.sum(), predicted.sum()]
        intersection, union = (true & predicted).sum(), (true | predicted).sum()
        assert union == counts[c, 1] + counts[c, 2] - counts[c, 0] and intersection == counts[c, 0]
    assert counts[4].sum() == 0


def test_boundary_of_the_truth_itself_is_perfect_and_of_a_shifted_one_worse_than_its_iou():
    mask = np.zeros((80, 80), np.uint8)
    mask[20:60, 20:60] = 1
    same = boundary_counts(mask, mask, 2, 0.02)
    assert (same[:, 0] == same[:, 1]).all() and (same[:, 0] == same[:, 2]).all()
    moved = np.roll(mask, 2, 1)
    hit, true, predicted = boundary_counts(moved, mask, 2, 0.02)[1]
    assert hit / (true + predicted - hit) < ((mask & moved).sum() / (mask | moved).sum()) - 0.3


def test_trimap_equals_its_definition():
    rng = np.random.default_rng(2)
    mask, prediction = blobs(rng), blobs(rng, ignore=False)
    counts = trimap_counts(prediction, mask, 4)
    distance = nearest_other(mask, False, False)
    for row, width in zip(counts, TRIMAP_WIDTHS, strict=True):
        band = (distance <= width) & (mask != 255)
        for c in range(4):
            true, predicted = (mask == c) & band, (prediction == c) & band
            assert row[c].tolist() == [(true & predicted).sum(), true.sum(), predicted.sum()]


def test_a_band_as_wide_as_the_image_holds_every_pixel_and_a_plain_mask_has_no_band():
    rng = np.random.default_rng(3)
    mask, prediction = blobs(rng), blobs(rng, ignore=False)
    (counts,) = trimap_counts(prediction, mask, 4, (100,))
    valid = mask != 255
    assert counts[:, 1].sum() == valid.sum() and counts[:, 0].sum() == (prediction == mask).sum()
    assert trimap_counts(prediction, np.zeros_like(mask), 4).sum() == 0
