"""What several tests make: runs without a training, models without a training, short trainings."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import lightning as L
import numpy as np
import torch
from omegaconf import OmegaConf

from conftest import tiny_model
from cyclenet.config.commands import EvaluateConfig
from cyclenet.config.load import compose_config
from cyclenet.config.model import ModelConfig
from cyclenet.config.restore import load_protocol
from cyclenet.config.schema import DatasetConfig, LoggerConfig, TrainConfig, TrainerConfig
from cyclenet.data.open import open_split
from cyclenet.deploy.model import Model
from cyclenet.models.cyclenet import CycleNet, build_model
from cyclenet.models.layers import ZeroConv2d
from cyclenet.models.stored import load_checkpoint
from cyclenet.runs.evaluate import summarise, write
from cyclenet.runs.results import RunResult
from cyclenet.runs.train import open_data, use_features
from cyclenet.training.checkpoint import AtomicCheckpointIO
from cyclenet.training.task import SegmentationTask
from cyclenet.training.trainer import build_trainer

RUN_CLASSES = ["sky", "road", "pole"]
CLASSES = ["road", "car", "building", "tree"]
PALETTE = [[128, 64, 128], [0, 0, 142], [70, 130, 180], [107, 142, 35]]


def counts_of(rng, accuracy, images=40):
    """Counts of noisy predictions: right with a probability, else of any class."""
    confusion, pixels = np.zeros((3, 3), int), []
    for index in range(images):
        image_rng = np.random.default_rng(index)
        truth = image_rng.integers(0, 3, 200)
        right = rng.random(200) < accuracy - 0.2 * image_rng.random()
        prediction = np.where(right, truth, rng.integers(0, 3, 200))
        own = np.zeros((3, 3), int)
        np.add.at(own, (truth, prediction), 1)
        confusion += own
        pixels.append(np.stack([own.diagonal(), own.sum(1), own.sum(0)], 1))
    pixels = np.array(pixels, np.int32)
    trimap = np.repeat(pixels[:, None], 9, 1)
    names = np.array([f"image {i}" for i in range(images)])
    counts = {"confusion": confusion, "pixels": pixels, "boundary": pixels.copy()}
    return counts | {"trimap": trimap, "names": names}


def make_run(
    root: Path,
    cfg: TrainConfig,
    accuracy: float = 0.7,
    protocols=("whole",),
    number: int = 0,
    status="finished",
) -> Path:
    """Make a run folder as training leaves it, with no training."""
    folder = root / f"run{number}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(cfg))))
    result = RunResult(status, seconds=90.0, train_seconds=60.0, finished_at=1000.0 + number)
    if status == "finished":
        result.protocol = cfg.protocol.describe()
        result.cpu_seconds, result.threads = 300.0, 1
        for name in protocols:
            counts = counts_of(np.random.default_rng([number, cfg.seed]), accuracy)
            if cfg.dataset.fold is not None:
                names = [f"fold {cfg.dataset.fold}, {name}" for name in counts["names"]]
                counts["names"] = np.array(names)
            options = EvaluateConfig("checkpoints/last.ckpt", cfg.dataset, load_protocol(name))
            scores = summarise(counts, RUN_CLASSES, options)
            where = folder / "evaluate" / f"last-{cfg.dataset.name}-val-{name}-0"
            # Their pictures, which take longest, are looked at by no test of reports.
            with (
                mock.patch("cyclenet.runs.evaluate.confusion_chart"),
                mock.patch("cyclenet.runs.evaluate.trimap_chart"),
            ):
                write(where, counts, scores)
            result.evaluations[scores.protocol] = where.relative_to(folder).as_posix()
    else:
        result.error = "bad.png is not a readable image"
    result.write(folder)
    rows = [
        f"{epoch},{10 * epoch + 9},{0.2 * epoch + 0.1},\n{epoch},{10 * epoch + 5},,{2 - epoch}\n"
        for epoch in range(2)
    ]
    (folder / "metrics.csv").write_text("epoch,step,val/mIoU,train/loss\n" + "".join(rows))
    return folder


def edit_json(path: Path, **changes) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def run_config(seed=0, lr=0.01, **model) -> TrainConfig:
    """A configuration of a made run."""
    cfg = TrainConfig(seed=seed)
    return replace(cfg, model=replace(cfg.model, **model), optim=replace(cfg.optim, lr=lr))


def task_of(seed=0, **changes) -> SegmentationTask:
    """A tiny model as after a training: no parameter is zero."""
    torch.manual_seed(seed)
    task = SegmentationTask(TrainConfig(model=tiny_model(**changes)), CLASSES, PALETTE)
    for module in task.net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    if task.net.decoder.aligns:
        torch.nn.init.normal_(task.net.decoder.offset_conv[-1].weight, std=0.05)
    last = [m for m in task.net.classifier.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    torch.nn.init.normal_(last.weight, std=0.5)
    return task.eval()


def model_of(task: SegmentationTask) -> Model:
    """The network of a task, as `cyclenet.load` gives it."""
    return Model(task.net.eval(), task.cfg, task.classes, task.palette)


def scenes_task(**changes) -> SegmentationTask:
    """A tiny model with scenes' classes, and the configuration of a data set without files."""
    dataset = DatasetConfig(scenes_val=3, scenes_size=[64, 128])
    source = open_split(dataset, "val")
    cfg = TrainConfig(model=task_of(**changes).cfg.model, dataset=dataset)
    return SegmentationTask(cfg, source.classes, source.palette.tolist())


