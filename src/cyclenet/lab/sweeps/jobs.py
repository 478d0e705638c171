"""The jobs of a sweep, and the run folder of each."""

import os
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cyclenet.config.identity import flatten
from cyclenet.config.load import run_folder_name, to_config
from cyclenet.config.schema import TrainConfig

FAILED: set[Path] = set()
"""Run folders whose job failed in this sweep, although an earlier run may have finished there."""


def swept_jobs(config: DictConfig) -> list[tuple[Path, DictConfig]]:
    """Return the run folder and the configuration of each job.

    The configurations are composed again, because some launchers run jobs out of sight. A sweeper
    that chooses jobs by the results of others must have the launcher `process`, which keeps a list.

    Raises:
        ValueError: the jobs cannot be told.
    """
    if "BasicSweeper" not in config.hydra.sweeper._target_:
        launcher = sys.modules.get("cyclenet.lab.sweeps.launcher")
        launched: list[tuple[Path, DictConfig]] = launcher.LAUNCHED if launcher else []
        if not launched:
            raise ValueError(
                "only hydra/launcher=process lists this sweeper's jobs; write the report with "
                "src/report.py runs=FOLDER."
            )
        return launched
    axes = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*axes, *config.hydra.overrides.task])
    # A word of the command line replaces the experiment's axis of the same key.
    last = {override.get_key_element(): override for override in overrides}
    jobs = product(*(_values(override) for override in last.values()))
    composed = [compose(config.hydra.job.config_name, list(job)) for job in jobs]
    root = Path(config.hydra.sweep.dir)
    if "ProcessLauncher" in config.hydra.launcher._target_:
        folders = job_folders(root, [to_config(TrainConfig, each) for each in composed])
    else:
        folders = [root / run_folder_name(each) for each in composed]
    return list(zip(folders, composed, strict=True))


def _values(override: Override) -> list[str]:
    """Return an override's words: one for each of the values that it sweeps over."""
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={override.get_value_element_as_str()}"]


def job_folders(root: Path, configs: list[TrainConfig]) -> list[Path]:
    """Name the run folder of each job of a sweep, as `run_folder_name` does.

    Jobs that differ in what changes no result (devices, workers) get folders of their own, with the
    difference at the end of the name; jobs that are alike share one.
    """
    known: dict[str, dict[str, Any]] = {}
    folders = []
    for cfg in configs:
        values, name = flatten(asdict(cfg)), run_folder_name(OmegaConf.structured(cfg))
        first = known.setdefault(name, values)
        for key in values:
            if values[key] != first[key]:
                name += f"-{key.rsplit('.', 1)[-1]}={values[key]}".replace(os.sep, "_")
        folders.append(root / name)
    return folders
