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
) -> np.ndarray:
    """Compare predictions: image, truth, then each prediction with its wrong pixels in white beneath it.

    Args:
        rows: of (image, true mask, predictions).
        titles: of the predictions.
        classes: names, by train id.
        palette: their colours.
        width: of a column, pixels.
    """
    gap, font = 6, cv2.FONT_HERSHEY_SIMPLEX
    lines = []
    present: set[int] = set()
    for image, truth, predictions in rows:
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
            lines.append(row)
        lines.append(np.full((gap, lines[-1].shape[1], 3), 255, np.uint8))
    head = np.full((26, lines[0].shape[1], 3), 255, np.uint8)
    for column, title in enumerate(["image / truth", *(f"{title} / errors in white" for title in titles)]):
        cv2.putText(head, title, (column * (width + gap) + 4, 18), font, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    key = legend(head.shape[1], classes, palette, np.array(sorted(present), int))
    return np.vstack([head, *lines, key])


def save_png(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) or ids (H, W); creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image):
        raise OSError(f"{path} could not be written.")


def confusion_picture(path: Path, scores: dict[str, Any], counts: np.ndarray, title: str) -> None:
    """Draw a confusion matrix, each row divided by its true pixels, and the IoU of each class."""
    plt = _pyplot()
    names = list(scores["IoU"])
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(6.0, 0.34 * len(names) + 2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(side * 1.45, side), width_ratios=[3, 1], layout="constrained")
    left.imshow(share, cmap="cividis", vmin=0, vmax=1)
    ticks = range(len(names))
    left.set_xticks(ticks, names, rotation=90)
    left.set_yticks(ticks, names)
    left.set_xlabel("predicted")
    left.set_ylabel("true (rows sum to 1)")
    if len(names) <= 30:
        for row in ticks:
            for column in ticks:
                if share[row, column] >= 0.01:
                    shade = "black" if share[row, column] > 0.6 else "white"
                    left.text(column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", fontsize=7, color=shade)
    values = [value or 0.0 for value in scores["IoU"].values()]
    right.barh(list(ticks), [100 * value for value in values], color="#2b6a99")
    right.set_yticks(ticks, [] if len(names) <= 30 else names)
    right.set_ylim(len(names) - 0.5, -0.5)
    right.set_xlim(0, 100)
    right.set_xlabel("IoU, %")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def trimap_picture(path: Path, trimap: dict[str, Any], title: str) -> None:
    """Draw IoU against the width of the band around edges, of each class and on the mean."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, curve in trimap["IoU"].items():
        if len(trimap["IoU"]) <= 30:
            axes.plot(trimap["widths"], [100 * (v if v is not None else np.nan) for v in curve], lw=0.8, alpha=0.6)
            axes.text(trimap["widths"][-1] + 0.5, 100 * (curve[-1] or 0.0), name, fontsize=7, va="center")
    axes.plot(trimap["widths"], [100 * v for v in trimap["mIoU"]], "k-o", ms=3, label="mean")
    axes.set(xlabel="width of the band on each side of an edge, pixels", ylabel="IoU, %", ylim=(0, 100), title=title)
    axes.title.set_fontsize(9)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


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
