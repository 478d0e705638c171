"""Pictures of predictions: colours, overlays with a legend, panels, confusion matrices."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cyclenet.data.images import IGNORE


def colorize(mask: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Paint train ids (H, W) in the data set's colours (H, W, 3); ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[mask]


def overlay(image: np.ndarray, mask: np.ndarray, palette: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blend an image (H, W, 3) with its colours; ignored pixels stay as they are."""
    color = np.where((mask == IGNORE)[..., None], image, colorize(mask, palette))
    return cv2.addWeighted(image, 1 - opacity, color, opacity, 0)


def legend(width: int, classes: list[str], palette: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Draw the classes in ``present`` (train ids) as rows of swatches, ``width`` pixels wide."""
    font, size, row = cv2.FONT_HERSHEY_SIMPLEX, 0.42, 20
    spots, x, y = [], 6, 0
    for index in present:
        length = 22 + cv2.getTextSize(classes[index], font, size, 1)[0][0] + 10
        if x + length > width and x > 6:
            x, y = 6, y + row
        spots.append((index, x, y))
        x += length
    strip = np.full((y + row, width, 3), 255, np.uint8)
    for index, x, y in spots:
        cv2.rectangle(strip, (x, y + 4), (x + 14, y + 16), tuple(int(v) for v in palette[index]), -1)
        cv2.rectangle(strip, (x, y + 4), (x + 14, y + 16), (90, 90, 90), 1)
        cv2.putText(strip, classes[index], (x + 19, y + 15), font, size, (20, 20, 20), 1, cv2.LINE_AA)
    return strip


def overlay_with_legend(
    image: np.ndarray, mask: np.ndarray, classes: list[str], palette: np.ndarray, all_classes: bool = False
) -> np.ndarray:
    """Blend, and put the legend of the classes that occur (or of all) under the image."""
    present = np.arange(len(classes)) if all_classes else np.unique(mask[mask < len(classes)])
    return np.vstack([overlay(image, mask, palette), legend(image.shape[1], classes, palette, present)])


def panel(
    rows: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]],
    titles: list[str],
    classes: list[str],
    palette: np.ndarray,
    width: int = 420,
    boxes: list[list[tuple[int, int, int]]] | None = None,
) -> np.ndarray:
    """Compare predictions: image, truth, then each prediction with its wrong pixels in white beneath it.

    Args:
        rows: of (image, true mask, predictions).
        titles: of the predictions.
        classes: names, by train id.
        palette: their colours.
        width: of a column, pixels.
        boxes: for each row, squares to draw in red, as (left, top, side) in the image's pixels.
    """
    gap, font = 6, cv2.FONT_HERSHEY_SIMPLEX
    lines = []
    present: set[int] = set()
    for number, (image, truth, predictions) in enumerate(rows):
        present |= set(np.unique(truth[truth < len(classes)]).tolist())
        upper, lower = [image, *(colorize(p, palette) for p in predictions)], [colorize(truth, palette)]
        for prediction in predictions:
            wrong = (prediction != truth) & (truth != IGNORE)
            lower.append(np.where(wrong[..., None], np.uint8(255), image // 3))
        height = round(width * image.shape[0] / image.shape[1])
        for line in (upper, lower):
            row = np.full((height + 3, len(line) * (width + gap), 3), 255, np.uint8)
            for column, cell in enumerate(line):
                how = cv2.INTER_LINEAR if cell is image else cv2.INTER_NEAREST
                left = column * (width + gap)
                row[:height, left : left + width] = cv2.resize(cell, (width, height), interpolation=how)
                for x, y, side in boxes[number] if boxes else ():
                    zoom = width / image.shape[1]
                    corner = left + round(x * zoom), round(y * zoom)
                    cv2.rectangle(row, corner, (corner[0] + round(side * zoom), corner[1] + round(side * zoom)), (255, 0, 0), 2)
            lines.append(row)
        lines.append(np.full((gap, lines[-1].shape[1], 3), 255, np.uint8))
    head = np.full((26, lines[0].shape[1], 3), 255, np.uint8)
    for column, title in enumerate(["image / truth", *(f"{title} / errors in white" for title in titles)]):
        length = cv2.getTextSize(title, font, 0.5, 1)[0][0]
        size = 0.5 * min(1, (width - 8) / length)
        cv2.putText(head, title, (column * (width + gap) + 4, 18), font, size, (20, 20, 20), 1, cv2.LINE_AA)
    key = legend(head.shape[1], classes, palette, np.array(sorted(present), int))
    return np.vstack([head, *lines, key])


def disagreement(predictions: list[np.ndarray], truth: np.ndarray, count: int = 2) -> list[tuple[int, int, int]]:
    """Find the squares with the most pixels that some predictions have right and some wrong.

    Returns:
        At most ``count`` squares (left, top, side), pixels, a quarter of the image's height wide, which do not overlap.
    """
    right = np.stack([prediction == truth for prediction in predictions])
    differ = ((truth != IGNORE) & right.any(0) & ~right.all(0)).astype(np.float32)
    side = max(truth.shape[0] // 4, 8)
    sums = cv2.boxFilter(differ, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT, anchor=(0, 0))
    sums = sums[: max(truth.shape[0] - side, 1), : max(truth.shape[1] - side, 1)].copy()
    found: list[tuple[int, int, int]] = []
    while len(found) < count and sums.max() > 0:
        top, left = (int(v) for v in np.unravel_index(sums.argmax(), sums.shape))
        found.append((left, top, side))
        sums[max(top - side, 0) : top + side, max(left - side, 0) : left + side] = 0
    return found


def save_png(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) or ids (H, W); creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")  # Renamed when it is whole: another process may read it at any moment.
    if not cv2.imwrite(str(part), image[..., ::-1] if image.ndim == 3 else image):
        part.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written.")
    part.replace(path)


def score_table(scores: dict[str, Any]) -> str:
    """Format scores for a terminal."""
    width = max(len(name) for name in scores["IoU"])
    lines = [
        f"{name:<{width}}  {'  --  ' if value is None else f'{100 * value:6.2f}'}" for name, value in scores["IoU"].items()
    ]
    total = f"{'mIoU':<{width}}  {100 * scores['mIoU']:6.2f} %  over {scores['classes_counted']} classes"
    return "\n".join(
        [f"{'class':<{width}}   IoU, %", *lines, total, f"{'pixel acc.':<{width}}  {100 * scores['pixel_accuracy']:6.2f} %"]
    )
