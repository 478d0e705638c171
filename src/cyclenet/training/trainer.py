"""The lightning.Trainer of a run, from the configuration."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cyclenet.config.schema import TrainConfig, TrainerConfig
from cyclenet.devices import count_devices
from cyclenet.training.average import AverageWeights
from cyclenet.training.callbacks import (
    BroadcastBuffers,
    EndAtStep,
    LogSteps,
    PrintScores,
    ProgressBar,
    ProgressFile,
    SeedPerBatch,
    StopEarly,
    ValidateLastEpoch,
    ValidationPictures,
)
from cyclenet.training.checkpoint import AtomicCheckpointIO
from cyclenet.training.keep import KeepBest, KeepLast
from cyclenet.training.loggers import build_loggers
from cyclenet.training.non_finite import StopAtNonFinite
from cyclenet.training.sync_batchnorm import SyncBatchNorm

# Warnings that come with every run and that no user can act on, and why they do not apply.
SILENCED = (
    # The run folder is not empty: the configuration is in it, and the checkpoints of a resumed run.
    "Experiment logs directory",
    "Checkpoint directory .* exists and is not empty",
    # Lightning 2.6 causes this with torch 2.14.
    ".*treespec, LeafSpec.*",
    # Validation scores come from a matrix that was summed over processes: they are the same on all.
    "It is recommended to use `self.log",
    # The data module keeps the loader's position.
    "You're resuming from a checkpoint that ended before the epoch ended",
    # Older versions of torch do not know the name that torch 2.14 gives it.
    "`broadcast_buffers` is deprecated",
    # One process on a machine that has SLURM is no mistake.
    "The `srun` command is available",
    # A frozen backbone is in evaluation mode on purpose.
    "Found .* module.* in eval mode",
    # The data module chooses the number of workers by the cores.
    ".*does not have many workers",
)


def silence_lightning() -> None:
    """Silence what Lightning says on every run and no user can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in SILENCED:
        warnings.filterwarnings("ignore", message)


def is_first_process() -> bool:
    """Tell whether this process is the one that writes.

    Lightning reads its number from the launcher's environment.
    """
    return getattr(rank_zero_only, "rank", 0) == 0


def choose_precision(wanted: str, on_gpu: bool, before: str | None = None) -> str:
    """Resolve ``trainer.precision=auto``.

    An interrupted run keeps the precision that it had ``before``. Else the answer is bf16-mixed
    where the hardware has bfloat16 (on CPUs: AVX-512 BF16 or AMX; depthwise convolutions stay in
    float32 there), 16-mixed on other GPUs, 32-true on other CPUs.
    """
    if wanted != "auto":
        return wanted
    if before:
        return before
    if on_gpu:
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if has_bf16 else "16-mixed"
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # Since torch 2.10.
    return "bf16-mixed" if has.get("avx512_bf16") or has.get("amx_bf16") else "32-true"


def build_trainer(
    cfg: TrainConfig, folder: Path, step: int, precision_before: str | None = None
) -> L.Trainer:
    """Build the trainer of a run folder.

    Args:
        cfg: the whole configuration.
        folder: the run folder.
        step: step of the checkpoint that the run continues from; 0 where it begins.
        precision_before: precision of the training until then.

    Raises:
        ValueError: the devices are not there, or SLURM's options do not fit.
    """
    options = cfg.trainer
    on_gpu = options.accelerator not in ("cpu", "mps") and torch.cuda.is_available()
    devices = count_devices(options.accelerator, options.devices)
    parallel = devices * options.num_nodes > 1
    if parallel and cfg.optim.ema_decay and not options.sync_batchnorm:
        raise ValueError(
            "optim.ema_decay averages statistics that differ between processes without "
            "trainer.sync_batchnorm: set it to true, or optim.ema_decay=0."
        )
    precision: Any = choose_precision(options.precision, on_gpu, precision_before)
    show_bar = options.progress_bar and sys.stdout.isatty()
    # Processes validate different numbers of images, so DDP must not exchange buffers in forward.
    strategy: Any = DDPStrategy(broadcast_buffers=False) if parallel else "auto"
    try:
        trainer = L.Trainer(
            accelerator=options.accelerator,
            devices=devices,
            num_nodes=options.num_nodes,
            strategy=strategy,
            precision=precision,
            max_epochs=options.max_epochs,
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.gradient_clip_norm or None,
            check_val_every_n_epoch=options.val_every_epochs,
            num_sanity_val_steps=0,
            limit_val_batches=None if cfg.dataset.validation_split else 0,
            use_distributed_sampler=False,
            logger=build_loggers(cfg, folder, step, is_first_process()),
            callbacks=_callbacks(cfg, folder, parallel, show_bar),
            plugins=_plugins(options, parallel, on_gpu),
            enable_progress_bar=show_bar,
            enable_model_summary=False,
            log_every_n_steps=1,
            default_root_dir=folder,
        )
    except MisconfigurationException as error:  # The devices are not there.
        reason = " ".join(str(error).split())
        raise ValueError(f"{reason} See trainer.accelerator and trainer.devices.") from error
    device, processes = trainer.strategy.root_device, trainer.world_size
    trainer.print(f"Device {device}, {processes} process(es), precision {precision}")
    return trainer


def _callbacks(cfg: TrainConfig, folder: Path, parallel: bool, show_bar: bool) -> list[Callback]:
    options, checkpoints = cfg.trainer, folder / "checkpoints"
    log_every = cfg.logger.every_n_steps
    save_every = (options.checkpoint_every_steps, options.checkpoint_every_minutes)
    # `LogSteps` comes before `KeepLast`, and `KeepBest` too, so that the last checkpoint knows of
    # what they did.
    callbacks: list[Callback] = [
        SeedPerBatch(cfg.seed),
        StopAtNonFinite(folder / "debug"),
        EndAtStep(options.max_steps),
        ValidateLastEpoch(),
        *([StopEarly(options.patience)] if options.patience else []),
        *([AverageWeights(cfg.optim.ema_decay)] if cfg.optim.ema_decay else []),
        LogSteps(log_every),
        ProgressFile(folder),
        ValidationPictures(folder, options.log_images_every_epochs),
        KeepBest(checkpoints),
        KeepLast(checkpoints, *save_every),
    ]
    if parallel and not options.sync_batchnorm:
        callbacks.append(BroadcastBuffers())
    callbacks.append(ProgressBar(log_every) if show_bar else PrintScores())
    return callbacks


def _plugins(options: TrainerConfig, parallel: bool, on_gpu: bool) -> list[Any]:
    plugins: list[Any] = [AtomicCheckpointIO()]
    if parallel and options.sync_batchnorm:
        plugins.append(SyncBatchNorm(cuda=on_gpu))
    # torchrun may run in a SLURM job.
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        try:
            plugins.append(SLURMEnvironment(auto_requeue=False))  # `KeepLast` requeues.
        except RuntimeError as error:  # Options of sbatch do not fit.
            raise ValueError(" ".join(str(error).split())) from error
    return plugins
