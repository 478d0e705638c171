"""What identifies a run: the part of its configuration that changes the result."""

import copy
import hashlib
import json
from dataclasses import asdict
from typing import Any

from cyclenet.config.model import ModelConfig
from cyclenet.config.naming import arm_label
from cyclenet.config.schema import TrainConfig

PROCESSES = ("devices", "num_nodes")
"""Keys that change a result where batch norm is not synchronised."""

NOT_IN_THE_RESULT = {
    "trainer": (
        "accelerator",
        "devices",
        "num_nodes",
        "num_workers",
        "progress_bar",
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "log_images_every_epochs",
    ),
    "dataset": ("download", "boundary_ratio", "cache", "cache_root", "cache_features"),
    "model": ("recompute",),
    "": ("logger", "resume", "force", "extra_protocols", "objective"),
}
"""Keys that change no result of a training: devices, workers, memory, saving, logging. Boundary
scores of another ratio are made anew (`cyclenet.runs.results.missing_protocols`)."""


def result_affecting(cfg: TrainConfig) -> dict[str, Any]:
    """Return a configuration as nested values, without the keys that change no result."""
    return keep_result_affecting(asdict(cfg))


def keep_result_affecting(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a plain configuration without the keys that change no result."""
    values = copy.deepcopy(values)
    for part, keys in NOT_IN_THE_RESULT.items():
        for key in keys:
            (values[part] if part else values).pop(key)
    return values


def differences(stored: TrainConfig, wanted: TrainConfig) -> list[str]:
    """Name what differs and changes the result: ``optim.lr (0.01 there, 0.5 here)``."""
    there, here = (flatten(result_affecting(cfg)) for cfg in (stored, wanted))
    if not (stored.trainer.sync_batchnorm and wanted.trainer.sync_batchnorm):
        # Each process has statistics of its own. Names of run folders leave these keys out.
        for flat, cfg in ((there, stored), (here, wanted)):
            flat |= {f"trainer.{key}": getattr(cfg.trainer, key) for key in PROCESSES}
    keys = [key for key in here if key not in ("name", "ckpt_path")]
    return [
        f"{key} ({there[key]} there, {here[key]} here)" for key in keys if there[key] != here[key]
    ]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested values: {"model": {"feedback": 1}} becomes {"model.feedback": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def digest(values: dict[str, Any], size: int) -> str:
    """Hash plain values to ``size`` bytes in hexadecimal."""
    text = json.dumps(values, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=size).hexdigest()


def changed_from(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the defaults.

    Run folders are named by these alone, so that a key that a later version adds leaves the names
    of old run folders as they are.
    """
    changed = {}
    for key, value in values.items():
        if isinstance(value, dict) and key in defaults:
            inner = changed_from(defaults[key], value)
            if inner:
                changed[key] = inner
        elif key not in defaults or value != defaults[key]:
            changed[key] = value
    return changed


def network_name(model: dict[str, Any]) -> str:
    """Name a network by its label and a digest of the keys of ``model`` that are not the default.

    Args:
        model: plain values.
    """
    shape = ModelConfig.__new__(ModelConfig)
    shape.__dict__.update(model)
    # The auxiliary head of a frozen backbone is left out when the configuration is checked.
    ignored = (*NOT_IN_THE_RESULT["model"], "aux_head")
    values = {key: value for key, value in model.items() if key not in ignored}
    return f"{arm_label(shape)} {digest(changed_from(asdict(ModelConfig()), values), 2)}"


def arm_name(cfg: TrainConfig) -> str:
    """Name a run's arm: its label, and a digest of what affects its result, but for the seed."""
    shared = result_affecting(cfg)
    for key in ("seed", "name", "ckpt_path"):
        shared.pop(key)
    return f"{arm_label(cfg.model)} {digest(shared, 2)}"
