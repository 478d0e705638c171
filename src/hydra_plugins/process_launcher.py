"""The Hydra launcher `process`: each job of a sweep in a fresh process, several at a time where there is room.

In a process of its own a job is what it is without a sweep, so that DDP, which starts processes itself, is right; and one that
is killed takes no other with it. (In one process, as Hydra's basic launcher runs them, DDP trains on a part of the data.)
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import rich.table
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from rich.console import Console
from rich.live import Live

from cyclenet.commands.cli import USER_ERRORS, sentence
from cyclenet.config import TrainConfig, to_config
from cyclenet.lab.sweeps.after import job_folders
from cyclenet.processes import JOB
from cyclenet.runs.results import is_complete, read_progress, read_result


@dataclass
class ProcessLauncherConf:
    """Options, as ``hydra.launcher.n_jobs=2``."""

    _target_: str = "hydra_plugins.process_launcher.ProcessLauncher"
    # Jobs at a time; 0: as many as the GPUs allow, one without GPUs. On CPU the cores are divided among them.
    n_jobs: int = 0
    # Time that jobs have to save their state when the sweep is stopped; then they are killed.
    grace_seconds: float = 60.0


DONE = ("finished", "finished before")

ConfigStore.instance().store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="cyclenet")


@dataclass
class Job:
    """One run of the sweep. Jobs that set the same values are one."""

    name: str
    command: list[str]
    folder: Path
    cfg: TrainConfig
    state: str = "waiting"
    note: str = ""
    process: subprocess.Popen[bytes] | None = None  # While it runs.
    gpus: list[str] = field(default_factory=list)
    started: float = 0.0
    started_at: float = 0.0  # By the clock of files.
    log_start: int = 0  # Bytes of the log that are of earlier starts.
    seconds: float = 0.0

    @property
    def wanted_gpus(self) -> int:
        """Of one node; -1: all."""
        if self.cfg.trainer.accelerator in ("cpu", "mps"):
            return 0
        return -1 if self.cfg.trainer.devices == "auto" else int(self.cfg.trainer.devices)


class ProcessLauncher(Launcher):
    """See the module, and `ProcessLauncherConf` for the options."""

    def __init__(self, n_jobs: int, grace_seconds: float) -> None:
        self.n_jobs, self.grace_seconds = n_jobs, grace_seconds

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check all jobs, run those that have not finished, and return whether each succeeded.

        Raises:
            SystemExit: a job's configuration is wrong (then none is started), or a signal stopped the sweep.
        """
        setup_globals()
        returns, jobs = self._prepare(job_overrides, initial_job_idx)
        gpus = visible_gpus() if any(job.wanted_gpus for job in jobs.values()) else []
        run_all(list(jobs.values()), self.n_jobs, gpus, self.grace_seconds)
        for folder, ret in returns:
            ret.return_value, ret.status = jobs[folder].state in DONE, JobStatus.COMPLETED
        return [ret for _, ret in returns]

    def _prepare(self, job_overrides: Sequence[Sequence[str]], first: int) -> tuple[list[Any], dict[Path, Job]]:
        shared = set(job_overrides[0]).intersection(*job_overrides)  # The rest tells the jobs apart.
        checked: list[tuple[str, DictConfig, TrainConfig]] = []
        errors = []
        state = Singleton.get_state()
        for number, overrides in enumerate(job_overrides, first):
            name = " ".join(word for word in overrides if word not in shared) or f"job {number}"
            try:
                composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
                with open_dict(composed):
                    composed.hydra.job.id, composed.hydra.job.num = f"job_{number}", number
                HydraConfig.instance().set_config(composed)
                cfg = to_config(TrainConfig, composed)
                check(cfg)
            except USER_ERRORS as error:
                errors.append(f"error: {name}: {sentence(error)}")
                continue
            checked.append((name, composed, cfg))
        Singleton.set_state(state)
        if errors:
            print("\n".join(errors), file=sys.stderr)
            raise SystemExit(f"error: {len(errors)} of {len(job_overrides)} jobs are wrong; none was started.")
        returns = []
        jobs: dict[Path, Job] = {}
        folders = job_folders(Path(self.config.hydra.sweep.dir), [cfg for *_, cfg in checked])
        for folder, (name, composed, cfg), overrides in zip(folders, checked, job_overrides, strict=True):
            job = jobs.setdefault(folder, Job(name, command(composed.hydra, folder), folder, cfg))
            if is_complete(cfg, folder):
                job.state, job.note = "finished before", score(job)
            returns.append((folder, JobReturn(overrides=overrides, cfg=composed)))
        return returns, jobs


def command(hydra: DictConfig, folder: Path) -> list[str]:
    """Return the command by which a user would run a job alone."""
    script = str(Path(sys.modules["__main__"].__file__ or "").resolve())
    words = [sys.executable, script, "--config-name", hydra.job.config_name]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            words += ["--config-dir", source.path]
    where = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [*words, *hydra.overrides.task, "hydra.mode=RUN", f"hydra.run.dir='{where}'"]


def check(cfg: TrainConfig) -> None:
    """Refuse what a job would refuse as soon as it has started. Raises `ValueError`."""
    from cyclenet.data.base import find_root

    find_root(cfg.dataset)
    if cfg.trainer.num_nodes > 1:
        raise ValueError("trainer.num_nodes: hydra/launcher=process has one machine; use hydra/launcher=submitit_slurm.")
    if cfg.trainer.devices != "auto":
        processes = int(cfg.trainer.devices)
        if cfg.dataset.batch_size % processes:
            raise ValueError(f"dataset.batch_size ({cfg.dataset.batch_size}) must be divisible by the {processes} processes.")


