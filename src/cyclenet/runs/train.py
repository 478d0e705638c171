"""Train one configuration in a run folder, from data to evaluations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch

from cyclenet.config.commands import EvaluateConfig
from cyclenet.config.reach import untrained_taps
from cyclenet.config.schema import ProtocolConfig, TrainConfig
from cyclenet.config.unread import describe_unread
from cyclenet.data.datamodule import SegmentationData
from cyclenet.data.meaning import LOOKED_AT
from cyclenet.data.open import count_shared
from cyclenet.data.views import AS_IT_IS, Views
from cyclenet.deploy.load import load
from cyclenet.deploy.model import Model
from cyclenet.models.resize import Grid
from cyclenet.models.stored import load_checkpoint, stored_weights
from cyclenet.runs.evaluate import evaluate
from cyclenet.runs.features import open_features, write_features
from cyclenet.runs.folder import AlreadyFinishedError, RunFolder
from cyclenet.runs.results import (
    announce_finished,
    check_finished,
    describe_move,
    missing_protocols,
    read_result,
    wanted_protocols,
)
from cyclenet.scoring.results import EvaluationResult, boundary_line, score_table
from cyclenet.seeding import spread
from cyclenet.training.initial import begin_from, fit_to_masks
from cyclenet.training.keep import LAST, KeepBest
from cyclenet.training.resumable_wandb import ResumableWandb
from cyclenet.training.task import SegmentationTask
from cyclenet.training.trainer import build_trainer, is_first_process, silence_lightning


def train(cfg: TrainConfig, folder: Path, overrides: list[str]) -> None:
    """Train, validate and evaluate in ``folder``; a finished run gets only what is missing.

    Args:
        cfg: the whole configuration.
        folder: the run folder; ``result.json`` is its very last file.
        overrides: words of the command line, which the result keeps.

    Raises:
        ValueError: the user can mend what is wrong; the message is one sentence.
    """
    silence_lightning()
    cfg.require_trainable()
    try:
        train_in(RunFolder(folder, cfg, overrides))
    except AlreadyFinishedError:
        complete(cfg, folder)


def train_in(run_folder: RunFolder) -> None:
    """Train, validate and evaluate in a run folder."""
    with run_folder as run, tell_of_memory(run_folder.cfg):
        cfg = run.cfg
        L.seed_everything(cfg.seed, verbose=False)
        trainer = build_trainer(cfg, run.path, run.step, run.precision)
        data = open_data(cfg, trainer)
        data.check_same(run.data_state)  # Before features are written; Lightning asks again.
        source = data.train_source
        task = SegmentationTask(cfg, source.classes, source.palette.tolist())
        if cfg.model.compile:
            task.net.compile()
        announce(run, trainer, data)
        if not run.checkpoint:
            begin(task, data, trainer)
        elif cfg.dataset.cache_features:  # Features are those of the run's backbone.
            task.net.load_state_dict(stored_weights(load_checkpoint(run.checkpoint)))
        use_features(task, data, trainer.strategy.root_device)
        trainer.fit(task, data, ckpt_path=run.checkpoint)
        validate_the_end(trainer, task, data)
        run.check_saved(trainer)
        evaluations = evaluate_training(task, trainer, run)
        run.finish(trainer, task, evaluations)


@contextmanager
def tell_of_memory(cfg: TrainConfig) -> Iterator[None]:
    """Raise `ValueError` with the keys to lower where a GPU's memory is too small."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        height, width = cfg.dataset.crop_size
        raise ValueError(
            f"The GPU's memory is too small for {cfg.dataset.batch_size} crops of {height} x "
            f"{width}: lower dataset.batch_size (trainer.accumulate_grad_batches makes up for it) "
            "or dataset.crop_size, or set model.recompute=true."
        ) from error


def open_data(cfg: TrainConfig, trainer: L.Trainer) -> SegmentationData:
    """Open the training and the validation split; write the cache of pixels where there is none."""
    on_gpu = trainer.strategy.root_device.type == "cuda"
    views = None
    if cfg.dataset.views:
        views = Views(cfg.dataset, Grid(cfg.model.output_stride, cfg.model.align_corners))
    return SegmentationData(
        cfg.dataset,
        cfg.seed,
        num_workers=cfg.trainer.num_workers,
        pin_memory=on_gpu,
        views=views,
        limit=cfg.trainer.limit_train_batches,
        force=cfg.force,
    )


def begin(task: SegmentationTask, data: SegmentationData, trainer: L.Trainer) -> None:
    """Start a new training's weights from the masks and from another network, and say so.

    Raises:
        ValueError: the backbone does not keep the corners that the configuration aligns, or as
            `begin_from`.
    """
    if task.cfg.model.align_corners:  # Stored networks are not refused.
        task.net.backbone.check_corners(task.net.grid.stride)
    if fitted := fit_to_masks(task, data.train_source):
        trainer.print(fitted)
    if task.cfg.init_from:
        trainer.print(begin_from(task, task.cfg.init_from))


