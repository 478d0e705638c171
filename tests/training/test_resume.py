"""Runs that are cut off, damaged or diverge, and what they leave behind."""

import os
import shutil
import signal
import subprocess
import sys
import warnings

import lightning as L
import pytest
import torch

from chaos import fingerprint
from conftest import ROOT, run
from cyclenet.config.schema import OptimConfig, TrainerConfig
from cyclenet.deploy.load import load
from cyclenet.models.stored import load_checkpoint, stored_config
from cyclenet.runs.folder import AlreadyFinishedError, RunFolder
from cyclenet.runs.results import RunResult, mark, read_result
from cyclenet.runs.train import evaluate_last, train
from cyclenet.training.callbacks import StopEarly
from cyclenet.training.checkpoint import AtomicCheckpointIO, load_newest
from cyclenet.training.keep import KeepBest, KeepLast
from cyclenet.training.loggers import build_loggers
from cyclenet.training.metrics_csv import MetricsCSV
from cyclenet.training.non_finite import StopAtNonFinite
from cyclenet.training.resumable_wandb import read_logged
from cyclenet.training.trainer import build_trainer, choose_precision
from made import fit, short_config


@pytest.mark.slow
def test_killed_trainings_come_to_the_same_end():
    """Four kills, one of them in a save and one in validation, and a damaged checkpoint (`make
    chaos` has all of them).
    """
    done = subprocess.run(
        [sys.executable, ROOT / "tests/chaos.py", "--short", "--seed", "0"],
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 0 and "4 kills, all runs equal to undisturbed ones: yes" in done.stdout
    ), done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps, of which each left a checkpoint but the last of an epoch, which leaves
    one after validation.
    """
    folder = tmp_path_factory.mktemp("run")
    fit(short_config(), folder)
    return folder


def resume_point(cfg, folder):
    with RunFolder(folder, cfg, []) as run:
        return run.checkpoint, run.step, run.precision


def test_another_configuration_is_refused_by_name(trained, tmp_path):
    cfg = short_config()
    cfg.trainer.num_workers, cfg.logger.every_n_steps = 3, 7  # They change nothing.
    assert resume_point(cfg, trained)[1] == 4
    cfg.seed, cfg.optim.lr = 3, 0.5
    message = (
        r"another optim.lr \(0.01 there, 0.5 here\), seed \(0 there, 3 here\): give force=true"
    )
    with pytest.raises(ValueError, match=message):
        resume_point(cfg, trained)
    # The result says so too.
    assert "force=true" in read_result(trained).error
    cfg.force = True
    assert resume_point(cfg, trained)[1] == 4
    # A checkpoint of another run is named on the command line: the name may differ, no more.
    cfg = short_config(name="other", ckpt_path=str(trained / "checkpoints/last.ckpt"))
    precision = choose_precision("auto", on_gpu=False)
    assert resume_point(cfg, tmp_path) == (cfg.ckpt_path, 4, precision)


def test_a_fresh_start_leaves_nothing_of_the_run_before(tmp_path):
    mark(tmp_path)
    written = ("checkpoints/best.ckpt", "evaluate/a/scores.json", "visualize/analysis.json")
    for name in (*written, "tensorboard/events.out.tfevents.1", "result.json", "metrics.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "visualize/analysis").mkdir()  # Figures of an image of that name.
    with RunFolder(tmp_path, short_config(resume="never"), []):
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        assert left - {"run.lock"} == {"config.yaml", ".cyclenet-run"}


def test_a_start_afresh_does_not_remove_what_it_begins_from(tmp_path):
    last = tmp_path / "checkpoints/last.ckpt"
    last.parent.mkdir()
    last.write_bytes(b"trained")
    (tmp_path / "config.yaml").touch()
    mark(tmp_path)
    RunResult("finished", evaluations={"whole": "evaluate/a"}).write(tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    for source, said in ((tmp_path, "would be removed"), (tmp_path / "typo", "no checkpoint")):
        cfg = short_config(resume="never", init_from=str(source))
        with pytest.raises(ValueError, match=said), RunFolder(tmp_path, cfg, []):
            pass
        assert last.read_bytes() == b"trained"
        assert (tmp_path / "result.json").read_bytes() == before
    # A run that has no result yet says why it failed.
    cfg = short_config(init_from=str(tmp_path / "typo"))
    with pytest.raises(ValueError, match="no checkpoint"), RunFolder(tmp_path / "new", cfg, []):
        pass
    assert read_result(tmp_path / "new").status == "failed"


def test_a_lock_of_another_user_is_no_missing_lock(tmp_path, monkeypatch):
    def refuse(path, seconds):
        raise error

    monkeypatch.setattr("cyclenet.runs.folder.lock", refuse)
    error = PermissionError(13, "Permission denied")
    for message in (
        "run.lock cannot be written",
        "run.lock is another user's, who may be training",
    ):
        with pytest.raises(ValueError, match=message), RunFolder(tmp_path, short_config(), []):
            pass
        assert not (tmp_path / "config.yaml").exists()
        (tmp_path / "run.lock").touch()
    # A run that has finished needs no lock.
    RunResult("finished").write(tmp_path)
    with pytest.raises(AlreadyFinishedError), RunFolder(tmp_path, short_config(), []):
        pass
    (tmp_path / "result.json").unlink()
    error = OSError(38, "Function not implemented")
    with RunFolder(tmp_path, short_config(), []):
        assert (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (ValueError("It is broken."), "failed", "It is broken."),
        (RuntimeError(), "failed", "RuntimeError"),
        (KeyboardInterrupt(), "interrupted", None),
        (SystemExit(143), "interrupted", None),
    ],
)
def test_the_result_says_how_a_run_ended(tmp_path, error, status, sentence):
    with pytest.raises(type(error)), RunFolder(tmp_path, short_config(), ["seed=1"]):
        raise error
    result = read_result(tmp_path)
    assert (result.status, result.error, result.overrides) == (status, sentence, ["seed=1"])


def test_a_checkpoint_knows_its_training_images(trained):
    state = load_checkpoint(trained / "checkpoints/last.ckpt")["SegmentationData"]
    known = (state["meaning"]["train_names"], state["root"])
    assert load(trained, device="cpu").train_images == known and all(known)


def test_a_checkpoint_outlives_the_presets_it_names(trained):
    checkpoint = load_checkpoint(trained / "checkpoints/last.ckpt")
    checkpoint["hyper_parameters"]["cfg"]["extra_protocols"] = ["mine"]
    assert stored_config(checkpoint).extra_protocols == ["mine"]


def test_devices_that_are_not_there_are_a_sentence(tmp_path):
    cfg = short_config()
    cfg.trainer.accelerator = "gpu"
    if not torch.cuda.is_available():
        with pytest.raises(
            ValueError,
            match=r"No supported gpu backend found! See trainer.accelerator and trainer.devices",
        ):
            build_trainer(cfg, tmp_path, 0)
    with pytest.raises(
        ValueError, match=r"trainer.devices must be a positive number or auto; got '0'"
    ):
        TrainerConfig(devices="0")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(trained, tmp_path):
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes((trained / "checkpoints" / name).read_bytes())
    assert load_newest(tmp_path)[1]["global_step"] == 4
    flip(tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match="Going back to the one before"):
        path, checkpoint = load_newest(tmp_path)
    assert path.name == "previous.ckpt" and checkpoint["global_step"] == 3
    flip(tmp_path / "previous.ckpt")
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match="start afresh with resume=never"),
    ):
        warnings.simplefilter("ignore")
        load_newest(tmp_path)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # One bit of a weight, which torch.load does not notice.
    path.write_bytes(data)


def test_the_best_score_is_known_where_the_folder_was_moved(trained, tmp_path):
    states = load_checkpoint(trained / "checkpoints/last.ckpt")["callbacks"]
    (state,) = (value for key, value in states.items() if key.startswith("KeepBest"))
    # Where another run's checkpoint is gone on from, there is none: the first score will be the
    # best.
    best = KeepBest(tmp_path)
    best.load_state_dict(state)
    assert best.best_model_score is None and not best.best_k_models
    (tmp_path / "best.ckpt").touch()
    best.load_state_dict(state)
    assert best.best_model_score == state["best_model_score"] and list(best.best_k_models) == [
        str(tmp_path / "best.ckpt")
    ]


def test_a_run_without_its_end_on_disk_is_not_finished(tmp_path):
    _, trainer = fit(short_config(), tmp_path)
    run = RunFolder(tmp_path, short_config(), [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.check_saved(trainer)
    # This stands for an epoch whose best.ckpt could not be written.
    trainer.checkpoint_callback.best_model_score += 0.5
    with pytest.warns(UserWarning, match="best.ckpt is not of the best epoch"):
        run.check_saved(trainer)
    (tmp_path / "checkpoints/previous.ckpt").replace(tmp_path / "checkpoints/last.ckpt")
    message = r"last.ckpt is not of the last step \(4\): free disk space"
    with pytest.raises(ValueError, match=message):
        run.check_saved(trainer)


def test_a_full_disk_at_the_start_loses_no_metrics(trained, tmp_path):
    text = (trained / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(text)
    (tmp_path / f".tmp{os.getpid()}-metrics.csv").symlink_to("/dev/full")
    with pytest.warns(UserWarning, match="No space left on device"):
        build_loggers(short_config(), tmp_path, 2, True)
    assert (tmp_path / "metrics.csv").read_text() == text


class Poison(L.Callback):
    """Make a weight infinite before a batch of step 3, with which the second epoch begins."""

    def __init__(self, batch):
        self.batch, self.names = batch, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 2 and batch_idx == self.batch:
            self.names = batch["name"]
            with torch.no_grad():
                module.net.classifier[1].weight[0, 0] = torch.inf


@pytest.fixture(params=["at once", "a step later"])
def look(request, monkeypatch):
    """Look at a step as it is done on a CPU, and as on a GPU."""
    late = request.param == "a step later"
    monkeypatch.setattr(StopAtNonFinite, "_can_defer", lambda *args: late)


class SaveAlways(L.Callback):
    """Save the state after each batch, as a signal or the clock may ask for."""

    def on_train_batch_end(self, trainer, *args):
        (keep,) = [each for each in trainer.callbacks if isinstance(each, KeepLast)]
        keep._save(trainer)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_loss_that_is_not_finite_stops_before_a_checkpoint(accumulated, look, tmp_path):
    # The batch whose loss is not finite is named, not the others of its step.
    poison, cfg = Poison(accumulated - 1), short_config()
    cfg.trainer.accumulate_grad_batches = accumulated
    cfg.dataset.scenes_train *= accumulated
    with pytest.raises(
        ValueError,
        match=r"The loss is nan at step 2; its samples .* give outputs that are not finite",
    ) as error:
        fit(cfg, tmp_path, callback=poison)
    assert all(name in str(error.value) for name in poison.names)
    checkpoint = load_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 2 and all(
        value.isfinite().all() for value in checkpoint["state_dict"].values()
    )
    dump = torch.load(tmp_path / "debug/step-2-rank0.pt", weights_only=True)
    assert (
        dump["names"] == poison.names
        and dump["image"].shape == (2, 3, 64, 64)
        and "net.mean" in dump["weights"]
    )


class OverflowOfOneSample(L.Callback):
    """Make one sample of step 2 infinite before the first layer."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 2:
            self.name, bad = batch["name"][1], batch["image"][1]

            def spoil(net, inputs):
                image = inputs[0].float()
                image[[torch.equal(each, bad) for each in inputs[0]]] = torch.inf
                return image

            module.net.register_forward_pre_hook(spoil)


