"""What is usual today beside the paper's recipe: each part does what it says, and resumes."""

import json
from dataclasses import asdict, replace

import lightning as L
import numpy as np
import pytest
import torch

from conftest import TINY, run, tiny_model
from cyclenet.config.load import compose_config
from cyclenet.config.restore import restore
from cyclenet.config.schema import DatasetConfig, OptimConfig, TrainConfig
from cyclenet.data.loader import KeyedBatchSampler
from cyclenet.data.transforms import TrainTransform
from cyclenet.models.cyclenet import build_model
from cyclenet.models.stored import load_checkpoint
from cyclenet.training.average import AverageWeights
from cyclenet.training.optim import block_of, parameter_groups, schedule
from cyclenet.training.task import SegmentationTask
from made import CLASSES, PALETTE, fit, short_config

MODERN = OptimConfig(
    optimizer="adamw", lr=1e-3, layer_decay=0.5, schedule="cosine", ema_decay=0.9, warmup_steps=1
)

SHARE = ("dataset=folder", "dataset.val_share=0.1")


class LoseAtStep3(L.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 3:
            raise RuntimeError("lost")


class Weights(L.Callback):
    """The weights after each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, *_):
        self.seen.append(module.net.classifier[-1].weight.detach().clone())


def test_a_resumed_run_with_all_parts_is_bit_equal(tmp_path):
    cfg = short_config(optim=MODERN)
    cfg.dataset.color_jitter = 0.3
    whole, _ = fit(cfg, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="lost"):
        fit(cfg, tmp_path / "part", callback=LoseAtStep3())
    resumed, trainer = fit(cfg, tmp_path / "part", tmp_path / "part/checkpoints/last.ckpt")
    assert trainer.global_step == 4
    ends = [
        load_checkpoint(tmp_path / f"{name}/checkpoints/last.ckpt") for name in ("whole", "part")
    ]
    for key in ("state_dict", "current_model_state"):
        a, b = (end[key] for end in ends)
        assert all(torch.equal(a[name], b[name]) for name in a), key
    a, b = (task.state_dict() for task in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_average_is_validated_and_kept(tmp_path):
    watched = Weights()
    task, _ = fit(short_config(optim=MODERN), tmp_path, callback=watched)
    average = watched.seen[0]
    for step, weight in enumerate(watched.seen[1:], 1):
        kept = min(0.9, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * weight
    end = load_checkpoint(tmp_path / "checkpoints/last.ckpt")
    name = next(key for key in end["state_dict"] if key.endswith("weight") and "classifier" in key)
    torch.testing.assert_close(end["state_dict"][name], average)
    torch.testing.assert_close(end["current_model_state"][name], watched.seen[-1])
    torch.testing.assert_close(task.net.classifier[-1].weight.detach(), average)


def test_the_cosine_ends_at_its_floor_after_a_warm_up():
    cfg = OptimConfig(schedule="cosine", lr=1.0, min_lr=0.1, warmup_steps=4)
    rates = [schedule(step, 100, cfg) for step in range(101)]
    assert rates[0] < 0.25 and max(rates) == rates[4] and abs(rates[100] - 0.1) < 1e-9
    assert abs(rates[50] - 0.55) < 1e-9


def test_each_block_has_a_rate_of_its_own():
    net = build_model(tiny_model(), 4)
    cfg = OptimConfig(lr=1.0, layer_decay=0.5, head_lr_scale=3, decay_norm_and_bias=False)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in parameter_groups(net, cfg)
        for parameter in group["params"]
    }
    body = dict(net.backbone.body.named_parameters())
    assert rates[id(body["layer4.0.conv1.weight"])] == (0.5, cfg.weight_decay)
    assert rates[id(body["layer4.0.bn1.weight"])] == (0.5, 0.0)
    assert rates[id(body["layer3.0.conv1.weight"])][0] == 0.25
    assert rates[id(net.classifier[-1].weight)][0] == 3
    assert len(rates) == len(list(net.parameters()))
    assert block_of("backbone.body.stages_2.blocks.11.norm.bias") == "stages_2.blocks.11"
    assert block_of("backbone.body.blocks.2.1.conv_pw.weight") == "blocks.2.1"
    stem = ("conv1.0.weight", "bn1.bias", "stem_0.weight", "features_norm0.weight")
    stem += ("model.patch_embed.proj.weight", "model.cls_token", "conv_stem.weight")
    assert {block_of(f"backbone.body.{name}") for name in stem} == {"stem"}
    down = {block_of(f"backbone.body.stages_1.downsample.{n}.weight") for n in (0, 1)}
    assert down == {"stages_1.downsample"}
    assert block_of("backbone.body.layer2.0.downsample.1.weight") == "layer2.0"


@pytest.mark.parametrize(
    ("backbone", "first"),
    [("densenet121", "features_conv0.weight"), ("vit_tiny_patch16_224", "model.cls_token")],
)
def test_the_stem_has_the_smallest_rate(backbone, first):
    with torch.device("meta"):
        net = build_model(tiny_model(backbone=backbone, output_stride=16), 4)
    groups = parameter_groups(net, OptimConfig(lr=1.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    body = dict(net.backbone.body.named_parameters())
    assert rates[id(body[first])] == min(rates.values())
    assert list(rates.values()).count(min(rates.values())) < 8


def test_the_average_of_what_does_not_change_is_that():
    average = AverageWeights(0.99)._kwargs["avg_fn"]
    value = torch.randn(1000)
    assert torch.equal(average(value, value.clone(), 7), value)
    assert torch.equal(average(torch.tensor(3), torch.tensor(5), 7), torch.tensor(5))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.ema_decay=0.9", "trainer.precision=64-true"], "keeps its average in float32"),
        (["loss.class_weights=[0,0]"], "are all 0"),
        (["objective=val/mIou"], "objective must be val/mIoU"),
        (["objective=val/mIoU", "dataset.val_split=null"], "objective needs validations"),
        (
            ["dataset=folder", "dataset.val_share=0.1", "dataset.train_split=all"],
            "val_share divides",
        ),
        (
            ["dataset=folder", "dataset.val_share=0.1", "dataset.val_split=null"],
            "val_share divides",
        ),
        (["dataset=folder", "dataset.fold=0", "dataset.images='{split}/a'"], "cannot have {split}"),
    ],
)
def test_what_contradicts_itself_is_refused(words, said):
    cfg = compose_config("train", words)
    with pytest.raises(ValueError, match=said):
        cfg.require_trainable()
    # A checkpoint that was trained so by an earlier version still predicts.
    assert restore(asdict(cfg)) == cfg


def test_frozen_norms_need_norms():
    model = tiny_model(backbone="convnext_atto", output_stride=32, freeze_norm=True)
    task = SegmentationTask(TrainConfig(model=model), CLASSES, PALETTE)
    with pytest.raises(ValueError, match="has no batch norm"):
        task.on_fit_start()


def test_colours_change_images_alone_and_by_the_seed():
    rng = np.random.default_rng(0)
    image, mask = (
        rng.integers(0, 256, (64, 64, 3), np.uint8),
        rng.integers(0, 5, (64, 64), np.uint8),
    )
    plain = DatasetConfig(crop_size=[32, 32])
    jitter = TrainTransform(replace(plain, color_jitter=0.4))
    (a, a_mask), (b, b_mask), (c, _) = (jitter(image, mask, seed) for seed in (1, 1, 2))
    without, same_mask = TrainTransform(plain)(image, mask, 1)
    assert (a == b).all() and (a_mask == b_mask).all() and (a_mask == same_mask).all()
    assert (a != without).any() and (a != c).any()


def test_an_epoch_may_be_shorter():
    sampler = KeyedBatchSampler(20, 2, 0, 0, 1, limit=3)
    seen = []
    for epoch in (0, 1):
        sampler.start(epoch, 0)
        seen.append([key[1] for batch in sampler for key in batch])
    assert len(sampler) == 3 and len(seen[0]) == len(seen[1]) == 6 and seen[0] != seen[1]


def test_a_training_stops_where_it_gets_no_better(tmp_path):
    words = [
        *TINY,
        *("dataset.scenes_train=20", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]"),
        *("trainer.limit_train_batches=1", "trainer.max_epochs=9", "trainer.patience=2"),
        *("optim.lr=1e-12", "optim.min_lr=0", "hydra.run.dir=run", "model.freeze_norm=true"),
    ]
    run("train", *words, cwd=tmp_path)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["status"] == "finished" and result["epochs"] < 9
    assert "Finished before" in run("train", *words, cwd=tmp_path)
    # A kill in the evaluation at the end leaves no result: the run does not train on.
    (tmp_path / "run/result.json").unlink()
    run("train", *words, cwd=tmp_path)
    again = json.loads((tmp_path / "run/result.json").read_text())
    assert again["epochs"] == result["epochs"]
    assert again["metrics"]["val/mIoU"] == result["metrics"]["val/mIoU"]


def test_the_recipe_is_composed_and_the_papers_stay_as_they_are():
    modern = compose_config("train", ["dataset=camvid", "recipe=modern"])
    assert modern.optim.optimizer == "adamw" and modern.dataset.color_jitter == 0.3
    paper = compose_config("train", ["dataset=cityscapes"])
    assert paper.optim == OptimConfig() and not paper.dataset.color_jitter
    with pytest.raises(ValueError, match="needs validations"):
        compose_config("train", ["dataset=camvid", "dataset.val_split=null", "trainer.patience=1"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "precision"),
    [
        (("recipe=modern", "optim.ema_decay=0"), 64),
        (("optim.ema_decay=0.9",), 32),  # Its average is float32.
        (("init_from=one", "model.freeze_norm=true"), 64),
    ],
)
def test_two_processes_train_as_one(words, precision, tmp_path):
    scenes = ["dataset.scenes_train=8", "dataset.scenes_val=3", "dataset.scenes_size=[64,96]"]
    run("train", *TINY, *scenes, "hydra.run.dir=one", cwd=tmp_path)
    ends = []
    for devices in (1, 2):
        options = (f"trainer.devices={devices}", f"trainer.precision={precision}-true", "seed=1")
        where = f"hydra.run.dir=run{devices}"
        run("train", *TINY, *scenes, *words, *options, where, cwd=tmp_path)
        ends.append(load_checkpoint(tmp_path / f"run{devices}/checkpoints/last.ckpt"))
    a, b = (end["state_dict"] for end in ends)
    close = {"rtol": 1e-6, "atol": 1e-9} if precision == 64 else {"rtol": 1e-3, "atol": 1e-5}
    assert all(torch.allclose(a[name], b[name], **close) for name in a)
