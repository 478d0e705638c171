"""A strange folder: what is proposed reads it, and trains."""

import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from conftest import TINY, noise_image, run, write
from cyclenet.config.schema import DatasetConfig
from cyclenet.data.images import DataError
from cyclenet.data.open import open_split
from cyclenet.lab.own_data import propose

RNG = np.random.default_rng(0)
COLORS = np.array([[128, 0, 0], [0, 128, 0], [0, 0, 0]], np.uint8)


def image(path):
    write(path, noise_image(RNG, 48, 64))


def ids(*values):
    return np.repeat(np.repeat(np.resize(np.array(values, np.uint8), (6, 8)), 8, 0), 8, 1)


def out(data):
    """A folder beside the data."""
    return data.with_name(f"{data.name}-out")


def read(found, split="train"):
    return open_split(DatasetConfig(name="folder", **found.keys), split)


def test_suffixes_and_colours_in_nested_folders(tmp_path):
    for day in range(4):
        for n in range(5):
            image(tmp_path / f"data/photos/day{day}/{n}.jpg")
            write(tmp_path / f"data/labels/day{day}/{n}_gt.png", COLORS[ids(0, 1, 2)])
    found = propose(tmp_path / "data", tmp_path / "out")
    assert found.keys["images"] == "photos" and found.keys["masks"] == "labels"
    assert found.keys["mask_suffix"] == "_gt" and found.keys["val_share"] == 0.1
    assert len(read(found)) + len(read(found, "val")) == 20
    np.testing.assert_array_equal(read(found).palette[read(found).mask(0)], COLORS[ids(0, 1, 2)])
    assert (tmp_path / "out/pairs.png").is_file()
    # The user's names stay.
    (names,) = (tmp_path / "out").glob("data-*-classes.txt")
    names.write_text("none 0 0 0\nleaf 0 128 0\nsoil 128 0 0\n")
    again = propose(tmp_path / "data", tmp_path / "out")
    assert read(again).classes == ["none", "leaf", "soil"]
    assert any("stays as it is" in line for line in again.seen)
    # Another data set in a folder of the same name has names of its own.
    shutil.copytree(tmp_path / "data", tmp_path / "other/data")
    other = propose(tmp_path / "other/data", tmp_path / "out")
    assert read(other).classes != ["none", "leaf", "soil"]


def test_binary_masks_beside_their_images(tmp_path):
    for split in ("train", "valid"):
        for n in range(3):
            image(tmp_path / f"{split}/IMG_{n}.jpg")
            write(tmp_path / f"{split}/IMG_{n}_mask.png", ids(0, 255))
    found = propose(tmp_path, out(tmp_path))
    assert found.keys["images"] == "." and found.keys["mask_suffix"] == "_mask"
    assert found.keys["val_split"] == "valid"
    assert found.keys["ids"] == ["0:background", "255:object"]
    assert len(read(found)) == 3 and set(np.unique(read(found).mask(0))) == {0, 1}


