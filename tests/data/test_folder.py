"""One's own data, as users have it: suffixes, lists, id maps, colours, no split."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from conftest import TINY, noise_image, run, write
from cyclenet.config.load import compose_config
from cyclenet.config.schema import DatasetConfig, TrainConfig
from cyclenet.data.held_out import held_out
from cyclenet.data.images import DataError
from cyclenet.data.open import open_split
from cyclenet.runs.train import find_warning

RNG = np.random.default_rng(0)
IDS = np.array([[0, 1], [2, 255]], np.uint8)
COLORS = np.array([[10, 20, 30], [200, 0, 0], [0, 0, 7]], np.uint8)


def put(root: Path, *files: str, mask: np.ndarray = IDS, classes="road\ncar\ntree\n") -> Path:
    """Write images, and masks where a name has _mask, _gt or the folder masks."""
    for file in files:
        is_mask = "mask" in file or "_gt" in file
        size = mask.shape[:2]
        write(root / file, mask if is_mask else noise_image(RNG, *size))
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def opened(root, split="train", **keys):
    return open_split(DatasetConfig(name="folder", root=str(root), **keys), split)


def test_pairs_may_differ_by_suffixes_in_one_folder(tmp_path):
    put(tmp_path, "train/a/foo.jpg", "train/a/foo_mask.png", "train/bar.png", "train/bar_mask.png")
    source = opened(tmp_path, images=".", masks=".", mask_suffix="_mask")
    assert [pair.name for pair in source.pairs] == ["a/foo", "bar"] and not source.strays()
    np.testing.assert_array_equal(source.mask(0), IDS)
    with pytest.raises(DataError, match=r"give dataset.mask_suffix"):
        opened(tmp_path, images=".", masks=".")
    (tmp_path / "train/bar_mask.png").unlink()
    with pytest.raises(DataError, match=r"bar_mask.png does not exist"):
        opened(tmp_path, images=".", masks=".", mask_suffix="_mask").mask(1)


def test_both_may_have_a_suffix_and_the_split_may_stand_first(tmp_path):
    put(tmp_path, "train/rgb/x_img.jpg", "train/masks/x_gt.png", "val/rgb/y_img.jpg")
    keys = {"images": "{split}/rgb", "masks": "{split}/masks"}
    source = opened(tmp_path, **keys, image_suffix="_img", mask_suffix="_gt")
    assert source.pairs[0].name == "x" and source.mask(0).shape == (2, 2)
    with pytest.raises(DataError, match="There is no folder"):
        opened(tmp_path, "test", **keys)


@pytest.mark.parametrize("line", ["a/1", "a/1.jpg", "a/1_img", "a/1_img.jpg masks/a/1.png"])
def test_a_list_names_a_split_with_or_without_endings(line, tmp_path):
    put(tmp_path, "images/a/1_img.jpg", "images/2_img.jpg", "masks/a/1.png", "masks/2.png")
    (tmp_path / "train.txt").write_text(f"{line}\n\n")
    source = opened(tmp_path, image_suffix="_img")
    assert [pair.name for pair in source.pairs] == ["a/1"]
    assert source.pairs[0].mask.is_file() and not source.strays()
    (tmp_path / "train.txt").write_text("a/3\n")
    with pytest.raises(DataError, match=r"names 'a/3'.*no such image"):
        opened(tmp_path, image_suffix="_img")


def test_numbers_may_mean_what_one_says(tmp_path):
    mask = np.array([[0, 7], [8, 40000]], np.uint16)
    put(tmp_path, "images/train/1.png", "masks/train/1.png", mask=mask, classes="")
    source = opened(tmp_path, ids=["0:ignore", "7:road", "8:road", "40000:car"])
    assert source.classes == ["road", "car"]
    np.testing.assert_array_equal(source.mask(0), [[255, 0], [0, 1]])
    with pytest.raises(DataError, match=r"illegal class id 8; legal are 0:ignore"):
        opened(tmp_path, ids=["0:ignore", "7:road", "40000:car"]).mask(0)
    with pytest.raises(DataError, match="ids up to 40000"):
        opened(tmp_path, ids=["0:ignore", "7:road", "8:car"]).mask(0)
    for wrong in (["road"], ["7:"], ["99999:road"], ["-1:road"]):
        with pytest.raises(DataError, match=r"dataset.ids must list numbers and names"):
            opened(tmp_path, ids=wrong)


def test_a_mask_of_one_bit_with_an_illegal_number_is_named(tmp_path):
    put(tmp_path, "images/train/1.png", "masks/train/1.png", classes="")
    bits = Image.fromarray(np.eye(2, dtype=np.uint8) * 255).convert("1")
    bits.save(tmp_path / "masks/train/1.png")
    with pytest.raises(DataError, match=r"1\.png has the illegal class id 1"):
        opened(tmp_path, ids=["0:ground", "255:object"]).mask(0)


def test_zero_or_another_number_may_not_count(tmp_path):
    mask = np.array([[0, 1], [2, 99]], np.uint8)
    put(tmp_path, "images/train/1.png", "masks/train/1.png", mask=mask, classes="road\ncar\n")
    source = opened(tmp_path, reduce_zero_label=True, ignore_id=99)
    np.testing.assert_array_equal(source.mask(0), [[255, 0], [1, 255]])
    with pytest.raises(DataError, match="is the class car of"):
        opened(tmp_path, ignore_id=1)
    put(tmp_path, "masks/train/1.png", mask=np.array([[0, 255]], np.uint8), classes="")
    binary = opened(tmp_path, ids=["0:background", "255:object"])
    np.testing.assert_array_equal(binary.mask(0), [[0, 1]])


@pytest.mark.parametrize(
    "line", ["{name} {r} {g} {b}", "{r} {g} {b}\t{name}", "{name}, {r}, {g}, {b}"]
)
def test_colours_are_read_by_their_table(line, tmp_path):
    lines = [
        line.format(name=name, r=r, g=g, b=b)
        for name, (r, g, b) in zip(["the road", "car", "tree"], COLORS, strict=True)
    ]
    mask = COLORS[[[0, 1], [2, 2]]]
    put(tmp_path, "images/train/1.png", "masks/train/1.png", mask=mask, classes="\n".join(lines))
    source = opened(tmp_path)
    assert source.classes == ["the road", "car", "tree"]
    np.testing.assert_array_equal(source.mask(0), [[0, 1], [2, 2]])
    np.testing.assert_array_equal(source.palette, COLORS)
    write(tmp_path / "masks/train/1.png", np.array([[[1, 2, 3]] * 2] * 2, np.uint8))
    with pytest.raises(DataError, match=r"the colour 1 2 3, which classes.txt does not name"):
        opened(tmp_path).mask(0)


def test_a_colour_may_be_ignored_and_a_contradictory_palette_is_refused(tmp_path):
    from PIL import Image

    lines = "road 10 20 30\ncar 200 0 0\nignore 0 0 7\n"
    mask = COLORS[[[0, 1], [2, 2]]]
    put(tmp_path, "images/train/1.png", "masks/train/1.png", mask=mask, classes=lines)
    source = opened(tmp_path)
    assert source.classes == ["road", "car"]
    np.testing.assert_array_equal(source.mask(0), [[0, 1], [255, 255]])
    picture = Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8), "P")
    picture.putpalette(COLORS[[0, 1]].tobytes())
    picture.save(tmp_path / "masks/train/1.png")
    np.testing.assert_array_equal(opened(tmp_path).mask(0), [[0, 1], [1, 1]])
    picture.putpalette(COLORS[[1, 0]].tobytes())
    picture.save(tmp_path / "masks/train/1.png")
    with pytest.raises(DataError, match="colours are other classes than its numbers"):
        opened(tmp_path).mask(0)


def test_a_share_is_held_out_by_folder_and_always_the_same(tmp_path):
    names = [f"day{number % 7}/{number}" for number in range(140)]
    train, val = (held_out(names, 0.15, split, tmp_path) for split in ("train", "val"))
    assert sorted(train + val) == sorted(names) and 0.1 <= len(val) / 140 <= 0.3
    assert {n.split("/")[0] for n in val}.isdisjoint(n.split("/")[0] for n in train)
    assert held_out(names[::-1], 0.15, "val", tmp_path) == val
    flat = [f"{number:03d}" for number in range(100)]
    val = held_out(flat, 0.1, "val", tmp_path)
    assert len(val) == 10 and len(held_out(flat, 0.1, "train", tmp_path)) == 90
    runs = np.split(np.array(val, int), np.flatnonzero(np.diff(np.array(val, int)) > 1) + 1)
    assert min(map(len, runs)) == 5, "neighbouring frames stay together"
    uneven = [f"a/{n}" for n in range(95)] + [f"b/{n}" for n in range(5)]
    assert len(held_out(uneven, 0.1, "val", tmp_path)) <= 10, "a folder of 95 is not a tenth"
    put(tmp_path, *[f"{part}/{n}.png" for part in ("images", "masks") for n in range(20)])
    counts = [len(opened(tmp_path, split, val_share=0.1)) for split in ("train", "val")]
    assert counts == [18, 2]


def test_a_share_is_held_out_of_the_training_split_alone(tmp_path):
    """Never of another split, and never beside one that is there."""
    names = [
        f"{part}/{split}/{n}.png"
        for part in ("images", "masks")
        for n in range(20)
        for split in ("train", "test")
    ]
    put(tmp_path, *names)
    train, val, test = (opened(tmp_path, s, val_share=0.1) for s in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (18, 2, 20)
    paths = [{pair.image for pair in source.pairs} for source in (train, val, test)]
    assert not paths[0] & paths[1] and not paths[1] & paths[2]
    (tmp_path / "val.txt").write_text("test/1\n")
    for split in ("train", "val"):
        with pytest.raises(DataError, match="has a split val already"):
            opened(tmp_path, split, val_share=0.1)


def test_names_with_spaces_and_joined_splits_with_equal_names(tmp_path):
    put(tmp_path, "images/my img.jpg", "images/my.jpg", "masks/my img.png", "masks/my.png")
    (tmp_path / "train.txt").write_text("my img.jpg\n")
    (tmp_path / "val.txt").write_text("my img.jpg masks/my img.png\n")
    assert [pair.name for pair in opened(tmp_path).pairs] == ["my img"]
    put(tmp_path / "b", *[f"{k}/{s}/1.png" for k in ("images", "masks") for s in ("train", "val")])
    source = opened(tmp_path / "b", "train+val")
    assert [source.name(n) for n in range(2)] == ["train/1", "val/1"]
    (tmp_path / "extra.txt").write_text("my img.jpg\nmy.jpg\n")
    with pytest.raises(DataError, match=r"my img.jpg is in two splits of train\+extra"):
        opened(tmp_path, "train+extra")
    with pytest.raises(ValueError, match=r"no \+ in a name"):
        DatasetConfig(train_split="day+night")


def test_two_spellings_of_an_umlaut_are_one_name(tmp_path):
    one, two = "m\u00fcnster", "mu\u0308nster"  # As most write it, and as a Mac may store it.
    put(tmp_path, f"images/{two}.jpg", f"masks/{one}.png", "images/x.jpg", "masks/x.png")
    for spelling in (one, two):
        (tmp_path / "train.txt").write_text(f"{spelling}.jpg masks/{two}.png\n")
        source = opened(tmp_path)
        assert [pair.name for pair in source.pairs] == [one] and not source.strays()
        np.testing.assert_array_equal(source.mask(0), IDS)
        (tmp_path / "folds.csv").write_text(f"{spelling},0\nx,1\n")
        assert [pair.name for pair in opened(tmp_path, "fold0").pairs] == [one]


def test_contradictions_about_numbers_are_refused(tmp_path):
    put(tmp_path, "images/train/1.png", "masks/train/1.png")
    with pytest.raises(DataError, match="gives a number twice"):
        opened(tmp_path, ids=["0:bg", "1:road", "1:car"])
    with pytest.raises(DataError, match=r"ignore_id=0 is bg in dataset.ids"):
        opened(tmp_path, ids=["0:bg", "1:road"], ignore_id=0)


def test_keys_of_folders_are_refused_elsewhere():
    for key, value in (("mask_suffix", "_gt"), ("ids", ["0:road"]), ("val_share", 0.1)):
        with pytest.raises(ValueError, match=f"dataset.{key} is for dataset=folder"):
            DatasetConfig(name="camvid", **{key: value})


def test_folders_lie_within_the_root():
    for value in ("../elsewhere", "/etc", "a/../../b"):
        with pytest.raises(ValueError, match=r"dataset.images must lie within dataset.root"):
            DatasetConfig(name="folder", images=value)


def test_the_words_of_the_command_line_need_no_quotes():
    words = [
        "dataset=folder",
        "dataset.images={split}/images",
        "dataset.ids=[0:ignore,7:road,8:a b]",
    ]
    cfg = compose_config("check_data", quoted(words))
    assert cfg.dataset.images == "{split}/images"
    assert cfg.dataset.ids == ["0:ignore", "7:road", "8:a b"]


def quoted(words):
    from cyclenet.commands.overrides import quote

    return [quote(word, set()) for word in words]


def test_several_splits_are_trained_on_and_none_may_be_validated(camvid, tmp_path):
    words = [*TINY, "dataset=camvid", "dataset.root=camvid", "hydra.run.dir=run"]
    said = run("train", *words, "dataset.train_split=[train,val]", cwd=tmp_path)
    assert "7 training and 3 validation images" in said
    assert "The training sees 3 of the 3 validation images" in said
    words = [*words, "dataset.val_split=null", "hydra.run.dir=other"]
    said = run("train", *words, cwd=tmp_path)
    assert "No split is validated on" in said and "4 training and 0 validation" in said
    folder = tmp_path / "other"
    assert not (folder / "checkpoints/best.ckpt").exists() and not (folder / "evaluate").exists()
    assert '"finished"' in (folder / "result.json").read_text()
    said = run("train", *words, cwd=tmp_path)
    assert "Finished before" in said and "Note:" not in said
    (tmp_path / "link").symlink_to(camvid)
    words = [word.replace("dataset.root=camvid", "dataset.root=link") for word in words]
    run("train", *words, "hydra.run.dir=linked", cwd=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    said = run("train", *words, "hydra.run.dir=linked", cwd=tmp_path)
    assert f"it was trained on data in {camvid}, and the data are in" in said
    said = run("evaluate", "ckpt_path=other", "dataset.root=camvid", cwd=tmp_path, ok=False)
    assert "split=NAME" in said
    said = run("evaluate", "ckpt_path=other", "dataset.root=camvid", "split=val", cwd=tmp_path)
    assert "mIoU" in said


def test_coarse_masks_of_cityscapes(cityscapes):
    stem = "train_extra/ulm/ulm_000000_000019"
    write(cityscapes / f"leftImg8bit/{stem}_leftImg8bit.png", noise_image(RNG, 8, 8))
    ids = np.full((8, 8), 7, np.uint8)
    write(cityscapes / f"gtCoarse/{stem}_gtCoarse_labelIds.png", ids)
    dataset = DatasetConfig(name="cityscapes", root=str(cityscapes))
    assert (open_split(dataset, "train_extra").mask(0) == 0).all()
    assert len(open_split(dataset, "train+train_extra")) == 3


def test_another_ending_or_a_suffix_of_images_tells_them_from_masks(tmp_path):
    put(tmp_path / "a", "train/1.jpg", "train/x_mask.png")
    (tmp_path / "a/train/x_mask.png").rename(tmp_path / "a/train/1.png")
    source = opened(tmp_path / "a", images=".", masks=".")
    assert [pair.name for pair in source.pairs] == ["1"] and source.mask(0).shape == (2, 2)
    put(tmp_path / "b", "train/1_img.png", "train/1_mask.png")
    (tmp_path / "b/train/1_mask.png").rename(tmp_path / "b/train/1.png")
    source = opened(tmp_path / "b", images=".", masks=".", image_suffix="_img")
    assert [pair.name for pair in source.pairs] == ["1"] and not source.strays()
    np.testing.assert_array_equal(source.mask(0), IDS)


def test_images_may_lie_inside_the_masks_folder(tmp_path):
    put(tmp_path, "train/imgs/1.png", "train/1_mask.png")
    (tmp_path / "train/1_mask.png").rename(tmp_path / "train/1.png")
    source = opened(tmp_path, images="{split}/imgs", masks="{split}")
    assert len(source) == 1 and not source.strays() and source.mask(0).shape == (2, 2)


def test_a_list_and_a_folder_of_a_split_must_agree(tmp_path):
    put(tmp_path, *[f"{kind}/train/{n}.png" for kind in ("images", "masks") for n in (1, 2)])
    (tmp_path / "train.txt").write_text("images/train/1.png\n2\n\n")
    assert len(opened(tmp_path)) == 2
    (tmp_path / "train.txt").write_text("1\n")
    with pytest.raises(DataError, match="name different images"):
        opened(tmp_path)


def test_keys_of_numbers_do_not_change_colours(tmp_path):
    lines = [f"class_{n} {' '.join(map(str, color))}" for n, color in enumerate(COLORS)]
    mask = COLORS[np.array([[0, 1], [2, 2]])]
    put(tmp_path, "images/train/1.png", "masks/train/1.png", mask=mask, classes="\n".join(lines))
    assert opened(tmp_path).mask(0).max() == 2
    for key in ({"ignore_id": 99}, {"reduce_zero_label": True}):
        with pytest.raises(DataError, match="has colours, which dataset"):
            opened(tmp_path, **key).mask(0)


def test_small_folders_alone_are_not_the_share(tmp_path):
    names = [f"big/{n:03d}" for n in range(199)] + ["small/1"]
    held = held_out(names, 0.2, "val", tmp_path)
    assert 20 <= len(held) <= 40


def test_more_names_than_a_byte_counts(tmp_path):
    names = [f"c{n}" for n in range(200)] + ["ignore"] * 100
    put(tmp_path, "images/train/1.png", "masks/train/1.png", classes="\n".join(names))
    source = opened(tmp_path, reduce_zero_label=True, ignore_id=0)
    assert len(source.classes) == 200 and source.ids[300] == 255


def test_images_that_are_trained_on_and_validated_are_counted(tmp_path):
    files = [f"{kind}/{n}.png" for kind in ("images", "masks") for n in range(4)]
    put(tmp_path, *files)
    (tmp_path / "train.txt").write_text("0\n1\n2\n")
    (tmp_path / "val.txt").write_text("2\n3\n")
    parts = {f"{split}_source": opened(tmp_path, split) for split in ("train", "val")}
    cfg = TrainConfig(dataset=DatasetConfig(name="folder", root=str(tmp_path)))
    said = find_warning(cfg, SimpleNamespace(**parts))
    assert "The training sees 1 of the 2 validation images" in said


def test_the_largest_evaluated_image_tells_of_untrained_taps(tmp_path):
    put(tmp_path, "images/1.png", "masks/1.png", mask=np.zeros((32, 32), np.uint8))
    put(tmp_path, "images/2.png", "masks/2.png", mask=np.zeros((32, 320), np.uint8))
    (tmp_path / "train.txt").write_text("1\n")
    (tmp_path / "val.txt").write_text("1\n2\n")
    parts = {f"{split}_source": opened(tmp_path, split) for split in ("train", "val")}
    data = DatasetConfig(name="folder", root=str(tmp_path), crop_size=[64, 64])
    assert "maps of 4 x 40" in find_warning(TrainConfig(dataset=data), SimpleNamespace(**parts))


def test_shades_of_grey_that_are_colours_of_other_classes_are_refused(tmp_path):
    classes = "object 255 255 255\nbackground 0 0 0\n"
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    put(tmp_path, "images/train/1.png", "masks/train/1.png", mask=mask, classes=classes)
    with pytest.raises(DataError, match="its shades are colours of other classes"):
        opened(tmp_path).mask(0)
    path = tmp_path / "masks/train/1.png"
    Image.fromarray(mask).convert("1").save(path)
    with pytest.raises(DataError, match="its shades are colours of other classes"):
        opened(tmp_path).mask(0)
    write(path, np.eye(2, dtype=np.uint8))  # Numbers, of which 1 is no colour.
    np.testing.assert_array_equal(opened(tmp_path).mask(0), np.eye(2))
    write(path, np.zeros((2, 2), np.uint8))
    assert opened(tmp_path).mask(0).max() == 0
    Image.fromarray(mask).convert("RGB").save(path)
    np.testing.assert_array_equal(opened(tmp_path).mask(0), [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    "classes",
    ["# my classes\nroad\ncar\ntree\n", "0 road\n2 car\n1 tree\n", "1 0 0 0 a\n2 9 9 9 b\n"],
)
def test_lines_that_would_shift_ids_are_refused(classes, tmp_path):
    put(tmp_path, "images/train/1.png", "masks/train/1.png", classes=classes)
    with pytest.raises(DataError, match="id is the number of its line"):
        opened(tmp_path)


def test_numbers_that_are_those_of_the_lines_or_names_are_read(tmp_path):
    for classes in ("0 road\n1 car\n2 tree\n", "4 wheeler\n2 wheeler\ntree\n"):
        put(tmp_path, "images/train/1.png", "masks/train/1.png", classes=classes)
        assert opened(tmp_path).classes == classes.split("\n")[:3]


@pytest.mark.parametrize("line", ["{n} 128 64 {n} road{n}", "road{n} 128 64 {n} 255"])
def test_a_fifth_column_is_not_taken_for_a_name_or_a_colour(line, tmp_path):
    lines = "".join(line.format(n=n) + "\n" for n in range(3))
    put(tmp_path, "images/train/1.png", "masks/train/1.png", classes=lines)
    with pytest.raises(DataError, match="has four numbers in a line"):
        opened(tmp_path)
    three = "128 64 0 3-wheeler\n128 64 1 class 2\n128 64 2 tree 255\n"
    put(tmp_path, "images/train/1.png", "masks/train/1.png", classes=three)
    assert opened(tmp_path).classes == ["3-wheeler", "class 2", "tree 255"]


def test_classes_of_the_current_folder_are_read_only_by_their_name(tmp_path, monkeypatch):
    root = put(tmp_path / "data", "images/train/1.png", "masks/train/1.png", classes="")
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data/classes\.txt does not exist"):
        opened(root)
    assert opened(root, classes="names.txt").classes == ["cat", "dog", "bird"]
    (root / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match="give its whole path"):
        opened(root, classes="names.txt")


def test_a_list_that_pairs_other_masks_is_refused(tmp_path):
    put(tmp_path, *[f"{kind}/{n}.png" for kind in ("images", "masks") for n in ("x", "y")])
    (tmp_path / "train.txt").write_text("x.png masks/x.png\ny.png\n")
    assert len(opened(tmp_path)) == 2
    for line in ("x x", "x.png masks/x", "x ../masks/x.png", "x.png /abs/masks/x.png"):
        (tmp_path / "train.txt").write_text(f"{line}\n")
        assert len(opened(tmp_path)) == 1
    for line in ("x.png y.png", "x 2.png", "x -1"):
        (tmp_path / "train.txt").write_text(f"{line}\n")
        with pytest.raises(DataError, match="leave one image a line"):
            opened(tmp_path)


def test_a_list_is_not_passed_over(tmp_path):
    names = ("day1/0", "day1/1", "day2/0", "day2/1")
    put(tmp_path, *[f"{kind}/train/{n}.png" for kind in ("images", "masks") for n in names])
    (tmp_path / "train.txt").write_text("day1/0\nday1/1\n")
    for keys in ({}, {"images": "images/{split}", "masks": "masks/{split}"}):
        with pytest.raises(DataError, match="name different images"):
            opened(tmp_path, **keys)
    (tmp_path / "train.txt").write_text("".join(f"images/train/{name}.png\n" for name in names))
    assert len(opened(tmp_path)) == 4


@pytest.mark.parametrize(
    ("files", "keys"),
    [
        (
            ["a.png", "a_mask.png"],
            {"images": "{split}", "masks": "{split}", "mask_suffix": "_mask"},
        ),
        (["a.jpg", "masks/a.png"], {"images": "{split}", "masks": "{split}/masks"}),
        (
            ["sub/a.jpg", "sub/a_mask.png"],
            {"images": "{split}", "masks": "{split}", "mask_suffix": "_mask"},
        ),
    ],
)
def test_a_list_beside_a_folder_may_name_the_same_images(files, keys, tmp_path):
    put(tmp_path, *[f"train/{file}" for file in files])
    (tmp_path / "train.txt").write_text("a\n")
    assert len(opened(tmp_path, **keys)) == 1
