"""The Hydra launcher `process`: each job of a sweep in a fresh process.

In a process of its own a job is what it is without a sweep, so that DDP, which starts processes
itself, is right; and a job that is killed takes no other with it. (In one process, as Hydra's basic
launcher runs jobs, DDP trains on a part of the data.)
"""

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from cyclenet.config.errors import USER_ERRORS, sentence
from cyclenet.config.load import to_config
from cyclenet.config.schema import TrainConfig
from cyclenet.data.open import find_root
from cyclenet.lab.sweeps.jobs import FAILED, job_folders
from cyclenet.lab.sweeps.run_jobs import DONE, Job, run_all, score_of
from cyclenet.runs.results import describe_move, is_complete, job_result, read_result


@dataclass
class ProcessLauncherConf:
    """Options, given as ``hydra.launcher.n_jobs=2``."""

    _target_: str = ""
    # Jobs at a time; 0 runs as many as the GPUs allow, and one without GPUs. On CPU the cores are
    # divided among them.
    n_jobs: int = 0
    # Seconds that jobs have to save their state when the sweep is stopped; then they are killed.
    grace_seconds: float = 60.0


LAUNCHED: list[tuple[Path, DictConfig]] = []
"""Run folder and configuration of each job so far. Sweepers such as Optuna's launch many times."""


class CheckedJob(NamedTuple):
    """A job whose configuration was composed and checked."""

    name: str
    composed: DictConfig
    cfg: TrainConfig


class ProcessLauncher(Launcher):
    """See the module, and `ProcessLauncherConf` for the options."""

    def __init__(self, n_jobs: int, grace_seconds: float) -> None:
        self.n_jobs, self.grace_seconds = n_jobs, grace_seconds

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Check all jobs, run those that have not finished, and return whether each succeeded.

        Raises:
            SystemExit: a job's configuration is wrong (then none is started), or a signal stopped
                the sweep.
        """
        setup_globals()
        checked = self._check_all(job_overrides, initial_job_idx)
        root = Path(self.config.hydra.sweep.dir)
        folders = job_folders(root, [job.cfg for job in checked])
        jobs: dict[Path, Job] = {}
        moved = set()
        for folder, (name, composed, cfg) in zip(folders, checked, strict=True):
            job = jobs.setdefault(
                folder, Job(name, job_command(composed.hydra, folder), folder, cfg)
            )
            if is_complete(cfg, folder):
                job.state, job.note = "finished before", score_of(folder)
                moved.add(describe_move(read_result(folder).data_root, cfg.dataset))
        for note in sorted(moved - {""}):
            print(note)
        gpus = visible_gpus() if any(job.wanted_gpus for job in jobs.values()) else []
        run_all(list(jobs.values()), self.n_jobs, gpus, self.grace_seconds)
        returns = []
        for folder, (_, composed, _), words in zip(folders, checked, job_overrides, strict=True):
            ret = JobReturn(overrides=words, cfg=composed, status=JobStatus.COMPLETED)
            done, cfg = jobs[folder].state in DONE, jobs[folder].cfg
            ret.return_value = done
            if cfg.objective:  # A failed job may have an earlier run's result in its folder.
                ret.return_value = job_result(cfg, folder) if done else float("nan")
            returns.append(ret)
            LAUNCHED.append((folder, composed))
            (FAILED.discard if done else FAILED.add)(folder)
        return returns

    def _check_all(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[CheckedJob]:
        """Compose and check all jobs; end the program where one is wrong."""
        shared = set(job_overrides[0]).intersection(*job_overrides)  # The rest tells jobs apart.
        checked, errors = [], []
        state = Singleton.get_state()
        for number, overrides in enumerate(job_overrides, first):
            own = [word for word in overrides if word not in shared]
            name = " ".join(own) or f"job {number}"
            try:
                composed = self._compose(list(overrides), number)
                cfg = to_config(TrainConfig, composed)
                check_job(cfg)
            except USER_ERRORS as error:
                errors.append(f"error: {name}: {sentence(error)}")
                continue
            checked.append(CheckedJob(name, composed, cfg))
        Singleton.set_state(state)
        if errors:
            print("\n".join(errors), file=sys.stderr)
            raise SystemExit(
                f"error: {len(errors)} of {len(job_overrides)} jobs are wrong; none was started."
            )
        return checked

    def _compose(self, overrides: list[str], number: int) -> DictConfig:
        loader = self.context.config_loader
        composed = loader.load_sweep_config(self.config, overrides)
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = f"job_{number}", number
        HydraConfig.instance().set_config(composed)
        return composed


def job_command(hydra: DictConfig, folder: Path) -> list[str]:
    """Return the command by which a user would run a job alone."""
    main: Any = sys.modules["__main__"]
    if main.__spec__:  # The program was started as a module, by the installed command.
        words = [sys.executable, "-m", main.__spec__.name]
    else:
        words = [sys.executable, str(Path(main.__file__ or "").resolve())]
    if hydra.job.config_name != "train":
        words += ["--config-name", hydra.job.config_name]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            words += ["--config-dir", source.path]
    where = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [*words, *hydra.overrides.task, "hydra.mode=RUN", f"hydra.run.dir='{where}'"]


def check_job(cfg: TrainConfig) -> None:
    """Refuse what a job would refuse as soon as it has started.

    Raises:
        ValueError: the data is missing, or the job does not fit one machine.
    """
    find_root(cfg.dataset)
    if cfg.trainer.num_nodes > 1:
        raise ValueError(
            "trainer.num_nodes: hydra/launcher=process has one machine; "
            "use hydra/launcher=submitit_slurm."
        )
    if cfg.trainer.devices != "auto" and cfg.dataset.batch_size % int(cfg.trainer.devices):
        raise ValueError(
            f"dataset.batch_size ({cfg.dataset.batch_size}) must be divisible by the "
            f"{cfg.trainer.devices} processes."
        )


def visible_gpus() -> list[str]:
    """List the GPUs that jobs may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # CUDA ignores all names after the first that is no GPU; -1 is none, and hides all.
        names = named.split(",")
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