def test_the_sample_whose_values_overflow_is_named_alone(look, tmp_path):
    """Batch norm has spread it to the running statistics of the whole network."""
    broken = OverflowOfOneSample()
    with pytest.raises(ValueError, match="its samples") as error:
        fit(short_config(), tmp_path, callback=broken)
    assert f"its samples {broken.name} give outputs" in str(error.value)


class SignalAtTheEnd(L.Callback):
    """Send SIGTERM between the last save of a training and its end."""

    def on_train_end(self, trainer, module):
        os.kill(os.getpid(), signal.SIGTERM)


class SignalAfter(L.Callback):
    """Send SIGTERM after an optimizer step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("step", "max_steps"), [(2, -1), (3, 3)])
def test_a_signal_in_a_last_step_loses_nothing_where_no_validation_follows(
    step, max_steps, tmp_path
):
    """The second step is an epoch's last; the third is that of max_steps."""
    cfg = short_config(optim=OptimConfig(lr=0.05, ema_decay=0.9))
    cfg.trainer.val_every_epochs, cfg.trainer.max_steps = 2, max_steps
    cfg.trainer.checkpoint_every_steps = 0
    with pytest.raises(SystemExit):
        fit(cfg, tmp_path / "stopped", callback=SignalAfter(step))
    assert load_checkpoint(tmp_path / "stopped/checkpoints/last.ckpt")["global_step"] == step
    for name in ("stopped", "whole"):
        train(cfg, tmp_path / name, [])
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "whole")


