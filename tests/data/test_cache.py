import errno
import json
import multiprocessing
import os
import pickle
import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import noise_image, run, write
from cyclenet.config.schema import DatasetConfig
from cyclenet.data.cache import CachedSource, cache_folder, cached
from cyclenet.data.datamodule import SegmentationData
from cyclenet.data.images import DataError
from cyclenet.data.open import open_split


def config(camvid, **changes):
    values = {"name": "camvid", "root": str(camvid), "cache_root": str(camvid.parent / "cache")}
    return DatasetConfig(**(values | {"crop_size": [48, 64], "batch_size": 2} | changes))


def make(cfg):
    return cached(open_split(cfg, cfg.train_split), cfg, cfg.train_split, build=True)


def batches(cfg, workers=0):
    data = SegmentationData(cfg, 0, workers)
    return data.train_source, [batch for _ in range(2) for batch in data.train_dataloader()]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_without_a_cache(camvid, workers):
    plain, expected = batches(config(camvid, cache="never"))
    source, found = batches(config(camvid), workers)
    assert (
        isinstance(source, CachedSource) and not isinstance(plain, CachedSource) and len(found) == 4
    )
    for a, b in zip(found, expected, strict=True):
        assert (
            a["name"] == b["name"]
            and torch.equal(a["image"], b["image"])
            and torch.equal(a["mask"], b["mask"])
        )


def test_pairs_of_unequal_size_in_another_process(ade20k, tmp_path):
    cfg = DatasetConfig(
        name="ade20k", root=str(ade20k), train_split="validation", cache_root=str(tmp_path / "c")
    )
    source, there = open_split(cfg, "validation"), make(cfg)
    there.image(0)
    state = pickle.dumps(there)
    assert len(state) < 20_000  # Not the pixels.
    for each in (there, pickle.loads(state)):
        for i in range(3):
            assert np.array_equal(each.image(i), source.image(i)) and np.array_equal(
                each.mask(i), source.mask(i)
            )
    with pytest.raises(ValueError, match="read-only"):
        there.image(0)[0, 0, 0] = 1


def test_an_image_that_lies_turned_in_its_file_is_cached_upright(camvid):
    path, exif = camvid / "train/frame_0.png", Image.Exif()
    exif[0x0112] = 6  # A quarter turn: the file is 96 x 72, the picture 72 x 96.
    turned = np.rot90(np.asarray(Image.open(path))).copy()
    Image.fromarray(turned).save(path, exif=exif)
    cfg = config(camvid, cache="always")
    plain, there = open_split(cfg, "train"), make(cfg)
    assert isinstance(there, CachedSource) and there.image(0).shape == (72, 96, 3)
    assert np.array_equal(there.image(0), plain.image(0))
    assert np.array_equal(there.mask(0), plain.mask(0))


def test_a_changed_file_is_read_anew(camvid):
    cfg = config(camvid)
    before = make(cfg)
    assert isinstance(cached(open_split(cfg, "train"), cfg, "train"), CachedSource)
    other = noise_image(np.random.default_rng(9), 72, 96)
    write(camvid / "train" / "frame_1.png", other)
    # Nothing of it is used any more; those that read it already go on with what they have.
    assert not isinstance(cached(open_split(cfg, "train"), cfg, "train"), CachedSource)
    assert np.array_equal(make(cfg).image(1), other) and not np.array_equal(before.image(1), other)
    assert [p.name for p in (camvid.parent / "cache").iterdir() if p.is_dir()] == [
        cache_folder(cfg, "train").name
    ]
    # A further pair.
    for folder in ("train", "trainannot"):
        shutil.copy(camvid / folder / "frame_0.png", camvid / folder / "frame_9.png")
    assert len(make(cfg)) == 5


def test_damage_is_named_and_nothing_is_read_from_it(camvid):
    cfg = config(camvid)
    make(cfg)
    folder = cache_folder(cfg, "train")
    entry = json.loads((folder / "index.json").read_text())["entries"][2]
    with (folder / "pixels.bin").open("r+b") as file:
        file.seek(entry["start"] + 100)
        byte = file.read(1)
        file.seek(entry["start"] + 100)
        file.write(bytes([byte[0] ^ 1]))
    there = make(cfg)
    there.image(1)
    with pytest.raises(
        DataError, match=r"camvid-train-\w+ is damaged at frame_2: delete that folder"
    ):
        there.mask(2)
    with (folder / "pixels.bin").open("r+b") as file:
        file.truncate(1000)
    assert np.array_equal(
        make(cfg).image(2), open_split(cfg, "train").image(2)
    )  # Too short: made anew.


