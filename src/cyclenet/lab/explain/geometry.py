"""How features lie over the pixels of an image, and what a map looks like around a pixel."""

import numpy as np

from cyclenet.labels import IGNORE
from cyclenet.models.resize import Grid

RADII = (50, 90)  # Shares of a receptive field, percent, whose radius is measured.


def cell_of(position: int, length: int, cells: int, grid: Grid) -> int:
    """Return which of ``cells`` features stands for a pixel of ``length`` pixels."""
    length = grid.padded_side(length)
    if grid.align_corners:
        return round(position * (cells - 1) / max(length - 1, 1))
    return min(int((position + 0.5) * cells / length), cells - 1)


def middles(length: int, cells: int, grid: Grid) -> np.ndarray:
    """Return where each of ``cells`` features of ``length`` pixels lies: `cell_of`'s inverse.

    The last ones may lie in the padding, beyond the image.
    """
    index, length = np.arange(cells), grid.padded_side(length)
    places: np.ndarray = (index + 0.5) * length / cells - 0.5
    if grid.align_corners:
        places = index * (length - 1) / max(cells - 1, 1)
    return places


def at_cells(values: np.ndarray, shape: tuple[int, ...], grid: Grid) -> np.ndarray:
    """Return the values (H, W) of the pixels in the middle of each feature of a map (h, w).

    Features whose middle lies in the padding, at the ends of rows and columns, are left out.
    """
    rows, columns = (
        pixels[pixels < length]
        for length, pixels in (
            (length, np.floor(middles(length, cells, grid) + 0.5).astype(int))
            for length, cells in zip(values.shape, shape, strict=True)
        )
    )
    return values[np.ix_(rows, columns)]


def over_pixels(values: np.ndarray, size: tuple[int, ...], grid: Grid) -> np.ndarray:
    """Show a map (h, w) or (h, w, c) over an image: each pixel has the value of its feature."""
    rows, columns = (
        [cell_of(position, length, cells, grid) for position in range(length)]
        for length, cells in zip(size, values.shape, strict=False)
    )
    return values[np.ix_(rows, columns)]


def components(features: np.ndarray) -> np.ndarray:
    """Show features (C, h, w) as colours (h, w, 3) in [0, 1].

    The colours are the first three principal components, of fixed sign.
    """
    flat = features.reshape(len(features), -1).astype(np.float64)
    flat = flat - flat.mean(1, keepdims=True)
    vectors = np.linalg.eigh(flat @ flat.T)[1][:, ::-1][:, :3]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(vectors.shape[1])])
    shown = vectors.T @ flat
    low, high = np.percentile(shown, [1, 99], axis=1, keepdims=True)
    shown = np.clip((shown - low) / np.maximum(high - low, 1e-12), 0, 1)
    if len(shown) < 3:  # There are fewer channels than colours.
        shown = np.concatenate([shown, np.zeros((3 - len(shown), shown.shape[1]))])
    return shown.T.reshape(*features.shape[1:], 3)


def spread(field: np.ndarray, x: int, y: int, labels: np.ndarray | None = None) -> dict[str, float]:
    """Measure a receptive field (H, W) around the pixel that it belongs to.

    Returns:
        ``radius_50`` and ``radius_90``, pixels, within which half and nine tenths of it lie; with
        ``labels`` (H, W) also ``foreign``, its share on pixels of other labels, 255 not counted.
    """
    rows, columns = np.indices(field.shape)
    distance = np.hypot(rows - y, columns - x).ravel()
    order = distance.argsort(kind="stable")
    inside = field.ravel()[order].cumsum()
    found = {}
    for share in RADII:
        at = np.searchsorted(inside, share / 100 * inside[-1])
        found[f"radius_{share}"] = float(distance[order][at])
    if labels is not None:
        known = labels != IGNORE
        foreign = field[known & (labels != labels[y, x])].sum()
        found["foreign"] = float(foreign / max(field[known].sum(), 1e-12))
    return found
