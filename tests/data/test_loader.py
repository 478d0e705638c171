import itertools

import numpy as np
import pytest
import torch

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.datamodule import SegmentationData
from cyclenet.data.images import DataError
from cyclenet.data.loader import KeyedBatchSampler, eval_loader
from cyclenet.data.open import open_split
from cyclenet.data.transforms import TrainTransform
from cyclenet.seeding import derive

CFG = DatasetConfig(
    scenes_train=7, scenes_val=5, scenes_size=[64, 128], crop_size=[48, 64], batch_size=2
)


def loader(workers=0, seed=0, cfg=CFG):
    data = SegmentationData(cfg, seed, workers)
    return data.train_dataloader()


def same(a, b):
    return (
        a["name"] == b["name"]
        and torch.equal(a["image"], b["image"])
        and torch.equal(a["mask"], b["mask"])
    )


def test_batches_do_not_depend_on_the_number_of_workers():
    here, there = loader(0), loader(2)
    for _ in range(2):  # epochs
        for a, b in zip(here, there, strict=True):
            assert same(a, b)


def test_too_few_validation_images_for_the_processes_are_a_sentence(monkeypatch):
    data = SegmentationData(CFG, 0)
    monkeypatch.setattr(data, "_ranks", lambda: (0, 6))
    with pytest.raises(ValueError, match="6 processes cannot share 5 validation images"):
        data.val_dataloader()


def test_epochs_differ_and_seeds_differ():
    train = loader()
    first, second = list(train), list(train)
    assert sorted(n for b in first for n in b["name"]) != [n for b in first for n in b["name"]]
    assert [b["name"] for b in first] != [b["name"] for b in second]
    assert [b["name"] for b in first] != [b["name"] for b in loader(seed=1)]
    # The same image is augmented anew in another epoch.
    images = [
        {n: i for b in e for n, i in zip(b["name"], b["image"], strict=True)}
        for e in (first, second)
    ]
    shared = images[0].keys() & images[1].keys()
    assert shared and all(not torch.equal(images[0][n], images[1][n]) for n in shared)


@pytest.mark.parametrize("stop", [1, 3, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_on_after_any_batch(stop, workers):
    uninterrupted = loader()
    expected = [batch for _ in range(3) for batch in uninterrupted]
    first = loader(workers)
    seen = []
    for _ in range(2):
        for batch in first:
            seen.append(batch)
            if len(seen) == stop:
                break
        if len(seen) == stop:
            break
    resumed = loader(0 if workers else 1)
    resumed.epoch, resumed.seen = first.epoch, first.seen
    while len(seen) < len(expected):
        seen += list(resumed)
    assert all(same(a, b) for a, b in zip(seen, expected, strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_each_global_batch(world_size):
    def keys(rank, size):
        sampler = KeyedBatchSampler(11, 4, 0, rank, size)
        sampler.start(5, 0)
        return list(sampler)

    parts = zip(*(keys(rank, world_size) for rank in range(world_size)), strict=True)
    assert [list(itertools.chain(*part)) for part in parts] == keys(0, 1)
    assert len(keys(0, 1)) == 2  # 11 // 4


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_every_validation_image_belongs_to_one_process(world_size):
    source = open_split(CFG, "val")
    names = [
        batch["name"][0]
        for rank in range(world_size)
        for batch in eval_loader(source, rank, world_size)
    ]
    assert sorted(names) == [source.name(i) for i in range(5)]


def test_images_leave_the_loader_as_bytes_in_channels_last():
    batch = next(iter(loader()))
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["image"].shape == (2, 3, 48, 64) and batch["mask"].shape == (2, 48, 64)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)


def test_small_images_are_padded_with_the_mean_and_ignored():
    cfg = DatasetConfig(crop_size=[100, 120], scale=[1.0, 1.0], flip=0.0)
    image, mask = TrainTransform(cfg)(
        np.zeros((60, 80, 3), np.uint8), np.ones((60, 80), np.uint8), 0
    )
    assert image.shape == (100, 120, 3) and (mask == 1).sum() == 60 * 80
    assert (image[mask == 255] == cfg.pad_value).all() and (image[mask == 1] == 0).all()


def test_scale_is_uniform_on_the_papers_range_and_masks_keep_their_ids():
    transform = TrainTransform(DatasetConfig(crop_size=[400, 400], flip=0.5))
    mask = np.zeros((200, 200), np.uint8)
    mask[:, 100:] = 7
    sizes, flips = [], 0
    for seed in range(200):
        _, out = transform(np.zeros((200, 200, 3), np.uint8), mask, derive(seed))
        assert set(np.unique(out)) <= {0, 7, 255}
        sizes.append((out != 255).any(1).sum() / 200)
        flips += out[200, (out[200] != 255).argmax()] == 7
    sizes = np.array(sizes)
    assert 0.74 <= sizes.min() < 0.8 and 1.9 < sizes.max() <= 2.0
    assert abs(sizes.mean() - 1.375) < 0.08 and 70 < flips < 130


def test_too_few_images_for_a_batch():
    with pytest.raises(DataError, match=r"batch_size is 8, but train has 7 images"):
        loader(cfg=DatasetConfig(scenes_train=7, batch_size=8))


def test_image_and_mask_of_unequal_size_are_named(camvid):
    from conftest import write

    write(camvid / "trainannot" / "frame_2.png", np.zeros((72, 95), np.uint8))
    cfg = DatasetConfig(name="camvid", root=str(camvid), crop_size=[48, 48], batch_size=4)
    with pytest.raises(DataError, match="frame_2 differ in size: 96x72 and 95x72"):
        list(loader(cfg=cfg))
