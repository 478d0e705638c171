"""Heads on a frozen backbone's features: cached or not, they are trained on the same numbers."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch

from conftest import noise_image, tiny_model, write
from cyclenet.config.model import ModelConfig
from cyclenet.config.schema import DatasetConfig, OptimConfig, TrainConfig
from cyclenet.data.features import FeatureCache
from cyclenet.data.images import DataError
from cyclenet.data.open import open_split
from cyclenet.data.views import AS_IT_IS, Place, View, Views, to_tensor
from cyclenet.deploy.load import load
from cyclenet.models.cyclenet import build_model
from cyclenet.models.resize import Grid
from cyclenet.runs.features import _estimate, open_features, write_features
from cyclenet.runs.train import train
from cyclenet.training.task import SegmentationTask
from cyclenet.training.trainer import build_trainer
from made import fit, model_of, short_config, short_trainer


def frozen_config(cache=True, root=None, steps=-1, extra=0, **model) -> TrainConfig:
    dataset = DatasetConfig(
        scenes_train=6,
        scenes_val=2,
        scenes_size=[64, 128],
        crop_size=[64 + extra, 96 + extra],
        batch_size=2,
        views=[1.0, 1.3],
        cache_features=cache,
        cache_root=str(root) if root else None,
    )
    options = short_trainer(max_epochs=7, max_steps=steps, checkpoint_every_steps=1)
    options = replace(options, val_every_epochs=7, precision="32-true")
    model = tiny_model(freeze_backbone=True, **model)
    return short_config(
        model=model,
        dataset=dataset,
        trainer=replace(options, val_every_epochs=7, precision="32-true"),
    )


torch.set_num_threads(1)  # Threads change the last digits, and the cache is written by single ones.


def equal(a: SegmentationTask, b: SegmentationTask) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("align_corners", [False, True])
def test_cached_and_uncached_features_train_equal_heads(tmp_path, align_corners):
    """20 steps, with a decoder, whose low-level features are windows too."""
    tasks = []
    for cache in (True, False):
        extra = int(align_corners)
        model = {"decoder": "skip", "align_corners": align_corners}
        cfg = frozen_config(cache, tmp_path, 20, extra, **model)
        tasks.append(fit(cfg, tmp_path / str(cache))[0])
    assert equal(*tasks)
    assert tasks[0].val_scores == tasks[1].val_scores
    assert len(list(tmp_path.glob("features-*/*.safetensors"))) == 6 * 4 + 2


def test_a_decoder_that_reads_the_image_is_trained_on_cached_features_too(tmp_path):
    tasks = []
    for cache in (True, False):
        cfg = frozen_config(cache, tmp_path, 2, context="identity", decoder="bisenet")
        tasks.append(fit(cfg, tmp_path / str(cache))[0])
    assert equal(*tasks)


class LoseAtStep5(L.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            raise RuntimeError("lost")


def test_a_resumed_training_of_a_head_is_bit_equal(tmp_path):
    cfg = frozen_config(True, tmp_path, 8)
    whole, _ = fit(cfg, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="lost"):
        fit(cfg, tmp_path / "part", callback=LoseAtStep5())
    resumed, trainer = fit(cfg, tmp_path / "part", tmp_path / "part/checkpoints/last.ckpt")
    assert trainer.global_step == 8 and equal(whole, resumed)


def test_a_resumed_head_that_began_from_another_run_keeps_its_backbone(tmp_path, monkeypatch):
    fit(short_config(), tmp_path / "source")
    cfg = frozen_config(True, tmp_path / "cache", 8)
    cfg = replace(cfg, init_from=str(tmp_path / "source/checkpoints/last.ckpt"))
    train(cfg, tmp_path / "whole", [])

    def build_and_lose(*args):
        trainer = build_trainer(*args)
        trainer.callbacks.insert(0, LoseAtStep5())
        return trainer

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="lost"):
        patch.setattr("cyclenet.runs.train.build_trainer", build_and_lose)
        train(cfg, tmp_path / "part", [])
    train(cfg, tmp_path / "part", [])
    (whole,), (part,) = (
        list((tmp_path / name).glob("evaluate/*/scores.json")) for name in ("whole", "part")
    )
    confusions = [json.loads(path.read_text())["confusion"] for path in (whole, part)]
    assert confusions[0] == confusions[1]
    assert len(list((tmp_path / "cache").glob("features-*[0-9a-f]"))) == 1


def test_a_frozen_backbone_stays_as_it_is_and_goes_with_the_checkpoint(tmp_path):
    task, trainer = fit(frozen_config(True, tmp_path, 4), tmp_path / "run")
    torch.manual_seed(0)
    before = build_model(task.cfg.model, 19).backbone.state_dict()
    assert all(
        torch.equal(value, before[name]) for name, value in task.net.backbone.state_dict().items()
    )
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert trained.isdisjoint(id(p) for p in task.net.backbone.parameters())
    assert trained == {id(p) for p in task.net.parameters() if p.requires_grad}
    assert task.net.aux is None
    shutil.rmtree(
        next(p for p in tmp_path.glob("features-*") if p.is_dir())
    )  # The checkpoint predicts without a cache.
    image = to_tensor(open_split(task.cfg.dataset, "val").image(0))[None]
    loaded = load(tmp_path / "run", device="cpu")
    assert torch.equal(loaded.labels(image), model_of(task).labels(image))


@pytest.fixture
def cached(tmp_path):
    """A task, its source, and the cache of its features, written."""
    cfg = frozen_config(True, tmp_path)
    source = open_split(cfg.dataset, "train")
    torch.manual_seed(0)
    task = SegmentationTask(cfg, source.classes, source.palette.tolist())
    cache = open_features(task.net, cfg, cfg.dataset)
    write_features(cache, task.net, source, cache.views.all(), torch.device("cpu"))
    return task, source, cache


def test_a_damaged_or_missing_file_is_told(cached):
    task, source, cache = cached
    crop = (source, 0, (64, 128), AS_IT_IS, Place(0, 1))
    assert [tuple(level.shape[:2]) for level in cache.crop(*crop)][-1] == (8, 12)
    with pytest.raises(DataError, match="other features than its mask"):
        cache.crop(source, 0, (128, 256), AS_IT_IS, Place(0, 1))
    path = cache.path(source, 0, AS_IT_IS)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    cache.verified.clear()
    with pytest.raises(DataError, match="is missing or damaged"):
        cache.crop(*crop)
    path.unlink()
    with pytest.raises(DataError, match="is missing or damaged"):
        cache.crop(*crop)
    before = len(list(cache.folder.iterdir()))
    (cache.folder / ".tmp1-killed.safetensors").touch()
    write_features(cache, task.net, source, cache.views.all(), torch.device("cpu"))
    assert len(list(cache.folder.iterdir())) == before + 1  # Nothing else was written again.


def test_other_weights_or_data_have_other_features(cached):
    task, _, cache = cached
    with torch.no_grad():
        next(task.net.backbone.parameters()).mul_(1.5)
    assert open_features(task.net, task.cfg, task.cfg.dataset).folder != cache.folder
    other = open_split(replace(task.cfg.dataset, scenes_seed=1), "train")
    assert not cache.path(other, 0, AS_IT_IS).exists()


def test_an_image_smaller_than_the_crop_is_evaluated_without_the_crops_padding(cached):
    """Its cached view covers the crop: the logits would be squeezed over the image."""
    task, source, cache = cached
    assert cache.whole(source, 0, (64, 128)) is not None
    cache.views.crop = (96, 128)
    write_features(cache, task.net, source, [AS_IT_IS], torch.device("cpu"))
    assert cache.path(source, 0, AS_IT_IS).is_file()
    assert cache.whole(source, 0, (64, 128)) is None


def test_an_image_that_is_filled_up_to_the_crop_is_not_evaluated_from_its_view(cached):
    """Both have the size of the grid, but a view has other colours below and on the right."""
    _, _, cache = cached
    crop = cache.views.crop
    cut = (crop[0] - 1, crop[1])
    source = SimpleNamespace(stamp=lambda n: [1], name=lambda n: "a")
    path = cache.path(source, 0, AS_IT_IS)
    path.write_bytes(b"")
    assert cache.whole(source, 0, cut) is None
    path.unlink()


def test_an_evaluation_may_leave_the_cache_out(cached):
    task, _, _ = cached
    assert open_features(task.net, task.cfg, task.cfg.dataset) is not None
    without = replace(task.cfg.dataset, cache_features=False)
    assert open_features(task.net, task.cfg, without) is None


def test_no_room_is_told_before_anything_is_written(cached, monkeypatch):
    task, source, cache = cached
    for path in cache.folder.iterdir():
        path.unlink()
    usage = shutil.disk_usage(cache.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"features of 24 views, 0.0\d GB, once: 0.00 GB are free"):
        write_features(cache, task.net, source, cache.views.all(), torch.device("cpu"))
    assert not list(cache.folder.iterdir())


def test_the_size_that_is_told_is_that_of_a_network_for_its_crop_too(cached, monkeypatch):
    """Such a network pads small images to its crop."""
    task, source, cache = cached
    asked = (source, [(0, AS_IT_IS)], torch.device("cpu"))
    usual = _estimate(cache, task.net, *asked)
    monkeypatch.setattr(task.net, "least", task.net.grid.padded((200, 300)))
    assert _estimate(cache, task.net, *asked) == pytest.approx(usual, rel=0.01)


def test_a_crop_of_features_lies_over_its_mask():
    """A view's pixels, cut where the mask is cut, are the image that the features are of."""
    cfg = DatasetConfig(crop_size=[64, 96], views=[1.5])
    views = Views(cfg, Grid(8, False))
    image = np.zeros((64, 128, 3), np.uint8)
    image[20:40, 50:90] = 255
    mask = (image[..., 0] > 0).astype(np.uint8)
    view, place = View(1.5, True), Place(3, 5)
    pixels = views.pixels(image, view)[3 * 8 : 3 * 8 + 64, 5 * 8 : 5 * 8 + 96, 0]
    agree = (views.crop_mask(mask, view, place) > 0) == (pixels > 127)
    assert agree.mean() > 0.98 and 0.05 < (pixels > 127).mean() < 0.9
    rows, columns = views.windows([(24, 48)], (96, 192), place)[0]  # A map at 1/4.
    assert (rows, columns) == (slice(6, 22), slice(10, 34))