def test_patience_may_change_where_a_run_continues(tmp_path):
    before = StopEarly(5)
    before.wait_count = 2
    after = StopEarly(3)
    after.load_state_dict(before.state_dict())
    assert (after.patience, after.wait_count) == (3, 2)


def test_a_signal_that_comes_twice_at_once_is_one(tmp_path):
    """A cgroup gets it whole, and a sweep passes it on."""
    keep = KeepLast(tmp_path, 0, 0)
    keep._on_signal(signal.SIGTERM, None)
    keep._on_signal(signal.SIGTERM, None)
    assert keep.signal == signal.SIGTERM
    keep.signalled_at -= 2
    with pytest.raises(SystemExit):
        keep._on_signal(signal.SIGTERM, None)


def test_a_signal_after_the_last_save_is_not_forgotten(tmp_path):
    with pytest.raises(SystemExit) as stop:
        fit(short_config(), tmp_path, callback=SignalAtTheEnd())
    assert stop.value.code == 128 + signal.SIGTERM


def test_a_run_that_was_killed_in_its_evaluation_ends_as_an_undisturbed_one(tmp_path):
    """It trains no more: the weights' average and the last losses come from the checkpoint."""
    cfg = short_config(optim=OptimConfig(lr=0.05, ema_decay=0.9))
    cfg.trainer.max_steps = 3  # It ends an epoch early, so that it is validated after the training.
    train(cfg, tmp_path, [])
    first, scores = read_result(tmp_path), sorted(tmp_path.glob("evaluate/*/scores.json"))
    texts = [path.read_text() for path in scores]
    assert "train/loss" in first.metrics
    (tmp_path / "result.json").unlink()
    scores[0].unlink()
    train(cfg, tmp_path, [])
    assert read_result(tmp_path).metrics == first.metrics
    assert [path.read_text() for path in scores] == texts