def test_no_room(camvid, monkeypatch, capsys):
    cfg = config(camvid)
    usage = namedtuple("usage", "total used free")
    # 4 pairs of 96 x 72 x 4 bytes in pages: 114,688 bytes.
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 200_000))
    assert not isinstance(make(cfg), CachedSource)
    assert "No cache" in (message := capsys.readouterr().err) and "would take 0.0 GB" in message
    assert isinstance(make(config(camvid, cache="always")), CachedSource)
    shutil.rmtree(cache_folder(cfg, "train"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 100_000))
    with pytest.raises(DataError, match=r"set dataset\.cache_root to another disk"):
        make(config(camvid, cache="always"))


def test_a_place_that_cannot_be_written_is_no_reason_to_stop(camvid, capsys):
    (camvid.parent / "cache").write_text("a file, not a folder")
    assert len(make(config(camvid))) == 4
    assert "No cache" in capsys.readouterr().err


@pytest.mark.parametrize("length", [20, 4000])
def test_an_unreadable_image_is_named_and_leaves_nothing(camvid, length):
    path = camvid / "train" / "frame_3.png"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"frame_3\.png is not a readable image"):
        make(config(camvid))
    assert not any(p.is_dir() for p in (camvid.parent / "cache").iterdir())


def test_another_process_does_not_read_a_cache_that_was_replaced(camvid):
    cfg = config(camvid)
    there = make(cfg)
    there.image(1)
    state = pickle.dumps(there)
    write(camvid / "train" / "frame_1.png", noise_image(np.random.default_rng(9), 72, 96))
    make(cfg)
    with pytest.raises(DataError, match="was replaced or deleted while it was in use"):
        pickle.loads(state).image(1)


def test_no_cache_is_written_where_nothing_can_be_locked(camvid, monkeypatch, capsys):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert (
        not isinstance(make(config(camvid)), CachedSource)
        and "has no locks" in capsys.readouterr().err
    )
    with pytest.raises(DataError, match="has no locks"):
        make(config(camvid, cache="always"))


def _make_and_report(cfg, queue):
    queue.put(make(cfg).image(2).tobytes())


def test_several_processes_make_one_cache(camvid):
    cfg = config(camvid)
    (camvid.parent / "cache").mkdir()
    killed = cache_folder(cfg, "train").with_name(cache_folder(cfg, "train").name + ".tmp123")
    killed.mkdir()  # What a process that was killed left.
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    processes = [context.Process(target=_make_and_report, args=(cfg, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    images = {queue.get() for _ in processes}
    for process in processes:
        process.join()
    assert images == {open_split(cfg, "train").image(2).tobytes()}
    assert [p.name for p in (camvid.parent / "cache").iterdir() if p.is_dir()] == [
        cache_folder(cfg, "train").name
    ]


def test_a_trial_on_a_few_images_does_not_write_the_whole_split(camvid):
    source, _ = batches(config(camvid, train_limit=2))
    assert not (camvid.parent / "cache").exists() and len(source) == 2
    make(config(camvid))
    source, _ = batches(config(camvid, train_limit=2))
    assert isinstance(source.source, CachedSource)  # But uses one that is there.


def test_the_command(camvid, tmp_path):
    words = ("dataset=camvid", f"dataset.root={camvid}")
    output = run("prepare", *words, "splits=[train,val]", cwd=tmp_path)
    assert "4 pairs, 0.00 GB, written and verified" in output and "3 pairs" in output
    assert "verified" in run(
        "prepare", *words, cwd=tmp_path, CYCLENET_CACHE=str(tmp_path / "data" / "cache")
    )
    assert "needs no cache" in run("prepare", "dataset=scenes", cwd=tmp_path, ok=False)
    next((tmp_path / "data/cache").glob("camvid-train-*/pixels.bin")).open("r+b").write(b"xyz")
    assert "is damaged at frame_0" in run("prepare", *words, cwd=tmp_path, ok=False)


def test_pixels_of_another_folder_are_not_taken_for_these(tmp_path):
    """Files of equal names, sizes and times, which a camera's left and right pictures may have."""
    for side, value in (("left", 10), ("right", 200)):
        path = tmp_path / f"data/{side}/train/0.bmp"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((40, 60, 3), value, np.uint8)).save(path)
        os.utime(path, (1e9, 1e9))
    write(tmp_path / "data/masks/train/0.png", np.eye(40, 60, dtype=np.uint8))
    (tmp_path / "data/classes.txt").write_text("road\nsky\n")
    other = tmp_path / "link"
    other.symlink_to(tmp_path / "data")
    there = config(tmp_path / "data", name="folder", images="left")
    assert make(there).folder == make(replace(there, root=str(other))).folder
    stamp = (make(there).folder / "pixels.bin").stat().st_mtime_ns
    make(replace(there, root=str(other)))  # By another name of the same root.
    assert (make(there).folder / "pixels.bin").stat().st_mtime_ns == stamp
    for side, value in (("left", 10), ("right", 200)):
        options = {"name": "folder", "root": str(tmp_path / "data"), "images": side}
        assert make(config(tmp_path / "data", **options)).image(0)[0, 0, 0] == value