def test_views_smaller_than_the_crop_are_padded_and_drawn():
    views = Views(DatasetConfig(crop_size=[64, 96], views=[0.5, 1.0]), Grid(8, False))
    image = np.full((64, 128, 3), 7, np.uint8)
    assert views.pixels(image, View(0.5, False)).shape == (64, 96, 3)
    mask = views.crop_mask(np.zeros((64, 128), np.uint8), View(0.5, False), Place(0, 0))
    assert mask.shape == (64, 96) and (mask == 255).mean() == pytest.approx(1 - 32 * 64 / 64 / 96)
    drawn = {views.draw((64, 128), seed) for seed in range(200)}
    assert {view for view, _ in drawn} == set(views.all())
    assert {place.left for view, place in drawn if view.scale == 1} == set(range(5))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="freeze_backbone=true, or"):
        TrainConfig(dataset=DatasetConfig(views=[1.0]))
    with pytest.raises(ValueError, match="are windows of features"):
        frozen = ModelConfig(freeze_backbone=True)
        TrainConfig(model=frozen, dataset=DatasetConfig(crop_size=[100, 96], views=[1.0]))
    with pytest.raises(ValueError, match="needs dataset"):
        DatasetConfig(cache_features=True)


def test_arms_of_a_seed_start_alike_in_all_they_share():
    nets = []
    for changes in ({"feedback": 0}, {"feedback": 1}, {"feedback": 1, "decoder": "skip"}):
        torch.manual_seed(5)
        nets.append(dict(build_model(tiny_model(**changes), 5).named_parameters()))
    for a, b in ((nets[0], nets[1]), (nets[1], nets[2])):
        shared = [name for name in a if name in b and a[name].shape == b[name].shape]
        assert len(shared) > 40 and "context.fuse_conv.0.weight" in shared
        assert all(torch.equal(a[name], b[name]) for name in shared)
    torch.manual_seed(6)
    other = dict(build_model(tiny_model(), 5).named_parameters())
    assert not torch.equal(other["classifier.1.weight"], nets[1]["classifier.1.weight"])


