import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from conftest import noise_image, write
from cyclenet.config.schema import DatasetConfig
from cyclenet.data.images import DataError, read_image
from cyclenet.data.open import find_root, open_split
from cyclenet.labels import color_map


def opened(name, root, split):
    return open_split(DatasetConfig(name=name, root=str(root)), split)


def test_cityscapes_maps_label_ids_as_the_official_scripts_do(cityscapes):
    from cityscapesscripts.helpers.labels import labels, trainId2label

    source = opened("cityscapes", cityscapes, "train")
    assert [source.name(i) for i in range(2)] == ["jena_000000_000019", "ulm_000000_000019"]
    raw = np.asarray(Image.open(source.pairs[0].mask))
    official = {
        label.id: label.trainId if label.trainId >= 0 else 255 for label in labels if label.id >= 0
    }
    assert np.array_equal(source.mask(0), np.vectorize(official.get)(raw))
    assert source.classes == [trainId2label[i].name for i in range(19)]
    assert source.palette.tolist() == [list(trainId2label[i].color) for i in range(19)]


def mask_path(cityscapes, kind="labelIds"):
    return cityscapes / f"gtFine/val/bern/bern_000000_000019_gtFine_{kind}.png"


def test_cityscapes_takes_premade_train_ids_where_there_is_nothing_else(cityscapes):
    mask_path(cityscapes).unlink()
    ids = np.random.default_rng(0).choice([0, 5, 18, 255], (64, 128)).astype(np.uint8)
    write(mask_path(cityscapes, "labelTrainIds"), ids)
    assert np.array_equal(opened("cityscapes", cityscapes, "val").mask(0), ids)
    ids[3, 4] = 19  # "void" in some conversions
    write(mask_path(cityscapes, "labelTrainIds"), ids)
    with pytest.raises(
        DataError,
        match=r"labelTrainIds\.png has the illegal class id 19; legal are Cityscapes' train ids",
    ):
        opened("cityscapes", cityscapes, "val").mask(0)


def test_cityscapes_reads_palette_files_by_index(cityscapes):
    source = opened("cityscapes", cityscapes, "val")
    expected = source.mask(0)
    image = Image.fromarray(np.asarray(Image.open(mask_path(cityscapes))), mode="P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(mask_path(cityscapes))
    assert np.array_equal(source.mask(0), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            np.full((64, 128), 255, np.uint8),
            r"illegal class id 255; legal are .* \(19 train ids .*_labelTrainIds",
        ),
        (np.full((64, 128), 40, np.uint8), "illegal class id 40"),
        (np.zeros((64, 128, 3), np.uint8), r"has colours \(mode RGB\), not class ids"),
        (np.full((64, 128), 3000, np.uint16), "ids up to 3000"),
    ],
)
def test_cityscapes_refuses_other_masks_by_name(cityscapes, content, message):
    write(mask_path(cityscapes), content)
    with pytest.raises(DataError, match=message) as error:
        opened("cityscapes", cityscapes, "val").mask(0)
    assert str(mask_path(cityscapes)) in str(error.value)


def test_ade20k_ignores_zero(ade20k):
    source = opened("ade20k", ade20k, "validation")
    raw = np.asarray(Image.open(source.pairs[1].mask)).astype(int)
    assert np.array_equal(source.mask(1), np.where(raw == 0, 255, raw - 1))
    assert len(source.classes) == 150 and source.classes[:2] == ["thing 1", "thing 2"]
    assert source.image(1).shape == (79, 97, 3)
    assert len(opened("ade20k", ade20k / "ADEChallengeData2016", "training")) == 2


def test_camvid_ignores_eleven(camvid):
    source = opened("camvid", camvid, "val")
    raw = np.asarray(Image.open(source.pairs[0].mask))
    assert np.array_equal(source.mask(0), np.where(raw == 11, 255, raw))
    write(camvid / "valannot" / "frame_0.png", np.full((72, 96), 12, np.uint8))
    with pytest.raises(DataError, match="illegal class id 12"):
        source.mask(0)


@pytest.fixture
def own(tmp_path):
    rng = np.random.default_rng(3)
    for name in ("a.jpg", "b.png"):
        write(tmp_path / "images/train" / name, noise_image(rng, 40, 50))
        write(tmp_path / "masks/train" / f"{name[0]}.png", np.array([[0, 1], [2, 255]], np.uint8))
    (tmp_path / "images/train/notes.md").touch()
    (tmp_path / "classes.txt").write_text("road\nparking lot\nsky\n\n")
    return tmp_path


def test_ones_own_folders(own):
    source = opened("folder", own, "train")
    assert [source.name(i) for i in range(len(source))] == ["a", "b"] and source.classes == [
        "road",
        "parking lot",
        "sky",
    ]
    assert (
        source.mask(0).tolist() == [[0, 1], [2, 255]]
        and source.palette.shape == (3, 3)
        and source.strays() == []
    )
    write(own / "masks/train/b.png", np.full((2, 2), 3, np.uint8))
    with pytest.raises(
        DataError,
        match=r"the illegal class id 3; legal are 0..2 \(the lines of classes.txt\) and 255",
    ):
        source.mask(1)


