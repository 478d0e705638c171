"""The run folder and the lightning.Trainer, from the configuration."""

import errno
import fcntl
import logging
import resource
import shutil
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from cyclenet.config import TrainConfig
from cyclenet.training.callbacks import (
    BroadcastBuffers,
    KeepBest,
    KeepLast,
    LogSteps,
    PrintScores,
    Progress,
    ProgressFile,
    SeedPerStep,
    StopAtNonFinite,
    ValidateLastEpoch,
    ValidationPictures,
)
from cyclenet.training.checkpoint import AtomicCheckpointIO, check_same, load_checkpoint, load_newest
from cyclenet.training.loggers import build_loggers
from cyclenet.training.sync_batchnorm import SyncBatchNorm

LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"


def lock(folder: Path, seconds: float = 15) -> IO[str]:
    """Keep other processes from training in a run folder, until the file that is returned is closed or the process ends.

    Waits a little, for what is left of a killed process. Raises `ValueError` where the folder stays in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "run.lock").open("a")
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return file  # A file system without locks.
        if time.monotonic() > until:
            raise ValueError(f"{folder} is being trained by another process; wait for it, or end it.")
        time.sleep(0.2)


def prepare_folder(cfg: TrainConfig, folder: Path, first: bool) -> tuple[str | None, int, str | None]:
    """Make a run folder ready; return the checkpoint to go on from, its step and precision, or (None, 0, None) to start afresh.

    The folder's own last checkpoint comes first, then ``ckpt_path``. Only the ``first`` process writes.

    Raises:
        ValueError: ``resume=must`` and there is no checkpoint; it is damaged, or was made with another configuration.
    """
    checkpoints = folder / "checkpoints"
    newest = load_newest(checkpoints) if cfg.resume != "never" else None
    if cfg.resume == "must" and newest is None:
        raise ValueError(f"resume=must, but there is no {folder / LAST}: give resume=auto to start afresh.")
    if newest is None and cfg.ckpt_path:
        newest = Path(cfg.ckpt_path), load_checkpoint(cfg.ckpt_path)
    if newest and not cfg.force:
        check_same(newest[1], newest[0], cfg)
    if first:
        # Of an earlier run in this folder: what it left must not pass for the new one's.
        for name in ("result.json", "progress.json"):
            (folder / name).unlink(missing_ok=True)
        for path in checkpoints.glob("*.tmp*"):
            path.unlink()
        if newest is None:
            for left in ("checkpoints", "evaluate", "visualize", "wandb", "tensorboard"):
                shutil.rmtree(folder / left, ignore_errors=True)
            (folder / "wandb-id.txt").unlink(missing_ok=True)
        elif newest[0].name == "previous.ckpt" and (folder / LAST).exists():
            (folder / LAST).replace(checkpoints / "damaged.ckpt")  # It must not become the previous one.
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(cfg))))
    if newest is None:
        return None, 0, None
    return str(newest[0]), newest[1]["global_step"], newest[1].get("run", {}).get("precision")


def quiet() -> None:
    """Silence what Lightning says on every run and no user can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # The run folder is not empty: the configuration is in it, and of a resumed run the checkpoints.
    warnings.filterwarnings("ignore", "Experiment logs directory")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 with torch 2.14.
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
    # Validation scores come from a matrix that was summed over processes: they are the same on all.
    warnings.filterwarnings("ignore", "It is recommended to use `self.log")
    # The data module keeps the loader's position.
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
    # The name that torch 2.14 gives it is not known to older ones.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
    # One process on a machine that has SLURM is no mistake.
    warnings.filterwarnings("ignore", "The `srun` command is available")
    # Workers are chosen by cores here.
    warnings.filterwarnings("ignore", ".*does not have many workers")


def choose_precision(wanted: str, on_gpu: bool, before: str | None = None) -> Any:
    """Resolve ``trainer.precision=auto``.

    That of the processes ``before``, if the run was interrupted. Else bf16-mixed where the hardware has bfloat16 (on CPUs:
    AVX-512 BF16 or AMX; depthwise convolutions stay in float32 there), 16-mixed on other GPUs, 32-true on other CPUs.
    """
    if wanted != "auto" or before:
        return wanted if wanted != "auto" else before
    if on_gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # Since torch 2.10.
    return "bf16-mixed" if has.get("avx512_bf16") or has.get("amx_bf16") else "32-true"


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