def save_checkpoint(task: SegmentationTask, path: Path) -> Path:
    """Save a model as a training would."""
    hyper = {key: task.hparams[key] for key in ("cfg", "classes", "palette")}
    values = {"state_dict": task.state_dict(), "hyper_parameters": hyper, "global_step": 0}
    AtomicCheckpointIO().save_checkpoint(values, path)
    return path


def short_trainer(**changes) -> TrainerConfig:
    """Options of a training on one CPU without a progress bar."""
    return TrainerConfig(
        accelerator="cpu", devices="1", num_workers=0, progress_bar=False, **changes
    )


def short_config(**changes) -> TrainConfig:
    """A configuration of two short epochs on drawn scenes."""
    values = {
        "model": tiny_model(),
        "dataset": DatasetConfig(
            scenes_train=4, scenes_val=2, scenes_size=[64, 128], crop_size=[64, 64], batch_size=2
        ),
        "trainer": short_trainer(max_epochs=2, checkpoint_every_steps=1),
        "logger": LoggerConfig(wandb="disabled", every_n_steps=1),
    }
    return TrainConfig(**(values | changes))


def fit(cfg, folder, checkpoint=None, callback=None):
    """Train as `cyclenet.runs.train` does, without a run folder around it."""
    L.seed_everything(cfg.seed, verbose=False)
    step = load_checkpoint(checkpoint)["global_step"] if checkpoint else 0
    trainer = build_trainer(cfg, folder, step)
    if callback:
        trainer.callbacks.insert(0, callback)  # It comes before ours: an error may come any time.
    data = open_data(cfg, trainer)
    task = SegmentationTask(cfg, data.train_source.classes, data.train_source.palette.tolist())
    use_features(task, data, trainer.strategy.root_device)
    trainer.fit(task, data, ckpt_path=checkpoint)
    return task, trainer


def small_arm(arm: str) -> ModelConfig:
    """The model of ``arm=...`` on a small random backbone, in small widths."""
    cfg = compose_config("train", [f"arm={arm}"]).model
    depth = {"backbone": "resnet14t", "strip_pooling": cfg.strip_pooling}
    widths = {"head_channels": 16, "reduce_channels": 16, "atrous_rates": [1, 2]}
    wants = {"backbone_weights": "none", "multi_grid": [], "growth_channels": 8}
    return replace(cfg, **depth, **widths, **wants)


def awake(cfg: ModelConfig, classes: int) -> CycleNet:
    """A network for crops of 64 x 64, without the zeros that some branches start from."""
    torch.manual_seed(0)
    net = build_model(cfg, classes, (64, 64))
    for key, parameter in net.named_parameters():
        # timm's residual branches start at 0, too.
        if "gamma" in key or key.endswith("bn3.weight"):
            parameter.data.fill_(0.7)
    for module in net.modules():
        if isinstance(module, ZeroConv2d):
            torch.nn.init.normal_(module.weight, std=0.01)
    return net