def use_features(task: SegmentationTask, data: SegmentationData, device: torch.device) -> None:
    """Let the data come with a frozen backbone's features, which are written where missing."""
    cache = open_features(task.net, task.cfg, data.cfg)
    if cache is None:
        return
    write_features(cache, task.net, data.train_source, cache.views.all(), device)
    data.feature_cache = cache
    if task.cfg.protocol.looks_once:
        write_features(cache, task.net, data.val_source, [AS_IT_IS], device)
        data.val_feature_cache = cache


def announce(run: RunFolder, trainer: L.Trainer, data: SegmentationData) -> None:
    """Say what will be trained, and from where."""
    counts = f"{len(data.train_source)} training and {len(data.val_source)} validation images"
    trainer.print(f"{counts}; run folder {run.path}")
    if run.checkpoint:
        trainer.print(f"Continuing from {run.checkpoint}, step {run.step}")
        if moved := describe_move(run.data_root, run.cfg.dataset):
            trainer.print(moved)
    if len(data.val_source):
        trainer.print(f"Validated by {run.cfg.protocol.describe()}")
    if run.cfg.model.freeze_backbone and not run.cfg.model.aux_head:
        trainer.print("The backbone is frozen, so there is no auxiliary head.")
    for unread in describe_unread(run.cfg, run.result.overrides):
        trainer.print(f"Note: {unread}")
    run.result.warning = find_warning(run.cfg, data) or None
    if run.result.warning:
        trainer.print(f"Warning: {run.result.warning}")


def find_warning(cfg: TrainConfig, data: SegmentationData) -> str:
    """Return what makes the run's scores doubtful, a sentence or two; "" where nothing does."""
    if not len(data.val_source):
        return (
            "No split is validated on (dataset.val_split=null), so the run has no score and no "
            "best checkpoint; its last one is the result."
        )
    source = data.val_source
    sizes = {source.mask(index).shape for index in spread(len(source), LOOKED_AT)}
    found = untrained_taps(cfg, sorted((height, width) for height, width in sizes))
    both = count_shared(source, data.train_source)
    if both:
        found += (
            f" The training sees {both} of the {len(source)} validation images, so the "
            "scores on them say nothing about others."
        )
    return found.strip()


def validate_the_end(trainer: L.Trainer, task: SegmentationTask, data: SegmentationData) -> None:
    """Validate the last weights, unless the last epoch's end did: max_steps may end one early."""
    if task.validated_at == trainer.global_step or not len(data.val_source):
        return
    trainer.validate(task, data, verbose=False)
    if isinstance(trainer.checkpoint_callback, KeepBest) and task.val_scores:
        trainer.checkpoint_callback.consider(trainer, task.val_scores.mIoU)


def evaluate_training(task: SegmentationTask, trainer: L.Trainer, run: RunFolder) -> dict[str, str]:
    """Evaluate the last weights by each protocol, on all processes of the training.

    Returns:
        Folders in the run folder, by the protocols' descriptions.
    """
    device = trainer.strategy.root_device
    net = task.net.to(device).float().eval()  # In float32, also after a training in float64.
    model = Model(net, task.cfg, task.classes, task.palette, device)
    folders = {}
    for protocol in wanted_protocols(run.cfg):
        result, where = evaluate_last(
            model, run.cfg, run.path, protocol, trainer.global_rank, trainer.world_size
        )
        folders[result.protocol] = where.relative_to(run.path).as_posix()
        for logger in trainer.loggers:
            if isinstance(logger, ResumableWandb):
                logger.log_evaluation(result, where, trainer.global_step)
    return folders


def evaluate_last(
    model: Model,
    cfg: TrainConfig,
    folder: Path,
    protocol: ProtocolConfig,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[EvaluationResult, Path]:
    """Evaluate the last weights of a run and print the scores; return as `evaluate` does."""
    options = EvaluateConfig(str(folder / LAST), cfg.dataset, protocol)
    result, where = evaluate(model, options, folder, rank, world_size)
    if rank == 0:
        print(score_table(result))
        print(boundary_line(result))
        print(f"Protocol: {result.protocol}")
    return result, where


def complete(cfg: TrainConfig, folder: Path) -> None:
    """Make the evaluations that a finished run lacks.

    Raises:
        ValueError: the run was trained with another configuration.
    """
    check_finished(cfg, folder)
    missing = missing_protocols(cfg, folder)
    if missing and is_first_process():
        device = "cpu" if cfg.trainer.accelerator == "cpu" else "auto"
        model = load(folder / LAST, device=device)
        for protocol in missing:
            scores, where = evaluate_last(model, cfg, folder, protocol)
            result = read_result(folder)  # Another process may have added others meanwhile.
            result.evaluations[scores.protocol] = where.relative_to(folder).as_posix()
            result.write(folder)
    announce_finished(cfg, folder)
