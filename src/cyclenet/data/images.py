"""Image and mask files: one reader for all commands. It refuses what can be read in two ways.

docs/data.md states the rules.
"""

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import ExifTags, Image, ImageOps

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
"""Endings of the files that count as images where a folder is searched."""

UNREAD_ENDINGS = {
    ".gif",
    ".jp2",
    ".heic",
    ".heif",
    ".avif",
    ".tga",
    ".exr",
    ".jfif",
    ".npy",
    ".pgm",
}
"""Endings of pictures that are not read. Messages name them, so that none is missed in silence."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Formats that images may have, by their content. Pillow runs programs to decode some others."""

# Aerial and panoramic photographs are legitimate; a decompression bomb is larger.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS = 1 << 28

UPRIGHT, TRANSPOSING = 1, (5, 6, 7, 8)
"""Values of EXIF's orientation: as stored; and those that swap the sides."""


class DataError(ValueError):
    """A user's data cannot be used; the message is one sentence that names the file and the fix."""


def read_image(path: Path, paired: bool = False) -> np.ndarray:
    """Read any image of 8 bits as (H, W, 3) uint8 RGB, upright as a viewer shows it.

    Args:
        path: the file. Of several frames the first is read; transparency is left out.
        paired: whether a mask belongs to it. A turned image is then refused where the sizes could
            not tell whether its mask is turned too.

    Raises:
        DataError: it is missing, damaged, or has more than 8 bits a channel.
    """
    return decode_image(read_bytes(path), str(path), paired)


