"""Train one configuration, or sweep over several.

  python src/train.py [experiment=NAME] [KEY=VALUE ...]
  python src/train.py -m seed=0,1,2 [KEY=VALUE ...]

There is one run folder for each configuration, under runs/. The same command again continues where
it stopped.
"""

# Only light imports stand here: --help and a typo are answered in a fraction of a second.
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import DictConfig

from cyclenet.commands.cli import HELP, show_help, user_errors
from cyclenet.commands.overrides import list_keys, quote
from cyclenet.config.errors import USER_ERRORS, sentence
from cyclenet.config.load import register, to_config
from cyclenet.config.restore import CONF
from cyclenet.config.schema import TrainConfig
from cyclenet.devices import count_devices
from cyclenet.environment import settle_home, settle_memory, settle_ranks, settle_streams
from cyclenet.processes import install_signal_handlers
from cyclenet.runs.results import (
    RunResult,
    announce_finished,
    check_finished,
    is_complete,
    job_result,
    mark,
    wanted_protocols,
)

SWEEP = {"-m", "--multirun"}


def main() -> None:
    """Check the command line, then train, or sweep."""
    settle_streams()
    if HELP & set(sys.argv[1:]):
        show_help("train", __doc__ or "")
        return
    install_signal_handlers()
    prepare_arguments()
    _job()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _job(cfg: DictConfig) -> float | bool:
    """Train, and leave ``result.json`` as the very last file of the run folder.

    Returns:
        What a sweep's job gives to the sweeper (`job_result`). The next job starts in any case
        (`cyclenet.lab.sweeps.after` ends the program).
    """
    settings = HydraConfig.get()
    folder, overrides = Path(settings.runtime.output_dir), list(settings.overrides.task)
    if settings.mode == RunMode.RUN:
        with user_errors():
            _train(to_config(TrainConfig, cfg), folder, overrides)
        return True
    began = False
    try:
        _refuse_shared_process(cfg, settings.launcher._target_)
        checked = to_config(TrainConfig, cfg)
        began = True
        _train(checked, folder, overrides)
    except Exception as error:
        if not isinstance(error, USER_ERRORS):
            traceback.print_exc()
        text = sentence(error)
        print(f"error: {settings.job.override_dirname}: {text}", file=sys.stderr)
        if not began and not (folder / "result.json").exists():  # A finished run there stands.
            mark(folder)
            RunResult("failed", overrides=overrides, error=text).write(folder)
        return float("nan") if cfg.objective else False
    return job_result(checked, folder)


def _train(cfg: TrainConfig, folder: Path, overrides: list[str]) -> None:
    if is_complete(cfg, folder):
        check_finished(cfg, folder)
        announce_finished(cfg, folder)
        return
    settle_home()
    settle_memory()
    processes = count_devices(cfg.trainer.accelerator, cfg.trainer.devices) * cfg.trainer.num_nodes
    settle_ranks(cfg.trainer.num_nodes, processes)
    # torch and Lightning take seconds, which a finished run need not wait for. Lightning takes
    # this process's number from the environment when it is imported.
    from cyclenet.runs.train import train

    train(cfg, folder, overrides)


def _refuse_shared_process(cfg: DictConfig, launcher: str) -> None:
    # Lightning's launcher leaves its environment behind: the second job would train on a part of
    # the data.
    parallel = cfg.trainer.num_nodes > 1 or cfg.trainer.devices != "1"
    if parallel and "BasicLauncher" in launcher:
        raise ValueError(
            "With hydra/launcher=basic all jobs share a process, where DDP goes wrong: use "
            "hydra/launcher=process."
        )


def prepare_arguments() -> None:
    """Quote paths in ``sys.argv``, and refuse a wrong command line before a run folder is made.

    Of a sweep, what is the same for all its jobs is checked. Where Hydra's own flags are given
    (``--cfg job`` and the like), Hydra checks the words itself.
    """
    words = sys.argv[1:]
    flags = [word for word in words if word.startswith("-")]
    sweep = bool(SWEEP & set(flags))
    words = [quote(word, list_keys(TrainConfig), sweep) for word in words if word not in SWEEP]
    # Hydra takes its flag before all overrides or after them, and users write it anywhere.
    sys.argv[1:] = ["-m"] * sweep + words
    register()
    if set(flags) - SWEEP - {"-r", "--run"}:
        return
    # conf/hydra/launcher/submitit_slurm.yaml has the name of the schema that its plugin brings.
    warnings.filterwarnings(
        "ignore", "(?s).*is validated against ConfigStore schema with the same name"
    )
    with user_errors():
        _check(words, sweep)


def _check(words: list[str], sweep: bool) -> None:
    from cyclenet.data.open import find_root

    overrides = OverridesParser.create().parse_overrides(
        [w for w in words if not w.startswith("-")]
    )
    swept = [override for override in overrides if override.is_sweep_override()]
    fixed = [str(override.input_line) for override in overrides if override not in swept]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        points = [
            compose("train", [*fixed, *point], return_hydra_config=True)
            for point in _sample_points(swept)
        ]
        composed = points[0]
        axes = composed.hydra.sweeper.get("params") or {}
        if axes and composed.hydra.mode == RunMode.MULTIRUN:
            # An experiment's own axes may bring what its jobs need: the first job is checked.
            given = {override.get_key_element() for override in overrides}
            own = [f"{key}={value}" for key, value in axes.items() if key not in given]
            parsed = OverridesParser.create().parse_overrides(own)
            # A glob's options, and what a sweeper draws from an interval, are its own.
            drawn = (Glob, IntervalSweep)
            firsts = [_first(axis) for axis in parsed if not isinstance(axis.value(), drawn)]
            words = [*fixed, *_sample_points(swept)[0], *firsts]
            composed = compose("train", words, return_hydra_config=True)
    if swept and not sweep and composed.hydra.mode != RunMode.MULTIRUN:
        raise ValueError(
            f"{swept[0].input_line} lists several values: add -m to sweep over them, or give one."
        )
    if composed.hydra.job.chdir:
        raise ValueError(
            "hydra.job.chdir=true would change what relative paths mean: leave it out; the run "
            "folder is hydra.run.dir."
        )
    cfg = to_config(TrainConfig, composed)
    cfg.require_trainable()
    wanted_protocols(cfg)
    if not any((override.key_or_group or "").startswith("dataset") for override in swept):
        find_root(cfg.dataset)


def _sample_points(swept: list[Override]) -> list[list[str]]:
    """Return points of a sweep that hold every value of each axis once.

    The other axes have their first values. A glob's values are names of existing options.
    """
    axes = [
        [f"{axis.get_key_element()}={value}" for value in _values(axis)]
        for axis in swept
        if not isinstance(axis.value(), Glob)
    ]
    firsts = [axis[0] for axis in axes]
    points = [firsts]
    for number, axis in enumerate(axes):
        points += [[*firsts[:number], word, *firsts[number + 1 :]] for word in axis[1:]]
    return points


def _first(axis: Override) -> str:
    value = _values(axis)[0] if axis.is_sweep_override() else axis.get_value_element_as_str()
    return f"{axis.get_key_element()}={value}"


def _values(axis: Override) -> list[Any]:
    value = axis.value()
    if isinstance(value, IntervalSweep):  # A sweeper such as Optuna's draws from it.
        return [value.start, value.end]
    return list(axis.sweep_string_iterator())


if __name__ == "__main__":
    main()