def test_a_copy_of_the_data_keeps_its_features_and_a_changed_image_does_not(camvid, tmp_path):
    cfg = frozen_config(True, tmp_path)
    views = Views(cfg.dataset, Grid(8, False))
    shutil.copytree(camvid, tmp_path / "copy", copy_function=shutil.copyfile)
    paths = []
    for root in (camvid, tmp_path / "copy"):
        dataset = DatasetConfig(name="camvid", root=str(root))
        source, cache = open_split(dataset, "val"), FeatureCache(tmp_path, views)
        paths.append([cache.path(source, index, AS_IT_IS).name for index in range(3)])
    assert paths[0] == paths[1]
    shutil.copyfile(camvid / "val/frame_1.png", tmp_path / "copy/val/frame_0.png")
    changed = open_split(dataset, "val")
    assert cache.path(changed, 0, AS_IT_IS).name not in paths[0]
    assert cache.path(changed, 1, AS_IT_IS).name == paths[0][1]


def test_ones_own_data_and_todays_recipe_train_equal_heads(tmp_path):
    """Suffixes, ids of 16 bits, a held-out share; AdamW, its average; and the run is resumed."""
    rng, root = np.random.default_rng(0), tmp_path / "data"
    for number in range(8):
        ids = rng.choice(np.array([0, 7, 40000], np.uint16), (64, 96))
        write(root / f"town{number % 4}/{number}_img.png", noise_image(rng, 64, 96))
        write(root / f"town{number % 4}/{number}_gt.png", ids)
    keys = {"images": ".", "masks": ".", "image_suffix": "_img", "mask_suffix": "_gt"}
    keys |= {"ids": ["0:ignore", "7:road", "40000:car"], "val_share": 0.25}
    optim = OptimConfig(optimizer="adamw", lr=1e-3, schedule="cosine", ema_decay=0.9)
    tasks = []
    for cache in (True, False):
        cfg = frozen_config(cache, tmp_path, 6)
        data = replace(cfg.dataset, name="folder", root=str(root), scenes_train=1, **keys)
        cfg = replace(cfg, dataset=data, optim=optim)
        tasks.append(fit(cfg, tmp_path / str(cache))[0])
    with pytest.raises(RuntimeError, match="lost"):
        fit(cfg, tmp_path / "part", callback=LoseAtStep5())
    resumed, _ = fit(cfg, tmp_path / "part", tmp_path / "part/checkpoints/last.ckpt")
    assert equal(*tasks) and equal(tasks[0], resumed)
    assert tasks[0].classes == ["road", "car"]
    assert len(list(tmp_path.glob("features-*/*.safetensors"))) == 6 * 4 + 2
