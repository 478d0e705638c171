"""Pictures of predictions: colours, overlays with a legend, panels."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cyclenet.files import atomic_write
from cyclenet.labels import IGNORE

FONT = cv2.FONT_HERSHEY_SIMPLEX
INK = (20, 20, 20)
GAP = 6  # Pixels between the parts of a panel.

Square = tuple[int, int, int]  # (left, top, side), pixels.


class PanelRow(NamedTuple):
    """An image (H, W, 3), its mask (H, W), predictions (H, W), and squares that are marked."""

    image: np.ndarray
    truth: np.ndarray
    predictions: list[np.ndarray]
    squares: Sequence[Square] = ()


def colorize(mask: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Paint train ids (H, W) in the data set's colours (H, W, 3); ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[mask]


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: np.ndarray, opacity: float = 0.5
) -> np.ndarray:
    """Blend an image (H, W, 3) with its colours; ignored pixels stay as they are."""
    color = np.where((mask == IGNORE)[..., None], image, colorize(mask, palette))
    return np.asarray(cv2.addWeighted(image, 1 - opacity, color, opacity, 0))


def legend(
    width: int, classes: list[str], palette: np.ndarray, present: Sequence[int]
) -> np.ndarray:
    """Draw the classes in ``present`` (train ids) as rows of swatches, ``width`` pixels wide."""
    size, row = 0.42, 20
    spots, x, y = [], 6, 0
    for index in present:
        length = 22 + cv2.getTextSize(classes[index], FONT, size, 1)[0][0] + 10
        if x + length > width and x > 6:
            x, y = 6, y + row
        spots.append((index, x, y))
        x += length
    strip = np.full((y + row, width, 3), 255, np.uint8)
    for index, x, y in spots:
        color = [int(value) for value in palette[index]]
        cv2.rectangle(strip, (x, y + 4), (x + 14, y + 16), color, -1)
        cv2.rectangle(strip, (x, y + 4), (x + 14, y + 16), (90, 90, 90), 1)
        cv2.putText(strip, classes[index], (x + 19, y + 15), FONT, size, INK, 1, cv2.LINE_AA)
    return strip


def overlay_with_legend(
    image: np.ndarray,
    mask: np.ndarray,
    classes: list[str],
    palette: np.ndarray,
    all_classes: bool = False,
) -> np.ndarray:
    """Blend, and put the legend of the classes that occur (or of all) under the image."""
    present = range(len(classes)) if all_classes else np.unique(mask[mask < len(classes)]).tolist()
    strip = legend(image.shape[1], classes, palette, present)
    return np.vstack([overlay(image, mask, palette), strip])


def panel(
    rows: list[PanelRow],
    titles: list[str],
    classes: list[str],
    palette: np.ndarray,
    width: int = 420,
) -> np.ndarray:
    """Draw images over their truth, and beside them predictions over their errors.

    An error is white; what is right is the darkened image.

    Args:
        rows: the images.
        titles: names of the predictions.
        classes: names, by train id.
        palette: their colours.
        width: width of a column, pixels.
    """
    lines = []
    present: set[int] = set()
    for image, truth, predictions, squares in rows:
        for labels in (truth, *predictions):
            present |= set(np.unique(labels[labels < len(classes)]).tolist())
        # Long, narrow images keep a cell that can be looked at.
        height = min(max(round(width * image.shape[0] / image.shape[1]), 1), 4 * width)
        upper = [image, *(colorize(each, palette) for each in predictions)]
        lower = [colorize(truth, palette), *(_errors(image, truth, p) for p in predictions)]
        for cells in (upper, lower):
            lines.append(_line(cells, image, squares, width, height))
        lines.append(np.full((GAP, lines[-1].shape[1], 3), 255, np.uint8))
    names = ["image / truth", *(f"{title} / errors in white" for title in titles)]
    head = _head(names, width)
    key = legend(head.shape[1], classes, palette, sorted(present))
    return np.vstack([head, *lines, key])


def _errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    wrong = (prediction != truth) & (truth != IGNORE)
    return np.where(wrong[..., None], np.uint8(255), image // 3)


def _line(
    cells: list[np.ndarray], image: np.ndarray, squares: Sequence[Square], width: int, height: int
) -> np.ndarray:
    row = np.full((height + 3, len(cells) * (width + GAP), 3), 255, np.uint8)
    zoom = width / image.shape[1]
    for column, cell in enumerate(cells):
        how = cv2.INTER_LINEAR if cell is image else cv2.INTER_NEAREST
        left = column * (width + GAP)
        row[:height, left : left + width] = cv2.resize(cell, (width, height), interpolation=how)
        for x, y, side in squares:
            corner, size = (left + round(x * zoom), round(y * zoom)), round(side * zoom)
            cv2.rectangle(row, corner, (corner[0] + size, corner[1] + size), (255, 0, 0), 2)
    return row


def _head(names: list[str], width: int) -> np.ndarray:
    head = np.full((26, len(names) * (width + GAP), 3), 255, np.uint8)
    for column, name in enumerate(names):
        length = cv2.getTextSize(name, FONT, 0.5, 1)[0][0]
        size = 0.5 * min(1, (width - 8) / length)
        place = (column * (width + GAP) + 4, 18)
        cv2.putText(head, name, place, FONT, size, INK, 1, cv2.LINE_AA)
    return head


def disagreement(predictions: list[np.ndarray], truth: np.ndarray, count: int = 2) -> list[Square]:
    """Find the squares with the most pixels that some predictions have right and some wrong.

    Returns:
        At most ``count`` squares, a quarter of the image's height wide, which do not overlap.
    """
    right = np.stack([prediction == truth for prediction in predictions])
    differ = ((truth != IGNORE) & right.any(0) & ~right.all(0)).astype(np.float32)
    side = max(truth.shape[0] // 4, 8)
    sums = cv2.boxFilter(
        differ, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT, anchor=(0, 0)
    )
    sums = sums[: max(truth.shape[0] - side, 1), : max(truth.shape[1] - side, 1)].copy()
    found: list[Square] = []
    while len(found) < count and sums.max() > 0:
        top, left = (int(v) for v in np.unravel_index(sums.argmax(), sums.shape))
        found.append((left, top, side))
        sums[max(top - side, 0) : top + side, max(left - side, 0) : left + side] = 0
    return found


def save_png(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) or ids (H, W); creates the folder.

    Raises:
        OSError: the file could not be written.
    """
    # OpenCV itself cannot write to all names that a file may have.
    _, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    with atomic_write(path) as part:
        part.write_bytes(data.tobytes())
