import json

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from conftest import tiny_model
from cyclenet.config.schema import LossConfig, OptimConfig, ProtocolConfig
from cyclenet.deploy.load import load
from cyclenet.models.cyclenet import build_model
from cyclenet.models.stored import load_checkpoint
from cyclenet.scoring.inference import predict, without_tf32
from cyclenet.scoring.metrics import ConfusionMatrix, scores
from cyclenet.training.checkpoint import AtomicCheckpointIO
from cyclenet.training.losses import SegmentationLoss
from cyclenet.training.non_finite import StopAtNonFinite
from cyclenet.training.optim import build_optimizer, parameter_groups, schedule
from cyclenet.training.task import SegmentationTask
from cyclenet.training.trainer import choose_precision
from made import fit, model_of, short_config, short_trainer, task_of


class StopAt(L.Callback):
    """A power cut after some steps."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step:
            raise RuntimeError("power cut")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(tmp_path, step):
    cfg = short_config()
    whole, _ = fit(cfg, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        fit(cfg, tmp_path / "cut", callback=StopAt(step))
    resumed, trainer = fit(cfg, tmp_path / "cut", str(tmp_path / "cut/checkpoints/last.ckpt"))
    assert trainer.global_step == 4
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert (tmp_path / "whole/metrics.csv").read_text() == (
        tmp_path / "cut/metrics.csv"
    ).read_text()


def test_force_trains_by_the_new_configuration(tmp_path):
    """Not by the rates, momentum and weight decay that come with the checkpoint."""
    fit(short_config(), tmp_path)
    cfg = short_config(
        trainer=short_trainer(max_epochs=3),
        optim=OptimConfig(lr=0.5, momentum=0.5, weight_decay=0.0),
    )
    _, trainer = fit(cfg, tmp_path, str(tmp_path / "checkpoints/last.ckpt"))
    (group,) = trainer.optimizers[0].param_groups
    assert (group["initial_lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.5, 0.0)
    last = (tmp_path / "metrics.csv").read_text().splitlines()
    column = last[0].split(",").index("train/lr")
    rates = [float(row.split(",")[column]) for row in last[1:] if row.split(",")[column]]
    assert rates[-2:] == pytest.approx([0.5 * schedule(step, 6, cfg.optim) for step in (4, 5)])


def test_predictions_are_in_float32_without_tf32():
    cfg = short_config()
    task = SegmentationTask(cfg, [f"c{i}" for i in range(19)], [[0, 0, 0]] * 19).eval()
    seen = []
    task.net.forward = lambda x, forward=task.net.forward: (
        seen.append(torch.backends.cudnn.allow_tf32),
        forward(x),
    )[1]
    before = torch.backends.cudnn.allow_tf32
    model_of(task).labels(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert before and seen == [False] and torch.backends.cudnn.allow_tf32


def test_a_validation_is_in_float32_whatever_the_training_is():
    """A low precision gives other labels here, so this can tell."""
    task = task_of(decoder="adc")
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    batch = {"image": image, "mask": torch.zeros(1, 64, 64, dtype=torch.uint8)}
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        low = task.net(image)[0].float()
        found = task.validation_step(batch, 0)
    with torch.inference_mode():
        exact = task.net(image)[0]
    assert not torch.equal(low, exact)
    assert torch.equal(found, model_of(task).labels(image))


def test_threads_that_predict_at_once_leave_tf32_as_it_was():
    """Whoever enters last may leave first."""
    first, second = without_tf32(), without_tf32()
    before = torch.backends.cudnn.allow_tf32
    first.__enter__(), second.__enter__(), first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_end_of_a_training_within_an_epoch_competes_for_the_best(tmp_path):
    _, trainer = fit(short_config(), tmp_path)
    best, path = trainer.checkpoint_callback, tmp_path / "checkpoints/best.ckpt"
    score, before = best.best_model_score.item(), path.read_bytes()
    best.consider(trainer, score)
    assert path.read_bytes() == before  # No better.
    best.consider(trainer, score + 0.25)
    assert path.read_bytes() != before and best.best_model_score == pytest.approx(score + 0.25)


def test_a_checkpoint_is_plain_and_rebuilds_the_model_by_itself(tmp_path):
    task, _ = fit(short_config(), tmp_path)
    path = tmp_path / "checkpoints/last.ckpt"
    raw = torch.load(path, weights_only=True)
    json.dumps(raw["hyper_parameters"])
    for other in tmp_path.glob("*.yaml"):
        other.unlink()
    again = load(path, device="cpu")
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(again.net(image)[0], task.eval().net(image)[0])
    assert again.classes == task.classes and not again.net.training


def test_a_damaged_checkpoint_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "half.ckpt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match="not a whole checkpoint of this project"):
        load_checkpoint(tmp_path / "half.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="not a whole checkpoint of this project"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"state_dict": {}, "a": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({"state_dict": {}, "a": lambda: 1}, path)
    with pytest.raises(ValueError, match=r"w is not finite at step 7: training has diverged"):
        io.save_checkpoint(
            {"state_dict": {"w": torch.tensor([1, torch.nan])}, "global_step": 7}, path
        )
    assert torch.load(path, weights_only=True) == {"state_dict": {}, "a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_validation_is_counted_at_the_masks_size(tmp_path):
    task, trainer = fit(short_config(trainer=short_trainer(max_epochs=1)), tmp_path)
    total = sum((trainer.datamodule.val_source.mask(i) != 255).sum() for i in range(2))
    task.confusion.reset()
    for batch in trainer.datamodule.val_dataloader():
        task.validation_step(batch, 0)
    assert task.confusion.compute().sum() == total
    logged = trainer.callback_metrics
    assert abs(logged["val/mIoU"].item() - task.val_scores.mIoU) < 1e-6
    assert "val/IoU/road" in logged and "train/offset_max" in logged
    assert (tmp_path / "validation.png").exists()


def test_poly_is_the_papers():
    cfg = OptimConfig(lr=0.01)
    assert schedule(0, 100, cfg) == 1 and schedule(100, 100, cfg) == 0
    assert schedule(25, 100, cfg) == 0.75**0.9
    warm = OptimConfig(lr=0.01, warmup_steps=9, min_lr=1e-4)
    assert schedule(0, 100, warm) == 0.1 and abs(schedule(100, 100, warm) - 0.01) < 1e-12


def test_parameter_groups():
    net = SegmentationTask(short_config(), ["a", "b"], [[0, 0, 0]] * 2).net
    assert len(parameter_groups(net, OptimConfig())) == 1
    groups = parameter_groups(net, OptimConfig(lr=0.1, head_lr_scale=10, decay_norm_and_bias=False))
    assert sorted((g["lr"], g["weight_decay"]) for g in groups) == [
        (0.1, 0.0),
        (0.1, 1e-4),
        (1.0, 0.0),
        (1.0, 1e-4),
    ]
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))
    assert all((p.ndim > 1) == (g["weight_decay"] > 0) for g in groups for p in g["params"])


@pytest.mark.parametrize(
    ("has", "chosen"),
    [("avx512_bf16", "bf16-mixed"), ("amx_bf16", "bf16-mixed"), ("avx2", "32-true")],
)
def test_precision_on_cpu_is_bfloat16_where_the_cpu_has_it(has, chosen, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {has: True}, raising=False)
    assert choose_precision("auto", on_gpu=False) == chosen
    assert choose_precision("64-true", on_gpu=False) == "64-true"
    # What a run began with stays, on whatever machine it goes on.
    assert (
        choose_precision("auto", False, "32-true") == "32-true"
        and choose_precision("auto", False, "bf16-mixed") == "bf16-mixed"
    )
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision("auto", on_gpu=False) == "32-true"


def test_ignored_crops_and_options_train(tmp_path):
    """All-ignored batches, OHEM, clipping, accumulation and bf16 at once: finite weights."""
    cfg = short_config()
    cfg.loss.ohem_threshold, cfg.loss.ohem_min_kept = 0.7, 100
    cfg.trainer.gradient_clip_norm, cfg.trainer.accumulate_grad_batches, cfg.trainer.precision = (
        1.0,
        2,
        "bf16-mixed",
    )
    task, _ = fit(cfg, tmp_path)
    assert all(p.isfinite().all() for p in task.parameters())
    batch = {
        "image": torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        "mask": torch.full((2, 64, 64), 255, dtype=torch.uint8),
    }
    task.train()
    task.log = lambda *args, **kwargs: None
    assert task.training_step(batch, 0) == 0


def test_four_images_are_learnt_by_heart():
    """100 steps on 4 images of noisy blobs reach more than 95 % mIoU on them."""
    generator = torch.Generator().manual_seed(0)
    mask = (
        F.interpolate(torch.randn(4, 5, 3, 3, generator=generator), (64, 64), mode="bicubic")
        .argmax(1)
        .byte()
    )
    colors = torch.randint(40, 216, (5, 3), generator=generator)
    noise = 50 * torch.randn(4, 3, 64, 64, generator=generator)
    image = (colors[mask.long()].permute(0, 3, 1, 2) + noise).clamp(0, 255).byte()
    torch.manual_seed(0)
    widths = {
        "head_channels": 32,
        "growth_channels": 16,
        "bottleneck_channels": 32,
        "reduce_channels": 32,
    }
    net = build_model(tiny_model(dropout=0.0, **widths), 5).train()
    loss = SegmentationLoss(LossConfig(), 5, net.grid)
    cfg = OptimConfig(lr=0.05, warmup_steps=10)
    optimizer = torch.optim.SGD(parameter_groups(net, cfg), momentum=cfg.momentum)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, 100, cfg))
    for _ in range(100):
        logits, extras = net(image)
        optimizer.zero_grad()
        (loss(logits, mask) + 0.4 * loss(extras["aux"], mask)).backward()
        optimizer.step()
        scheduler.step()
    confusion = ConfusionMatrix(5)
    labels = predict(lambda view: net.eval()(view)[0], image, ProtocolConfig(), net.grid)
    confusion.update(labels, mask)
    assert scores(confusion.compute(), list("abcde")).mIoU > 0.95


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_a_first_step_that_is_left_out_leaves_no_momentum(momentum):
    """A gradient scaler leaves out the steps whose gradients overflow, the first ones mostly."""
    weight = torch.nn.Parameter(torch.ones(1000))
    net = torch.nn.ParameterList([weight])
    cfg = OptimConfig(lr=0.1, momentum=momentum, weight_decay=0.0)
    optimizer = build_optimizer(net, cfg, fused=True)
    for mark in (1.0, 0.0):
        weight.grad = torch.full((1000,), 2.0)
        optimizer.found_inf = torch.tensor(mark)
        optimizer.step()
    assert torch.equal(weight.detach(), torch.full((1000,), 1 - 0.1 * 2.0))


class CountReads(L.Callback):
    """Count the values that the host reads of tensors between two logged steps."""

    def __init__(self, monkeypatch):
        self.reads, self.inside = 0, False
        read = torch.Tensor.item

        def item(tensor):
            self.reads += self.inside
            return read(tensor)

        monkeypatch.setattr(torch.Tensor, "item", item)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.inside = trainer.global_step > 0

    def on_train_epoch_end(self, trainer, module):
        self.inside = False


def test_no_value_is_read_between_logged_steps(tmp_path, monkeypatch):
    """Each would make the host wait for a GPU."""
    cfg = short_config()
    cfg.dataset.scenes_train, cfg.dataset.val_split = 8, None
    cfg.trainer.max_epochs, cfg.trainer.checkpoint_every_steps = 1, 0
    cfg.logger.every_n_steps = 100
    counted = CountReads(monkeypatch)
    monkeypatch.setattr(StopAtNonFinite, "_can_defer", lambda *args: True)
    fit(cfg, tmp_path, callback=counted)
    assert counted.reads == 0


def test_processor_time_of_an_earlier_training_does_not_count(monkeypatch):
    spent = 100.0
    monkeypatch.setattr("cyclenet.training.task._cpu_seconds", lambda: spent)
    task = task_of()
    spent = 103.0
    assert task.cpu_seconds == 3.0
