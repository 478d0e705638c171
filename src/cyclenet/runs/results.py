"""``result.json``, the last file that a run writes: what came of it."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cyclenet.config import ProtocolConfig, TrainConfig, differences, load_protocol, restore


def read_result(folder: Path) -> dict[str, Any]:
    """Return what ``result.json`` of a run folder holds; {} where there is none, or it cannot be read."""
    try:
        return json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return {}


def read_progress(folder: Path) -> dict[str, Any]:
    """Return what ``progress.json`` of a run folder holds (`cyclenet.training.callbacks.ProgressFile`); {} where there is none yet."""
    try:
        return json.loads((folder / "progress.json").read_text())
    except (OSError, ValueError):
        return {}


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Replace the result file as a whole."""
    part = folder / "result.json.tmp"
    part.write_text(json.dumps(result, indent=1))
    part.replace(folder / "result.json")


def check_finished(cfg: TrainConfig, folder: Path) -> None:
    """Raise `ValueError` where the run that has finished in a folder was trained with another configuration."""
    try:
        stored = restore(OmegaConf.load(folder / "config.yaml"))
    except (OSError, ValueError, OmegaConfBaseException, YAMLError):  # Of another version: nothing can be told.
        return
    if found := differences(stored, cfg):
        raise ValueError(
            f"{folder} holds a finished run with another {', '.join(found)}: give another hydra.run.dir, or resume=never to "
            "train there anew."
        )


def protocols(cfg: TrainConfig) -> list[ProtocolConfig]:
    """Return the protocols by which a training is evaluated at its end. Raises `ValueError` for the name of no preset."""
    return [cfg.protocol, *(load_protocol(name) for name in cfg.extra_protocols)]


def missing(cfg: TrainConfig, result: dict[str, Any]) -> list[ProtocolConfig]:
    """Return those by which it has not been evaluated yet."""
    return [protocol for protocol in protocols(cfg) if protocol.describe() not in result.get("evaluations", {})]


def is_complete(cfg: TrainConfig, folder: Path) -> bool:
    """Tell whether the same command would find nothing to do in a run folder."""
    result = read_result(folder)
    return cfg.resume == "auto" and result.get("status") == "finished" and not missing(cfg, result)
