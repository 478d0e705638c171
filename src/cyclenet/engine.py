"""The lightning.Trainer, its loggers and checkpoints, from the configuration."""

import csv
import hashlib
import logging
import os
import resource
import shutil
import sys
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from cyclenet.callbacks import PrintScores, Progress, SeedPerStep, ValidateLastEpoch, ValidationPictures
from cyclenet.checkpoint import AtomicCheckpointIO, load_checkpoint
from cyclenet.config import TrainConfig

LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"


def prepare_folder(cfg: TrainConfig, folder: Path, first: bool) -> str | None:
    """Make a run folder ready and return the checkpoint to go on from, or None to start afresh.

    The folder's own last checkpoint comes first, then ``ckpt_path``. Only the ``first`` process writes.

    Raises:
        ValueError: ``resume=must`` and there is no checkpoint, or it is not a whole one.
    """
    last = folder / LAST
    if cfg.resume == "must" and not last.exists():
        raise ValueError(f"resume=must, but there is no {last}: give resume=auto to start afresh.")
    if first:
        # Of an earlier run in this folder: what it left must not pass for the new one's.
        (folder / "result.json").unlink(missing_ok=True)
        stale = [*folder.glob("checkpoints/*.tmp*"), *([last, folder / BEST] if cfg.resume == "never" else [])]
        for path in stale:
            path.unlink(missing_ok=True)
        if not last.exists():
            shutil.rmtree(folder / "evaluate", ignore_errors=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(cfg))))
    checkpoint = str(last) if cfg.resume != "never" and last.exists() else cfg.ckpt_path
    if checkpoint:
        load_checkpoint(checkpoint)
    return checkpoint


def quiet() -> None:
    """Silence what Lightning says on every run and no user can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # The run folder is not empty: the configuration is in it, and of a resumed run the checkpoints.
    warnings.filterwarnings("ignore", "Experiment logs directory")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 with torch 2.14.
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
    # Short epochs: the values of an epoch's last steps are logged by the next.
    warnings.filterwarnings("ignore", "The number of training batches")
    # Validation scores come from a matrix that was summed over processes: they are the same on all.
    warnings.filterwarnings("ignore", "It is recommended to use `self.log")
    # Workers are chosen by cores here.
    warnings.filterwarnings("ignore", ".*does not have many workers")


def choose_precision(wanted: str, accelerator: str) -> Any:
    """Resolve ``trainer.precision=auto``: bf16-mixed or 16-mixed on a GPU, 32-true elsewhere."""
    if wanted != "auto":
        return wanted
    if accelerator in ("cpu", "mps") or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def choose_device(accelerator: str) -> torch.device:
    """Resolve ``accelerator`` (auto, cpu, gpu) for the commands that use one device.

    Raises:
        ValueError: it is another word, or there is no such device.
    """
    if accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"accelerator must be auto, cpu or gpu; got {accelerator!r}.")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("accelerator=gpu, but PyTorch sees no GPU here; use cpu or auto.")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def build_trainer(cfg: TrainConfig, folder: Path, checkpoint: str | None) -> L.Trainer:
    """Build the trainer of a run folder; ``checkpoint`` is what it will go on from."""
    options = cfg.trainer
    precision = choose_precision(options.precision, options.accelerator)
    keep = partial(ModelCheckpoint, folder / "checkpoints", auto_insert_metric_name=False, enable_version_counter=False)
    callbacks: list[Callback] = [
        SeedPerStep(cfg.seed),
        ValidateLastEpoch(),
        LearningRateMonitor("step"),
        ValidationPictures(folder, options.log_images_every_epochs),
        keep("best", monitor="val/mIoU", mode="max"),
        keep("last", every_n_epochs=1, save_on_train_epoch_end=True),
    ]
    if options.checkpoint_every_steps:
        callbacks.append(keep("last", every_n_train_steps=options.checkpoint_every_steps))
    if options.progress_bar and sys.stdout.isatty():
        callbacks.append(Progress())
    else:
        callbacks.append(PrintScores())
    trainer = L.Trainer(
        accelerator=options.accelerator,
        devices=options.devices if options.devices == "auto" else int(options.devices),
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        precision=precision,
        max_epochs=options.max_epochs,
        max_steps=options.max_steps,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=options.gradient_clip_norm or None,
        sync_batchnorm=options.sync_batchnorm and options.accelerator != "cpu" and torch.cuda.is_available(),
        check_val_every_n_epoch=options.val_every_epochs,
        log_every_n_steps=cfg.logger.every_n_steps,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=build_loggers(cfg, folder, checkpoint),
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=options.progress_bar and sys.stdout.isatty(),
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.print(f"Device {trainer.strategy.root_device}, {trainer.world_size} process(es), precision {precision}")
    return trainer


def build_loggers(cfg: TrainConfig, folder: Path, checkpoint: str | None) -> list[Logger]:
    """Build the CSV logger and those that ``logger`` asks for. A resumed run keeps the rows up to its checkpoint."""
    rows: list[dict[str, str]] = []
    path = folder / "metrics.csv"
    if checkpoint and path.exists():
        step = load_checkpoint(checkpoint)["global_step"]
        with path.open() as file:
            # A kill may have left half a row.
            rows = [row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) < step]
    csv_logger = CSVLogger(folder, name="", version="", flush_logs_every_n_steps=cfg.logger.every_n_steps)
    if is_first_process():
        path.unlink(missing_ok=True)
        for row in rows:
            csv_logger.experiment.metrics.append({key: value for key, value in row.items() if value})
        csv_logger.save()
    loggers: list[Logger] = [csv_logger]
    if cfg.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    if cfg.logger.wandb != "disabled":
        online = cfg.logger.wandb == "online" or (cfg.logger.wandb == "auto" and "WANDB_API_KEY" in os.environ)
        loggers.append(
            WandbLogger(
                project=cfg.logger.wandb_project,
                name=folder.name,
                group=cfg.name,
                # The same run folder is the same run.
                id=hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest(),
                resume="allow",
                save_dir=folder,
                offline=not online,
            )
        )
    for logger in loggers[1:]:
        logger.log_hyperparams(asdict(cfg))
    return loggers


def is_first_process() -> bool:
    """Tell whether this process is the one that writes (Lightning reads it from the launcher's environment)."""
    return getattr(rank_zero_only, "rank", 0) == 0


def close_loggers() -> None:
    """End the wandb run, so that the next job of a sweep begins its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process and of its largest child, MiB."""
    total = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(total / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)