def decode_image(
    raw: bytes,
    name: str,
    paired: bool = False,
    check: Callable[[int, int], None] = lambda width, height: None,
) -> np.ndarray:
    """Decode the bytes of an image file as `read_image` does.

    Args:
        raw: what the file holds.
        name: what messages call it.
        paired: as in `read_image`.
        check: is given width and height before anything is decoded, and may raise.
    """
    try:
        # libspng reads plain RGB files in PNG as strictly as Pillow, and twice as fast.
        if _is_plain_png(raw):
            check(*struct.unpack(">II", raw[16:24]))
            image: np.ndarray = imagecodecs.spng_decode(raw)
            if image.ndim == 3 and image.shape[2] == 3:  # A transparent colour adds a channel.
                return image
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check` looks.
            with Image.open(io.BytesIO(raw), formats=FORMATS) as file:
                check(file.width, file.height)
                if file.width * file.height > MAX_PIXELS:
                    raise DataError(
                        f"{name} has {file.width} x {file.height} pixels; the limit is "
                        f"{MAX_PIXELS // 10**6} million: cut it into parts."
                    )
                if file.mode[0] in "IF" or _bits(file, raw) > 8:  # What is above 255 would be lost.
                    raise DataError(f"{name} has more than 8 bits a channel: convert it to 8 bits.")
                if _has_more_channels(file):
                    raise DataError(f"{name} has more than three channels: give it as RGB.")
                turned = file.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
                decides = turned in TRANSPOSING and file.width != file.height
                if paired and turned in range(2, 9) and not decides:
                    raise DataError(
                        f"{name} is stored turned (EXIF orientation {turned}), and whether its "
                        "mask is turned too cannot be told: save it upright."
                    )
                return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


def read_ids(path: Path, ids: np.ndarray, meaning: str) -> np.ndarray:
    """Read a mask and map its ids to train ids.

    Args:
        path: a grey or palette PNG with one id a pixel, of any bit depth.
        ids: train id of every file id, or -1 where the id is illegal; beyond its end they are, too.
        meaning: what the legal ids are, for the error message.

    Returns:
        (H, W) uint8 train ids, 255 where a pixel does not count.

    Raises:
        DataError: the file is missing, damaged, no PNG, a colour image, or has an illegal id.
    """
    values = read_values(path)
    if values.size and (values.min() < 0 or values.max() >= len(ids)):
        raise DataError(f"{path} has ids up to {values.max()}; legal are {meaning}.")
    mask = ids[values if values.dtype == np.uint8 else values.astype(np.int64)]
    if mask.min(initial=0) < 0:
        illegal = sorted(int(i) for i in np.unique(values) if ids[int(i)] < 0)
        raise DataError(
            f"{path} has the illegal class id {', '.join(map(str, illegal))}; legal are {meaning}."
        )
    return mask.astype(np.uint8)


def read_values(path: Path) -> np.ndarray:
    """Read the numbers (H, W) of a mask as they are stored. Raises as `read_ids`."""
    raw = read_bytes(path)
    try:
        # Pillow refuses truncated files and keeps palette indices.
        with Image.open(io.BytesIO(raw)) as file:
            if file.format != "PNG":
                raise DataError(
                    f"{path} is {file.format} inside, which may change ids: save masks as PNG."
                )
            if file.mode not in ("L", "P", "1", "I", "I;16"):
                raise DataError(
                    f"{path} has colours (mode {file.mode}), not class ids: "
                    "give the mask with one id a pixel."
                )
            if file.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT:
                raise DataError(f"{path} is a mask that is stored turned (EXIF): save it upright.")
            values = np.asarray(file)
            if file.mode == "P":
                _check_palette(path, values, file.getpalette() or [])
            if file.mode == "L" and (bits := _bits(file, raw)) < 8:
                # Pillow spreads 2 and 4 bits over 0..255; this is the way back, without loss.
                values = values // (255 // (2**bits - 1))
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(str(path), error) from error
    return values


def read_colors(path: Path, grey: bool = False) -> np.ndarray | None:
    """Read the colours (H, W) of a colour or palette mask, as 0xRRGGBB; None of a grey one.

    With ``grey`` it reads the shades of a grey mask, and returns None of another.

    Raises:
        DataError: it is missing, damaged, transparent, or no PNG.
    """
    raw = read_bytes(path)
    try:
        with Image.open(io.BytesIO(raw)) as file:
            modes = ("L", "1") if grey else ("RGB", "RGBA", "P")
            if file.mode not in modes or file.format != "PNG":
                return None
            if file.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT:
                raise DataError(f"{path} is a mask that is stored turned (EXIF): save it upright.")
            if _bits(file, raw) > 8:
                raise DataError(f"{path} has more than 8 bits a channel: convert it to 8 bits.")
            kept = "RGB" if grey else "RGBA"  # A grey mask's numbers may say that they are void.
            values = np.asarray(file.convert(kept)).astype(np.int32)
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(str(path), error) from error
    if (values[..., 3:] < 255).any():
        raise DataError(f"{path} is a mask with transparent pixels: save it without transparency.")
    return values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]


def _check_palette(path: Path, values: np.ndarray, palette: list[int]) -> None:
    """Refuse a palette of greys whose greys are not the numbers: either could be the ids."""
    numbers = np.unique(values)
    colors = np.array(palette + [0] * (768 - len(palette))).reshape(256, 3)[numbers]
    grey = (colors == colors[:, :1]).all()
    if grey and len(numbers) > 1 and not (colors[:, 0] == numbers).all():
        raise DataError(
            f"{path} has a palette of greys, where the numbers {_some(numbers)} stand for the "
            f"greys {_some(colors[:, 0])}, and either could be ids: save it as a plain grey PNG."
        )


def _some(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers[:4])) + (", ..." if len(numbers) > 4 else "")


def _has_more_channels(file: Image.Image) -> bool:
    """Tell whether a fourth channel is no transparency; Pillow would drop it."""
    samples = file.tag_v2.get(277, 1) if file.format == "TIFF" else 1  # type: ignore[attr-defined]
    return file.mode == "RGBX" or (file.mode == "RGB" and samples > 3)


def _bits(file: Image.Image, raw: bytes) -> int:
    """Return the bits a channel of an opened image as it is stored."""
    if file.format == "PNG":
        return raw[24]
    if file.format == "TIFF":
        return max(file.tag_v2.get(258, (1,)))  # type: ignore[attr-defined]
    return 8


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises `DataError` where that cannot be done."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except OSError as error:
        raise _unreadable(str(path), error) from error


def _unreadable(name: str, error: Exception) -> DataError:
    # The decoders raise a dozen kinds of exceptions for damaged files.
    reason = " ".join(str(error).split()) or type(error).__name__
    if "<_io.BytesIO" in reason:  # It names an address in memory.
        reason = "it has none of the formats " + ", ".join(FORMATS)
    return DataError(f"{name} is not a readable image ({reason}); replace the file.")


def _is_plain_png(raw: bytes) -> bool:
    # 8 bits, RGB, no EXIF. One that is too large goes to Pillow, which has the sentence for it.
    if raw[:8] != b"\x89PNG\r\n\x1a\n" or raw[24:26] != b"\x08\x02" or b"eXIf" in raw:
        return False
    width, height = struct.unpack(">II", raw[16:24])
    return bool(width * height <= MAX_PIXELS)
