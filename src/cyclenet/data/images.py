"""Image and mask files, read so that a damaged or illegal one is refused by name."""

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
"""Endings of the files that count as images where a folder is searched."""

# Aerial and panoramic photographs are legitimate; a decompression bomb is larger.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS = 1 << 28


class DataError(ValueError):
    """A user's data cannot be used; the message is one sentence that names the file and the fix."""


def read_image(path: Path) -> np.ndarray:
    """Read any image of 8 bits as (H, W, 3) uint8 RGB.

    Raises:
        DataError: it is missing, damaged, or has more than 8 bits a channel.
    """
    raw = _read_bytes(path)
    try:
        # libspng reads plain RGB files in PNG as strictly as Pillow, and twice as fast.
        if _is_plain_png(raw):
            image: np.ndarray = imagecodecs.spng_decode(raw)
            if image.ndim == 3 and image.shape[2] == 3:  # A transparent colour adds a channel.
                return image
        with Image.open(io.BytesIO(raw)) as file:
            if file.mode[0] in "IF":  # What is above 255 would become white.
                raise DataError(
                    f"{path} has more than 8 bits a channel (mode {file.mode}): "
                    "convert it to 8 bits."
                )
            return np.asarray(file.convert("RGB"))
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def read_ids(path: Path, ids: np.ndarray, meaning: str) -> np.ndarray:
    """Read a mask and map its ids to train ids.

    Args:
        path: a grey or palette PNG with one id a pixel.
        ids: (256,) train id of every file id, or -1 where the id is illegal.
        meaning: what the legal ids are, for the error message.

    Returns:
        (H, W) uint8 train ids, 255 where a pixel does not count.

    Raises:
        DataError: the file is missing, damaged, a colour image, or has an illegal id.
    """
    raw = _read_bytes(path)
    try:
        # Pillow refuses truncated files, keeps palette indices, and does not turn a mask by an
        # EXIF tag, which would separate it from its image.
        with Image.open(io.BytesIO(raw)) as file:
            if file.mode not in ("L", "P", "1", "I", "I;16"):
                raise DataError(
                    f"{path} has colours (mode {file.mode}), not class ids: "
                    "give the mask with one id a pixel."
                )
            values = np.asarray(file)
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    if values.dtype != np.uint8:
        if values.size and (values.min() < 0 or values.max() > 255):
            raise DataError(f"{path} has ids up to {values.max()}; legal are {meaning}.")
        values = values.astype(np.uint8)
    mask = ids[values]
    if mask.min(initial=0) < 0:
        illegal = sorted(int(i) for i in np.unique(values) if ids[i] < 0)
        raise DataError(
            f"{path} has the illegal class id {', '.join(map(str, illegal))}; legal are {meaning}."
        )
    train_ids: np.ndarray = mask.astype(np.uint8)
    return train_ids


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    # The decoders raise a dozen kinds of exceptions for damaged files.
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path} is not a readable image ({reason}); replace the file.")


def _is_plain_png(raw: bytes) -> bool:
    # It has 8 bits and RGB, and is no decompression bomb, of which Pillow says what is wrong.
    if raw[:8] != b"\x89PNG\r\n\x1a\n" or raw[24:26] != b"\x08\x02":
        return False
    width, height = struct.unpack(">II", raw[16:24])
    return bool(width * height <= MAX_PIXELS)
