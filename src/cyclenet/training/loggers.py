"""Where a run's numbers go: metrics.csv always, wandb and TensorBoard if asked for.

A resumed run continues in the same places.
"""

import os
import socket
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from cyclenet.config.identity import arm_name
from cyclenet.config.schema import TrainConfig
from cyclenet.training.metrics_csv import MetricsCSV
from cyclenet.training.resumable_wandb import ResumableWandb, wandb_id

REACHABLE_SECONDS = 5.0


def build_loggers(cfg: TrainConfig, folder: Path, step: int, first: bool) -> list[Logger]:
    """Build the loggers of a run folder.

    Args:
        cfg: the configuration; ``logger`` says which.
        folder: the run folder.
        step: step of the checkpoint that the run continues from; 0 where it begins.
        first: whether this is the process that writes.
    """
    metrics = MetricsCSV(folder / "metrics.csv", step if first else 0)
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        if metrics.rows:
            metrics.flush()  # Without the rows that come after the checkpoint.
        else:
            metrics.path.unlink(missing_ok=True)
    loggers: list[Logger] = [metrics]
    if cfg.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    mode = choose_wandb_mode(cfg.logger.wandb)
    if mode != "disabled":
        loggers.append(_build_wandb(cfg, folder, metrics.rows, first, mode == "online"))
    for logger in loggers[1:]:
        about = {"arm": arm_name(cfg), "run_folder": folder.name}
        logger.log_hyperparams(asdict(cfg) | about)
    return loggers


def choose_wandb_mode(wanted: str) -> str:
    """Resolve ``logger.wandb`` to online, offline or disabled.

    wandb's own variables count too. ``auto`` goes offline where the server cannot be reached.

    Raises:
        ValueError: ``online`` is wanted, and the server cannot be reached.
    """
    said = os.environ.get("WANDB_MODE", "")
    if wanted == "disabled" or said == "disabled":
        return "disabled"
    if said in ("offline", "dryrun") or wanted == "offline":
        return "offline"
    if wanted == "auto" and said != "online" and "WANDB_API_KEY" not in os.environ:
        return "offline"
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if _is_reachable(server):
        return "online"
    if wanted == "online":
        raise ValueError(
            f"{server} cannot be reached: give logger.wandb=offline, and `wandb sync` later."
        )
    warnings.warn(f"{server} cannot be reached: wandb runs offline.", stacklevel=1)
    return "offline"


def _is_reachable(server: str) -> bool:
    if {"https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"} & os.environ.keys():
        return True  # Only the proxy can tell.
    url = urlsplit(server)
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname or "", port), REACHABLE_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _build_wandb(
    cfg: TrainConfig, folder: Path, rows: list[dict[str, Any]], first: bool, online: bool
) -> ResumableWandb:
    wandb = ResumableWandb(
        save_dir=folder,
        project=cfg.logger.wandb_project,
        # A sweep is a group, its arms are job types: grouped by both, wandb averages an arm over
        # its seeds.
        name=f"{arm_name(cfg)}, seed {cfg.seed}",
        group=f"{cfg.name}-{cfg.dataset.name}",
        job_type=arm_name(cfg),
        tags=[cfg.dataset.name, cfg.model.backbone, cfg.model.context, cfg.model.decoder],
        id=wandb_id(folder) if first else None,
        resume="allow",
        offline=not online,
    )
    # Lightning hands it on as None, and wandb then warns that it has no effect.
    vars(wandb).get("_wandb_init", {}).pop("anonymous", None)
    if first and not online:
        wandb.replay(folder, rows)
    return wandb


def close_loggers() -> None:
    """End the wandb run, so that the next job of a sweep begins its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
