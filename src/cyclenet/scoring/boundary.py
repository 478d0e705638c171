"""Quality at boundaries, which the paper's argument is about: boundary IoU and trimap scores."""

import cv2
import numpy as np

from cyclenet.labels import IGNORE

TRIMAP_WIDTHS = (2, 4, 6, 8, 10, 15, 20, 30, 40)
"""Widths of bands, pixels, on each side of an edge."""


def label_distance(
    labels: np.ndarray, chessboard: bool = False, outside: bool = False
) -> np.ndarray:
    """Return each pixel's distance to the nearest pixel with another label.

    Args:
        labels: (H, W) uint8. 255 is a label like any other.
        chessboard: max(|dy|, |dx|) instead of the Euclidean distance.
        outside: what lies beyond the image has another label.

    Returns:
        (H, W) float32, pixels; infinite where there is no other label.
    """
    height, width = labels.shape
    distance = np.full((height, width), np.inf, np.float32)
    for label in np.unique(labels):
        mask = labels == label
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        # A ring of one pixel around the label's bounding box suffices: the nearest other pixel is
        # never beyond it.
        top, bottom = max(rows[0] - 1, 0), min(rows[-1] + 2, height)
        left, right = max(columns[0] - 1, 0), min(columns[-1] + 2, width)
        box = mask[top:bottom, left:right]
        padded = np.pad(box, 1).astype(np.uint8) if outside else box.astype(np.uint8)
        if padded.all():
            continue
        kind = (cv2.DIST_C, cv2.DIST_MASK_3) if chessboard else (cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        found = cv2.distanceTransform(padded, *kind)
        found = found[1:-1, 1:-1] if outside else found
        distance[top:bottom, left:right][box] = found[box]
    return distance


def boundary_counts(
    prediction: np.ndarray, mask: np.ndarray, num_classes: int, ratio: float
) -> np.ndarray:
    """Count, class by class, what boundary IoU is made of (Cheng et al., arXiv:2103.16562).

    The boundary of a class holds those of its pixels that lie within d of its contour or of the
    image's border. d is ``ratio`` of the image's diagonal, in chessboard distance as in the
    authors' code. Ignored pixels are not counted; where a region ends at them, both the truth and
    the prediction have a contour.

    Args:
        prediction: (H, W) uint8 train ids.
        mask: (H, W) uint8 train ids with 255 ignored.
        num_classes: number of classes.
        ratio: 0.02 for COCO and LVIS in that paper, 0.005 for Cityscapes' large images.

    Returns:
        (num_classes, 3) pixels in the boundaries of both, of the truth, and of the prediction.
    """
    reach = max(1, round(ratio * float(np.hypot(*mask.shape))))
    prediction = np.where(mask == IGNORE, IGNORE, prediction).astype(np.uint8)
    true = label_distance(mask, chessboard=True, outside=True) <= reach
    predicted = label_distance(prediction, chessboard=True, outside=True) <= reach
    valid = mask != IGNORE
    both = true & predicted & valid & (mask == prediction)
    regions = (mask[both], mask[true & valid], prediction[predicted & valid])
    return np.stack([np.bincount(region, minlength=num_classes) for region in regions], 1)


def trimap_counts(
    prediction: np.ndarray,
    mask: np.ndarray,
    num_classes: int,
    widths: tuple[int, ...] = TRIMAP_WIDTHS,
) -> np.ndarray:
    """Count, class by class, within bands around the true edges (as DenseCRF and DeepLab).

    A pixel is in the band of width w if a pixel of another label lies within w pixels of it
    (Euclidean). Where a class meets ignored pixels there is an edge too; the ignored pixels are not
    counted.

    Args:
        prediction: (H, W) uint8 train ids.
        mask: (H, W) uint8 train ids with 255 ignored.
        num_classes: number of classes.
        widths: increasing, pixels.

    Returns:
        (len(widths), num_classes, 3) pixels that are right, of the true class, and of the predicted
        one.
    """
    band = np.searchsorted(np.asarray(widths, np.float32), label_distance(mask))
    valid = (mask != IGNORE) & (band < len(widths))
    band, true = band[valid], mask[valid].astype(np.int64)
    predicted = prediction[valid].astype(np.int64)
    right = true == predicted
    first = band * num_classes  # The first cell of a pixel's band.
    cells = (first[right] + true[right], first + true, first + predicted)
    size, shape = len(widths) * num_classes, (len(widths), num_classes)
    counts = [np.bincount(cell, minlength=size).reshape(shape) for cell in cells]
    return np.stack(counts, 2).cumsum(0)