def test_the_split_before_the_kind_and_two_suffixes(tmp_path):
    for split in ("train", "val"):
        for n in range(2):
            image(tmp_path / f"{split}/rgb/{n}_image.png")
            write(tmp_path / f"{split}/seg/{n}_label.png", ids(3, 900 // 5, 255))
    found = propose(tmp_path, out(tmp_path))
    assert found.keys["images"] == "{split}/rgb" and found.keys["masks"] == "{split}/seg"
    assert found.keys["image_suffix"] == "_image" and found.keys["mask_suffix"] == "_label"
    assert found.keys["ids"] == ["3:class_3", "180:class_180"]
    assert len(read(found, "val")) == 2 and set(np.unique(read(found).mask(0))) == {0, 1, 255}


def test_lists_and_the_usual_layout_with_its_own_classes(tmp_path):
    for n in range(4):
        image(tmp_path / f"JPEGImages/{n}.jpg")
        picture = Image.fromarray(ids(0, 1, 2), "P")
        picture.putpalette(COLORS.tobytes())
        (tmp_path / "Masks").mkdir(exist_ok=True)
        picture.save(tmp_path / f"Masks/{n}.png")
    (tmp_path / "train.txt").write_text("0\n1\n2\n")
    (tmp_path / "val.txt").write_text("3.jpg\n")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    found = propose(tmp_path, out(tmp_path))
    assert found.keys["images"] == "JPEGImages" and "classes" not in found.keys
    assert len(read(found)) == 3 and read(found).classes == ["a", "b", "c"]
    assert not (out(tmp_path) / "classes.txt").exists()


def test_the_32_colours_of_camvid(tmp_path):
    """Its own layout: label_colors.txt, NAME.png and NAME_L.png."""
    for n in range(3):
        image(tmp_path / f"701_StillsRaw_full/0016E5_{n}.png")
        write(tmp_path / f"LabeledApproved_full/0016E5_{n}_L.png", COLORS[ids(0, 1, 2)])
    (tmp_path / "label_colors.txt").write_text("128 0 0\t\tRed\n0 128 0\tGreen\n0 0 0\t\tignore\n")
    found = propose(tmp_path, out(tmp_path))
    assert found.keys["mask_suffix"] == "_L" and found.keys["classes"] == "label_colors.txt"
    assert read(found).classes == ["Red", "Green"]


def test_a_single_number_and_a_test_split_are_told(tmp_path):
    for split in ("train", "test"):
        image(tmp_path / f"images/{split}/1.jpg")
        write(tmp_path / f"masks/{split}/1.png", ids(3, 255))
    found = propose(tmp_path, out(tmp_path))
    told = " ".join(found.unknown)
    assert "must name 2 to 255 classes" in told and "Whether test may be" in told


def test_palettes_that_number_colours_differently_are_told(tmp_path):
    for n in range(4):
        image(tmp_path / f"data/images/{n}.jpg")
        mask = Image.fromarray(ids(0, 1, 2), "P")
        order = COLORS if n % 2 else COLORS[::-1]
        mask.putpalette(order.tobytes())
        (tmp_path / "data/masks").mkdir(exist_ok=True)
        mask.save(tmp_path / f"data/masks/{n}.png")
    found = propose(tmp_path / "data", tmp_path / "out")
    assert any("several colours: save the masks as RGB" in each for each in found.unknown)


def test_two_folders_of_masks_and_255_are_asked_about(tmp_path):
    for n in range(4):
        image(tmp_path / f"data/images/{n}.jpg")
        write(tmp_path / f"data/instances/{n}.png", ids(0, 85, 170, 255))
        write(tmp_path / f"data/semantic/{n}.png", ids(0, 1, 2))
    found = propose(tmp_path / "data", tmp_path / "out")
    told = " ".join(found.unknown)
    assert "semantic/*.png fit as well" in told and "Whether 255 is left out" in told


def test_splits_may_begin_with_capitals(tmp_path):
    for split, count in (("Train", 6), ("Val", 3)):
        for n in range(count):
            image(tmp_path / f"data/{split}/images/{n}.jpg")
            write(tmp_path / f"data/{split}/masks/{n}.png", ids(0, 1, 2))
    found = propose(tmp_path / "data", tmp_path / "out")
    assert found.keys["train_split"] == "Train" and found.keys["val_split"] == "Val"
    assert len(read(found, "Train")) == 6 and len(read(found, "Val")) == 3


def test_names_as_cityscapes_has_them(tmp_path):
    for n in range(3):
        image(tmp_path / f"leftImg8bit/c_00{n}_leftImg8bit.png")
        write(tmp_path / f"gtFine/c_00{n}_gtFine_labelIds.png", ids(0, 7, 11))
    found = propose(tmp_path, out(tmp_path))
    assert found.keys["image_suffix"] == "_leftImg8bit"
    assert found.keys["mask_suffix"] == "_gtFine_labelIds"
    assert len(read(found)) + len(read(found, "val")) == 3


def test_another_ending_tells_images_from_masks_and_a_damaged_mask_is_counted(tmp_path):
    for n in range(4):
        image(tmp_path / f"data/{n}.jpg")
        write(tmp_path / f"data/{n}.png", ids(1, 2, 3))
    (tmp_path / "data/0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = propose(tmp_path / "data", tmp_path / "out")
    assert (found.keys["images"], found.keys["masks"]) == (".", ".")
    assert "What 1 masks hold that cannot be read." in found.unknown
    # No mask has 0: the classes begin with 1.
    assert found.keys["reduce_zero_label"] and len(read(found).classes) == 3
    np.testing.assert_array_equal(np.unique(read(found).mask(1)), [0, 1, 2])


def test_what_belongs_to_nothing_is_told(tmp_path):
    image(tmp_path / "a.jpg")
    write(tmp_path / "b.png", ids(0, 1))
    with pytest.raises(DataError, match="none belong together by name"):
        propose(tmp_path, out(tmp_path))
    with pytest.raises(DataError, match="lies in the data's folder"):
        propose(tmp_path, tmp_path / "out")


def test_a_walk_from_a_strange_folder_to_predictions(tmp_path):
    for day in range(3):
        for n in range(3):
            image(tmp_path / f"my data/photos/day{day}/{n}.jpg")
            write(tmp_path / f"my data/labels/day{day}/{n}_gt.png", COLORS[ids(0, 1, 2)])
    said = run("check_data", "dataset=folder", "dataset.root=my data", cwd=tmp_path, ok=False)
    line = said.split("Proposed:\n")[1].split("\n")[0]
    words = shlex.split(line)[2:]
    assert "0 bad files" in run("check_data", *words, cwd=tmp_path)
    scenes = ["dataset.scenes_train=2", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]"]
    run("train", *TINY, *scenes, "hydra.run.dir=scenes", cwd=tmp_path)
    said = run("train", *words, *TINY, "init_from=scenes", "hydra.run.dir=mine", cwd=tmp_path)
    assert "0 of 3 classes were known" in said and "mIoU" in said
    places = [word for word in words if word.startswith(("dataset.root", "dataset.classes"))]
    run("evaluate", "ckpt_path=mine", *places, cwd=tmp_path)
    said = run("evaluate", "ckpt_path=mine", "dataset=scenes", cwd=tmp_path, ok=False)
    assert "trained on other classes" in said
    run("predict", "ckpt_path=mine", "input=my data/photos", "output=out", cwd=tmp_path)
    assert len(list((tmp_path / "out/label").rglob("*.png"))) == 9