def visible_gpus() -> list[str]:
    """List the GPUs that jobs may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # CUDA takes no notice of what comes after a name of no GPU: -1 is none at all.
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), named.split(",")))
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def run_all(jobs: list[Job], n_jobs: int, gpus: list[str], grace_seconds: float) -> None:
    """Run the jobs that wait, in their order as there is room; return when all have ended. Their states and notes say how.

    Args:
        jobs: of the sweep.
        n_jobs: at a time; 0: as many as the GPUs allow, one without GPUs.
        gpus: to hand out. A job that wants more than there are gets all.
        grace_seconds: between a signal that is passed on to the jobs and their end by force.

    Raises:
        SystemExit: SIGINT or SIGTERM came.
    """
    from cyclenet.data.loader import cores

    free, stops = list(gpus), []
    handlers = {number: signal.signal(number, lambda n, frame: stops.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = max(cores() // n_jobs, 1) if n_jobs > 1 and not gpus else 0
    deadline = float("inf")
    table = Table(jobs)
    try:
        while True:
            for job in jobs:
                if job.process and job.process.poll() is not None:
                    free += job.gpus
                    finish(job)
            for job in jobs if not stops else []:
                wanted = len(gpus) if job.wanted_gpus < 0 else min(job.wanted_gpus, len(gpus))
                room = n_jobs or (len(jobs) if wanted else 1)
                if job.state == "waiting" and wanted <= len(free) and sum(bool(job.process) for job in jobs) < room:
                    job.gpus, free = free[:wanted], free[wanted:]
                    start(job, threads)
            running = [job.process for job in jobs if job.process]
            table.show()
            if not running:
                break
            if stops and deadline == float("inf"):
                deadline = time.monotonic() + grace_seconds
                for process in running:
                    process.send_signal(stops[0])
            if len(stops) > 1 or time.monotonic() > deadline:
                for process in running:
                    process.kill()
            time.sleep(0.2)
    finally:
        table.close()
        for job in jobs:
            if job.process:
                job.process.kill()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if stops:
        left = sum(job.state not in DONE for job in jobs)
        print(f"Stopped by {signal.Signals(stops[0]).name}; {left} of {len(jobs)} jobs are left. The same command goes on.")
        raise SystemExit(128 + stops[0])


def start(job: Job, threads: int) -> None:
    """Start a job, in a process group of its own: a Ctrl-C reaches it once, from here."""
    environment = {**os.environ, JOB: str(os.getpid())}
    if job.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(job.gpus)
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "progress.json").unlink(missing_ok=True)
    if read_result(job.folder).get("status") != "finished":  # It says nothing of this start.
        (job.folder / "result.json").unlink(missing_ok=True)
    with (job.folder / "train.log").open("ab") as log:
        job.started, job.started_at, job.log_start = time.monotonic(), time.time(), log.tell()
        job.process = subprocess.Popen(
            job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0
        )
    job.state = "running"


def finish(job: Job) -> None:
    """Note how a job ended: by its result file, for its exit code does not tell."""
    assert job.process is not None
    code, job.process = job.process.returncode, None
    job.seconds = time.monotonic() - job.started
    path = job.folder / "result.json"
    # After an error, one of an earlier time says nothing.
    valid = path.exists() and (code == 0 or path.stat().st_mtime >= job.started_at)
    result = read_result(job.folder) if valid else {}
    job.state = result.get("status", "failed")
    if job.state == "finished":
        job.note = score(job)
    elif job.state == "failed":
        log = job.folder / "train.log"
        lines = log.read_bytes()[job.log_start :].decode(errors="replace").splitlines()
        # The first: another process of the job may have had the error, and the one that writes results no more than lost it.
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        error = said[0] if said else result.get("error", "")
        if not error and code < 0:
            job.state, error = "killed", f"by {signal.Signals(-code).name}"
        elif not error and code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            job.state, error = "interrupted", "before it began to train"  # Else it would have left a result that says so.
        job.note = f"{error or f'exit code {code}'} (see {log})"


def score(job: Job) -> str:
    """Format a finished job's mIoU."""
    value = read_result(job.folder).get("metrics", {}).get("val/mIoU")
    return "" if value is None else f"mIoU {100 * value:.2f} %"


class Table:
    """The state of all jobs: a live table in a terminal, elsewhere a line for each change."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.shown: dict[str, str] = {}
        console = Console()
        self.live = Live(console=console, auto_refresh=False, get_renderable=self._render) if console.is_terminal else None
        if self.live:
            self.live.start()

    def show(self) -> None:
        """Bring it up to date."""
        if self.live:
            self.live.refresh()
            return
        for number, job in enumerate(self.jobs, 1):
            if job.state != "waiting" and self.shown.get(job.name) != job.state:
                took = f", {job.seconds:.0f} s" if job.seconds else ""
                print(f"[{number}/{len(self.jobs)}] {job.name}: {job.state}{took} {job.note or job.folder}", flush=True)
                self.shown[job.name] = job.state

    def close(self) -> None:
        """Leave the last state in the terminal."""
        if self.live:
            self.live.refresh()
            self.live.stop()

    def _render(self) -> rich.table.Table:
        table = rich.table.Table("job", "state", "epoch", "mIoU", "time left", "")
        for job in self.jobs:
            now = read_progress(job.folder) if job.process else {}
            epoch = f"{now['epoch']}/{now['epochs']}" if now else ""
            value = f"{100 * now['mIoU']:.2f} %" if now.get("mIoU") is not None else ""
            left = str(timedelta(seconds=now["seconds_left"])) if now.get("seconds_left") is not None else ""
            table.add_row(job.name, now.get("stage", job.state), epoch, value, left, job.note)
        return table
