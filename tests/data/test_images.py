"""The one reader and the one maker of names, for any file that a user may have."""

import io
import struct
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cyclenet.data.base import name_files
from cyclenet.data.images import DataError, decode_image, read_image, read_values
from cyclenet.files import safe_name

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
ANY_FOLDER = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What EXIF's orientations make of a stored array, by the standard's definition."""


def png(values, bits, kind, palette=b""):
    """Write a PNG by its specification alone: values (H, W) of a depth, grey (0) or palette (3)."""
    height, width = values.shape
    rows = b""
    for row in values:
        text = "".join(f"{int(value):0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
        if data or name == b"IEND"
    )


@given(st.data(), st.sampled_from([1, 2, 4, 8, 16]), st.booleans())
@ANY_FOLDER
def test_a_mask_is_read_as_it_is_stored_at_any_depth(tmp_path, data, bits, has_palette):
    kind = np.uint16 if bits == 16 else np.uint8
    has_palette &= bits <= 8
    ids = data.draw(arrays(kind, SIDES, elements=st.integers(0, 2**bits - 1)))
    # No entry is grey, so that the numbers alone can be the ids.
    palette = b"".join(bytes([i, 255 - i, 7]) for i in range(2**bits)) if has_palette else b""
    (tmp_path / "a.png").write_bytes(png(ids, bits, 3 if has_palette else 0, palette))
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), ids)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(4))),
    st.sampled_from(["PNG", "TIFF", "WEBP", "BMP", "PPM"]),
    st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1"]),
    st.sampled_from(sorted(TURNS)),
)
@settings(deadline=None)
def test_an_image_is_what_its_file_shows(pixels, kind, mode, turned):
    if kind == "PPM":
        mode = "RGB" if mode != "L" else "L"
    if kind in ("BMP", "WEBP"):
        mode = "RGB"
    picture = Image.fromarray(pixels).convert("RGBA" if mode == "LA" else mode)
    if mode == "LA":
        picture = Image.merge("LA", [picture.getchannel("R"), picture.getchannel("A")])
    expected = np.asarray(picture.convert("RGB"))
    exif, options = Image.Exif(), {}
    if kind in ("PNG", "TIFF", "WEBP"):
        exif[0x0112] = turned
        options["exif"] = exif
    else:
        turned = 1
    if kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    read = decode_image(stream.getvalue(), "a")
    np.testing.assert_array_equal(read, TURNS[turned](expected))
    assert read.dtype == np.uint8


@given(arrays(np.uint16, SIDES, elements=st.integers(0, 65535)))
@ANY_FOLDER
def test_an_image_of_more_than_8_bits_is_refused(tmp_path, values):
    (tmp_path / "a.png").write_bytes(png(values, 16, 0))
    with pytest.raises(DataError, match="8 bits"):
        read_image(tmp_path / "a.png")


def test_an_image_of_more_than_three_channels_is_refused(tmp_path):
    Image.new("RGBX", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="more than three channels"):
        read_image(tmp_path / "a.tif")


@given(st.binary(max_size=60), st.integers(0, 80), st.integers(0, 80))
@ANY_FOLDER
def test_a_damaged_file_is_read_or_named(tmp_path, noise, start, end):
    good = png(np.arange(30, dtype=np.uint8).reshape(5, 6), 8, 0)
    path = tmp_path / "damaged.png"
    path.write_bytes(good[:start] + noise + good[end:])
    for read in (read_image, read_values):
        try:
            assert read(path).ndim >= 2
        except DataError as error:
            assert "damaged.png" in str(error)


@given(st.text() | st.sampled_from(["con.x", "..", "-", "NUL", "a" * 300, "\U00010400" * 90]))
@settings(max_examples=500)
def test_any_text_becomes_the_name_of_a_file(text):
    name = safe_name(text)
    assert name not in ("", ".", "..") and not name.startswith((".", "-"))
    assert not set(name) & set('/\\\0\n:*?"<>|') and not name.endswith((".", " "))
    assert len(name.encode()) <= 210, "file systems allow 255 bytes, and parts need a prefix"
    assert safe_name(name) == name


@given(st.lists(st.text(), unique=True, min_size=2))
def test_different_texts_become_different_names(texts):
    assert len({safe_name(text) for text in texts}) == len(texts)


PARTS = st.text("aB.é \udc80", min_size=1, max_size=3).filter(lambda part: part.strip("."))


@given(st.sets(st.lists(PARTS, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8))
def test_no_output_is_another_inputs(names):
    files = [f"{name}{end}" for name in sorted(names) for end in (".png", ".JPG", ".mp4")]
    made = [
        name.casefold() for name in name_files([Path("/root", f) for f in files], Path("/root"))
    ]
    if len({file.casefold() for file in files}) == len(files):
        assert len(set(made)) == len(files)
    parents = {parent.as_posix() for name in made for parent in PurePosixPath(name).parents}
    assert not parents & {f"{name}.png" for name in made} - {"."}
    assert not any(name.startswith("/") or ".." in name.split("/") for name in made)