def test_a_run_in_float64_is_scored_in_float32_whenever_that_is(tmp_path, monkeypatch):
    cfg, seen = short_config(), []
    cfg.trainer.precision = "64-true"

    def evaluate(model, *args):
        seen.append(next(model.net.parameters()).dtype)
        return evaluate_last(model, *args)

    monkeypatch.setattr("cyclenet.runs.train.evaluate_last", evaluate)
    train(cfg, tmp_path, [])
    (path,) = tmp_path.glob("evaluate/*/scores.json")
    path.unlink()
    train(cfg, tmp_path, [])
    assert seen == [torch.float32, torch.float32]


def test_a_full_disk_keeps_the_old_checkpoint_and_warns(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    # The file that is written first is the device on which every write fails.
    import os

    (tmp_path / f".tmp{os.getpid()}-last.ckpt").symlink_to("/dev/full")
    with pytest.warns(
        UserWarning,
        match=r"last.ckpt could not be written .*Training continues; the one before stays",
    ):
        io.save_checkpoint({"state_dict": {"w": torch.zeros(1_000_000)}}, path)
    assert torch.load(path, weights_only=True)["state_dict"]["w"].sum() == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_metrics_wait_for_a_full_disk(tmp_path):
    path = tmp_path / "metrics.csv"
    log = MetricsCSV(path, 0)
    log.log_metrics({"train/loss": 1.5}, 0)
    log.flush()
    part = tmp_path / f".tmp{os.getpid()}-metrics.csv"
    part.symlink_to("/dev/full")
    log.log_metrics({"train/loss": 2.5, "lr": 1.0}, 1)
    with pytest.warns(UserWarning, match="No space left on device"):
        log.flush()
    assert path.read_text().split() == ["step,train/loss", "0,1.5"]
    log.flush()
    assert path.read_text().split() == ["lr,step,train/loss", ",0,1.5", "1.0,1,2.5"]
    assert MetricsCSV(path, 1).rows == [
        {"step": "0", "train/loss": "1.5"}
    ]  # What a checkpoint of step 1 has seen.


def test_a_run_folder_belongs_to_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr("cyclenet.runs.folder.LOCK_SECONDS", 0.3)
    with RunFolder(tmp_path, short_config(), []):
        second = RunFolder(tmp_path, short_config(), [])
        with pytest.raises(ValueError, match="is being trained by another process"):
            second.__enter__()
        # It has not touched the result of the first, which is not there yet.
        assert not (tmp_path / "result.json").exists()
    with RunFolder(tmp_path, short_config(), []):
        pass


def test_wandb_goes_on_with_each_row_once(tmp_path):
    words = [
        "dataset.scenes_train=8",
        "dataset.scenes_val=1",
        "dataset.scenes_size=[64,96]",
        "model.backbone=resnet10t",
    ]
    words += [
        "model.backbone_weights=none",
        "dataset.crop_size=[64,64]",
        "dataset.batch_size=2",
        "trainer=cpu",
    ]
    words += [
        "model.context=none",
        "model.decoder=none",
        "trainer.num_workers=0",
        "trainer.max_epochs=2",
    ]
    words += ["logger.wandb=offline", "logger.every_n_steps=1", "trainer.checkpoint_every_steps=3"]
    run("train", *words, cwd=tmp_path, WANDB_SILENT="true")
    (folder,) = tmp_path.glob("runs/*/*")
    (first,) = folder.glob("wandb/offline-run-*/*.wandb")
    whole = read_logged(first)
    assert {(step, "train/loss") for step in range(8)} <= whole and (7, "val/mIoU") in whole
    # As a kill leaves it: the end of wandb's file is lost, and there is no result.
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    kept = read_logged(first)
    assert 0 < len(kept) < len(whole)
    (folder / "result.json").unlink()
    run("train", *words, cwd=tmp_path, WANDB_SILENT="true")
    (second,) = set(folder.glob("wandb/offline-run-*/*.wandb")) - {first}
    assert first.name == second.name  # The run id.
    rows = {
        (step, key)
        for step, key in read_logged(second)
        if key.startswith(("train/", "val/")) and step >= 0
    }
    scalars = {
        (step, key)
        for step, key in whole
        if (key.startswith(("train/", "val/")) and "val/p" not in key) or "pixel" in key
    }
    assert {(s, k) for s, k in rows | kept if (s, k) in scalars} == scalars and not {
        r for r in rows & kept if r in scalars
    }


class BreakGradient(SaveAlways):
    """Make a gradient infinite after the backward pass of a step, and save after each batch."""

    def __init__(self, step):
        self.step, self.before = step, {}

    def on_after_backward(self, trainer, module):
        if trainer.global_step == self.step:
            self.module = module
            self.before = {name: value.clone() for name, value in module.named_parameters()}
            module.net.classifier[1].weight.grad[0, 0] = float("inf")


# The steps are the last of an epoch, the first of one, and the last of all.
@pytest.mark.parametrize(("optimizer", "step"), [("sgd", 1), ("sgd", 2), ("sgd", 3), ("adamw", 2)])
def test_a_gradient_that_is_not_finite_stops_before_the_weights(optimizer, step, look, tmp_path):
    message = r"The gradient of net.classifier.1.weight \(1 of \d+ weights\) is not finite at step "
    cfg, broken = short_config(), BreakGradient(step)
    cfg.optim.optimizer = optimizer
    with pytest.raises(ValueError, match=message + str(step)):
        fit(cfg, tmp_path, callback=broken)
    checkpoint = load_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert checkpoint["global_step"] == step
    for name, value in broken.module.named_parameters():
        assert torch.equal(value, broken.before[name])
        assert torch.equal(value, checkpoint["state_dict"][name])


def test_a_look_a_step_later_changes_no_weight(tmp_path, monkeypatch):
    monkeypatch.setattr(StopAtNonFinite, "_can_defer", lambda *args: False)
    at_once, _ = fit(short_config(), tmp_path / "at_once")
    monkeypatch.setattr(StopAtNonFinite, "_can_defer", lambda *args: True)
    later, _ = fit(short_config(), tmp_path / "later")
    for one, two in zip(at_once.parameters(), later.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_best_checkpoint_of_the_end_holds_the_trained_weights_too(tmp_path):
    """The network holds their average by then."""
    cfg = short_config()
    cfg.optim.ema_decay, cfg.trainer.max_steps = 0.9, 3
    cfg.trainer.val_every_epochs = 9
    train(cfg, tmp_path, [])
    paths = (tmp_path / f"checkpoints/{name}.ckpt" for name in ("last", "best"))
    last, best = map(load_checkpoint, paths)
    assert best["global_step"] == 3
    for key in ("current_model_state", "state_dict"):
        assert all(torch.equal(value, last[key][name]) for name, value in best[key].items())
    assert any(
        not torch.equal(value, best["current_model_state"][name])
        for name, value in best["state_dict"].items()
    )


def test_an_equal_score_is_no_better_one(tmp_path):
    score = 0.024709285166164927  # In float32 it is a little less.
    keep = KeepBest(tmp_path)
    keep.best_model_score = torch.tensor(score)
    assert keep.best_model_score.item() < score
    keep.consider(None, score)


def test_a_finished_training_has_nothing_left_for_another_folder(trained, tmp_path):
    cfg = short_config(name="other", ckpt_path=str(trained / "checkpoints/last.ckpt"))
    with pytest.raises(ValueError, match=r"is at the end of its training \(step 4\)"):
        train(cfg, tmp_path, [])


@pytest.mark.parametrize(
    ("max_steps", "val_every_epochs", "precision"),
    [(-1, 2, "32-true"), (5, 1, "64-true"), (5, 2, "32-true")],
)
def test_every_checkpoint_continues_to_the_same_end(
    max_steps, val_every_epochs, precision, tmp_path, monkeypatch
):
    """Three epochs of three batches in two steps; max_steps ends within the third."""
    cfg, whole = short_config(), tmp_path / "whole"
    cfg.dataset.scenes_train, cfg.trainer.max_epochs = 6, 3
    cfg.trainer.accumulate_grad_batches = 2
    cfg.trainer.max_steps, cfg.trainer.val_every_epochs = max_steps, val_every_epochs
    cfg.trainer.precision = precision

    def save_and_copy(keep, trainer):
        save(keep, trainer)
        copies.append(shutil.copytree(whole, tmp_path / f"copy {len(copies)}"))

    save, copies = KeepLast._save, []
    with monkeypatch.context() as patch:
        patch.setattr(KeepLast, "_save", save_and_copy)
        train(cfg, whole, [])
    assert len(copies) == (6 if max_steps == -1 else 5)
    # Published runs have their last row at the number of steps where max_steps ended them.
    assert (
        (whole / "metrics.csv")
        .read_text()
        .splitlines()[-1]
        .startswith("2,5," if max_steps == -1 else "3,5,")
    )
    for folder in copies:
        train(cfg, folder, [])
        assert fingerprint(folder) == fingerprint(whole), folder
