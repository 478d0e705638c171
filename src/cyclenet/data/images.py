"""Image and mask files, read so that a damaged or illegal one is refused by name."""

import io
import math
import struct
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
"""Of files that are taken for images where a folder is searched."""

IGNORE = 255
"""Mask value that no loss and no metric counts."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS = (
    1 << 28
)  # Aerial and panoramic photographs are legitimate; a decompression bomb is larger.


class DataError(ValueError):
    """A user's data cannot be used; the message is one sentence that names the file and the fix."""


def _read(path: Path, modes: tuple[str, ...] | None) -> np.ndarray:
    # Pillow, because it refuses truncated files, keeps palette indices, and does not turn images by their EXIF tag, which
    # would separate them from their masks. Plain RGB files in PNG by libspng: as strict, and twice as fast.
    try:
        raw = path.read_bytes()
        if modes is None and _is_plain_png(raw):
            image = imagecodecs.spng_decode(raw)
            if image.ndim == 3 and image.shape[2] == 3:  # It makes a fourth channel of a transparent colour.
                return image
        with Image.open(io.BytesIO(raw)) as file:
            if modes is None:
                if file.mode[0] in "IF":  # What is above 255 would become white.
                    raise DataError(f"{path} has more than 8 bits a channel (mode {file.mode}): convert it to 8 bits.")
                return np.asarray(file.convert("RGB"))
            if file.mode not in modes:
                raise DataError(f"{path} has colours (mode {file.mode}), not class ids: give the mask with one id a pixel.")
            return np.asarray(file)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except DataError:
        raise
    except Exception as error:  # The decoders raise a dozen kinds for damaged files.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is not a readable image ({reason}); replace the file.") from error


def _is_plain_png(raw: bytes) -> bool:
    # 8 bits, RGB, and no decompression bomb, of which Pillow says what is wrong.
    if raw[:8] != b"\x89PNG\r\n\x1a\n" or raw[24:26] != b"\x08\x02":
        return False
    return math.prod(struct.unpack(">II", raw[16:24])) <= MAX_PIXELS


def read_image(path: Path) -> np.ndarray:
    """Read any image of 8 bits as (H, W, 3) uint8 RGB. Raises `DataError` if it is missing, damaged, or of more bits."""
    return _read(path, None)


def read_ids(path: Path, ids: np.ndarray, meaning: str) -> np.ndarray:
    """Read a mask and map its ids to train ids.

    Args:
        path: a grey or palette PNG, one id a pixel.
        ids: (256,) train id of every file id, or -1 where the id is illegal.
        meaning: what the legal ids are, for the error message.

    Returns:
        (H, W) uint8 train ids, `IGNORE` where a pixel does not count.

    Raises:
        DataError: the file is missing, damaged, a colour image, or has an illegal id.
    """
    raw = _read(path, ("L", "P", "1", "I", "I;16"))
    if raw.dtype != np.uint8:
        if raw.size and (raw.min() < 0 or raw.max() > 255):
            raise DataError(f"{path} has ids up to {raw.max()}; legal are {meaning}.")
        raw = raw.astype(np.uint8)
    mask = ids[raw]
    if mask.min(initial=0) < 0:
        illegal = sorted(int(i) for i in np.unique(raw) if ids[i] < 0)
        raise DataError(f"{path} has the illegal class id {', '.join(map(str, illegal))}; legal are {meaning}.")
    return mask.astype(np.uint8)


def color_map(n: int) -> np.ndarray:
    """Return n distinct colours (n, 3) uint8 by PASCAL VOC's rule: the bits of the index, spread over the channels."""
    index = np.arange(1, n + 1)[:, None]
    bits = (index >> np.arange(9)) & 1
    shift = 7 - np.arange(3)
    return np.stack([(bits[:, channel::3] << shift).sum(1) for channel in range(3)], 1).astype(np.uint8)