def test_mistakes_in_ones_own_folders_are_sentences(own):
    write(own / "images/train/a.png", np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"a\.jpg and a\.png have one name without their endings: remove one"
    ):
        opened("folder", own, "train")
    with pytest.raises(DataError, match=r"no folder .*images/val \(.* has train\)"):
        opened("folder", own, "val")
    (own / "images/train/a.png").unlink()
    (own / "classes.txt").write_text("road\nroad\n")
    with pytest.raises(DataError, match="names road twice"):
        opened("folder", own, "train")
    (own / "classes.txt").unlink()
    with pytest.raises(DataError, match="does not exist: write the classes' names into it"):
        opened("folder", own, "train")


def test_damaged_and_missing_files_are_named(camvid):
    path = camvid / "val" / "frame_1.png"
    path.write_bytes(path.read_bytes()[:-3000])
    source = opened("camvid", camvid, "val")
    with pytest.raises(
        DataError, match=r"frame_1\.png is not a readable image \(.*\); replace the file"
    ):
        source.image(1)
    (camvid / "valannot" / "frame_2.png").unlink()
    with pytest.raises(DataError, match=r"frame_2\.png does not exist"):
        source.mask(2)


def test_plain_and_other_pngs_are_read_alike(tmp_path):
    """Plain RGB goes another way than RGB with a transparent colour, transparency, a palette, 16
    bits.
    """
    pixels = noise_image(np.random.default_rng(0), 9, 7)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "colour.png", transparency=tuple(int(v) for v in pixels[0, 0]))
    image.convert("RGBA").save(tmp_path / "alpha.png")
    for name in ("plain", "colour", "alpha"):
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), pixels)
    image.quantize(8).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (9, 7, 3)


def test_a_decompression_bomb_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "bomb.png")
    raw = bytearray((tmp_path / "bomb.png").read_bytes())
    raw[16:24] = struct.pack(">II", 30000, 30000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    (tmp_path / "bomb.png").write_bytes(raw)
    with pytest.raises(
        DataError, match=r"bomb\.png is not a readable image \(.*decompression bomb"
    ):
        read_image(tmp_path / "bomb.png")


def test_masks_without_an_image_are_named(camvid, cityscapes, ade20k):
    for name, root, split, image in (
        ("camvid", camvid, "val", camvid / "val/frame_1.png"),
        (
            "cityscapes",
            cityscapes,
            "train",
            cityscapes / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png",
        ),
        (
            "ade20k",
            ade20k,
            "training",
            ade20k / "ADEChallengeData2016/images/training/ADE_training_0.jpg",
        ),
    ):
        assert opened(name, root, split).strays() == []
        image.unlink()
        (stray,) = opened(name, root, split).strays()
        assert (
            "is a mask without an image" in stray
            and image.stem.removesuffix("_leftImg8bit") in stray
        )


def test_grey_and_turned_photographs_keep_their_pixels(tmp_path):
    write(tmp_path / "grey.png", np.full((4, 6), 9, np.uint8))
    assert read_image(tmp_path / "grey.png").shape == (4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    # As a viewer shows it; its mask then has the same sides, or the pair is refused by name.
    assert read_image(tmp_path / "turned.jpg", paired=True).shape == (6, 4, 3)
    exif[0x0112] = 3
    Image.new("RGB", (6, 4)).save(tmp_path / "upside.jpg", exif=exif)
    assert read_image(tmp_path / "upside.jpg").shape == (4, 6, 3)
    with pytest.raises(DataError, match="whether its mask is turned too cannot be told: save it"):
        read_image(tmp_path / "upside.jpg", paired=True)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_images_of_more_than_8_bits_are_refused(tmp_path, dtype):
    write(tmp_path / "deep.tif", np.full((40, 50), 30000, dtype))
    with pytest.raises(
        DataError, match=r"deep.tif has more than 8 bits a channel: convert it to 8 bits"
    ):
        read_image(tmp_path / "deep.tif")


def test_data_is_fetched_by_whichever_command_opens_it(monkeypatch, camvid):
    asked = []
    monkeypatch.setattr(
        "cyclenet.data.download.download", lambda name, root: asked.append((name, root))
    )
    open_split(DatasetConfig(name="camvid", root=str(camvid), download=True), "val")
    open_split(DatasetConfig(name="camvid", root=str(camvid)), "val")
    assert asked == [("camvid", camvid)]


def test_a_missing_root_or_split_is_a_sentence(camvid, monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"no folder .*nowhere: set dataset.root or \$CAMVID_ROOT"):
        opened("camvid", tmp_path / "nowhere", "train")
    with pytest.raises(
        DataError, match=r"no folder .*test \(.* has train, trainannot, val, valannot\)"
    ):
        opened("camvid", camvid, "test")
    (camvid / "empty").mkdir()
    with pytest.raises(DataError, match="No images in"):
        opened("camvid", camvid, "empty")
    for name in ("CAMVID", "CITYSCAPES"):
        monkeypatch.delenv(f"{name}_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="csDownload"):
        find_root(DatasetConfig(name="cityscapes"))
    monkeypatch.setenv("CAMVID_ROOT", str(camvid))
    assert find_root(DatasetConfig(name="camvid")) == camvid
    assert find_root(DatasetConfig(name="camvid", root=str(tmp_path))) == tmp_path


def test_color_map_is_pascal_vocs():
    assert color_map(4).tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert len(np.unique(color_map(150), axis=0)) == 150