def build_trainer(cfg: TrainConfig, folder: Path, step: int, precision_before: str | None = None) -> L.Trainer:
    """Build the trainer of a run folder.

    Args:
        cfg: the whole configuration.
        folder: of the run.
        step: of the checkpoint it will go on from, or 0.
        precision_before: of the training until then.
    """
    options = cfg.trainer
    on_gpu = options.accelerator not in ("cpu", "mps") and torch.cuda.is_available()
    devices = (torch.cuda.device_count() if on_gpu else 1) if options.devices == "auto" else int(options.devices)
    parallel = devices * options.num_nodes > 1
    precision = choose_precision(options.precision, on_gpu, precision_before)
    checkpoints = folder / "checkpoints"
    callbacks: list[Callback] = [
        SeedPerStep(cfg.seed),
        StopAtNonFinite(folder / "debug"),
        ValidateLastEpoch(),
        LogSteps(cfg.logger.every_n_steps),
        ProgressFile(folder),
        ValidationPictures(folder, options.log_images_every_epochs),
        KeepBest(checkpoints),
        KeepLast(checkpoints, options.checkpoint_every_steps, options.checkpoint_every_minutes),
    ]
    if parallel and not options.sync_batchnorm:
        callbacks.append(BroadcastBuffers())
    if options.progress_bar and sys.stdout.isatty():
        callbacks.append(Progress())
    else:
        callbacks.append(PrintScores())
    plugins: list[Any] = [AtomicCheckpointIO()]
    if parallel and options.sync_batchnorm:
        plugins.append(SyncBatchNorm(cuda=on_gpu))
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():  # torchrun may run in a SLURM job.
        try:
            plugins.append(SLURMEnvironment(auto_requeue=False))  # KeepLast does it.
        except RuntimeError as error:  # Options of sbatch that do not fit.
            raise ValueError(" ".join(str(error).split())) from error
    loggers = build_loggers(cfg, folder, step, is_first_process())
    try:
        trainer = L.Trainer(
            accelerator=options.accelerator,
            devices=devices,
            num_nodes=options.num_nodes,
            # Validation does not run in step (images differ in size and number), so no buffers are exchanged in forward.
            strategy=DDPStrategy(broadcast_buffers=False) if parallel else "auto",
            precision=precision,
            max_epochs=options.max_epochs,
            max_steps=options.max_steps,
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.gradient_clip_norm or None,
            check_val_every_n_epoch=options.val_every_epochs,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=loggers,
            callbacks=callbacks,
            plugins=plugins,
            enable_progress_bar=options.progress_bar and sys.stdout.isatty(),
            enable_model_summary=False,
            log_every_n_steps=1,
            default_root_dir=folder,
        )
    except MisconfigurationException as error:  # Devices that are not there.
        raise ValueError(f"{' '.join(str(error).split())} See trainer.accelerator and trainer.devices.") from error
    trainer.print(f"Device {trainer.strategy.root_device}, {trainer.world_size} process(es), precision {precision}")
    return trainer


def is_first_process() -> bool:
    """Tell whether this process is the one that writes (Lightning reads it from the launcher's environment)."""
    return getattr(rank_zero_only, "rank", 0) == 0


def check_saved(folder: Path, trainer: L.Trainer) -> None:
    """Raise `ValueError` unless the last checkpoint holds the end of the training; warn where the best one is not the best."""
    newest = load_newest(folder / "checkpoints")
    if newest is None or newest[1]["global_step"] != trainer.global_step:
        raise ValueError(
            f"{folder / LAST} is not of the last step ({trainer.global_step}): free disk space, and run the same command again."
        )
    best = trainer.checkpoint_callback
    score = best.best_model_score if isinstance(best, KeepBest) else None
    if score is not None:
        stored = load_checkpoint(folder / BEST)["run"]["metrics"]["val/mIoU"] if (folder / BEST).exists() else None
        if stored != score.item():
            warnings.warn(f"{folder / BEST} is not of the best epoch: it could not be written then.", stacklevel=1)


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process and of its largest child, MiB."""
    total = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(total / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)
