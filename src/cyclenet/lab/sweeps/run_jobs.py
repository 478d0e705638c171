"""Run the jobs of a sweep in processes, several at a time where there is room."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console
from rich.live import Live

from cyclenet.config.schema import TrainConfig
from cyclenet.devices import cores
from cyclenet.processes import JOB, requeue_signals, stop_signals
from cyclenet.runs.results import RunResult, is_marked, read_result
from cyclenet.training.progress import read_progress

DONE = ("finished", "finished before")
POLL_SECONDS = 0.2


@dataclass
class Job:
    """One run of the sweep. Jobs that set the same values are one.

    Attributes:
        name: what tells it from the others.
        command: the command that runs it.
        folder: its run folder.
        cfg: its configuration.
        state: waiting, running, or how it ended.
        note: its score, or its error.
        process: its process, while it runs.
        gpus: the GPUs that it has.
        started: when it was started, by the monotonic clock.
        started_at: the same by the clock of files.
        log_start: bytes of the log that are of earlier starts.
        seconds: how long it ran.
    """

    name: str
    command: list[str]
    folder: Path
    cfg: TrainConfig
    state: str = "waiting"
    note: str = ""
    process: subprocess.Popen[bytes] | None = None
    gpus: list[str] = field(default_factory=list)
    started: float = 0.0
    started_at: float = 0.0
    log_start: int = 0
    seconds: float = 0.0

    @property
    def wanted_gpus(self) -> int:
        """GPUs of one node that it wants; -1 for all."""
        if self.cfg.trainer.accelerator in ("cpu", "mps"):
            return 0
        return -1 if self.cfg.trainer.devices == "auto" else int(self.cfg.trainer.devices)

    @property
    def log(self) -> Path:
        """What the job prints."""
        return self.folder / "train.log"


class StopSignals:
    """Note the signals that end a training, pass them on, and kill jobs that do not end in time.

    Args:
        grace_seconds: time between a signal and the end by force. A second signal does not wait.
    """

    def __init__(self, grace_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self.noted: list[int] = []
        self.deadline: float | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in stop_signals():
            self.handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *args: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.noted.append(number)

    def pass_on(self, running: "list[subprocess.Popen[bytes]]") -> None:
        """Tell the running jobs to end, if a signal came."""
        if not self.noted:
            return
        if self.deadline is None:
            self.deadline = time.monotonic() + self.grace_seconds
            # A signal that announces a time limit is this process's: the jobs are to end.
            number = self.noted[0] if self.noted[0] == signal.SIGINT else signal.SIGTERM
            for process in running:
                process.send_signal(number)
        if len(self.noted) > 1 or time.monotonic() > self.deadline:
            for process in running:
                process.kill()


def run_all(jobs: list[Job], n_jobs: int, gpus: list[str], grace_seconds: float) -> None:
    """Run the jobs that wait, in their order as there is room, until all have ended.

    Their states and notes then say how.

    Args:
        jobs: jobs of the sweep.
        n_jobs: jobs at a time; 0 runs as many as the GPUs allow, one without GPUs.
        gpus: GPUs to hand out. A job that wants more than there are gets all.
        grace_seconds: time between a signal that is passed on to the jobs and their end by force.

    Raises:
        SystemExit: a signal came (`cyclenet.processes.stop_signals`).
    """
    threads = max(cores() // n_jobs, 1) if n_jobs > 1 and not gpus else 0
    free, table = list(gpus), JobTable(jobs)
    with StopSignals(grace_seconds) as stops:
        try:
            while True:
                for job in jobs:
                    if job.process and job.process.poll() is not None:
                        free += job.gpus
                        finish(job)
                if not stops.noted:
                    free = _start_what_fits(jobs, n_jobs, gpus, free, threads)
                running = [job.process for job in jobs if job.process]
                table.show()
                if not running:
                    break
                stops.pass_on(running)
                time.sleep(POLL_SECONDS)
        finally:
            table.close()
            _end([job.process for job in jobs if job.process], grace_seconds)
    if stops.noted:
        left = sum(job.state not in DONE for job in jobs)
        print(
            f"Stopped by {signal.Signals(stops.noted[0]).name}; {left} of {len(jobs)} jobs are "
            "left. The same command continues."
        )
        if stops.noted[0] in requeue_signals() and callable(stops.handlers[stops.noted[0]]):
            stops.handlers[stops.noted[0]](stops.noted[0], None)  # It queues the sweep again.
        raise SystemExit(128 + stops.noted[0])


def _end(running: "list[subprocess.Popen[bytes]]", grace_seconds: float) -> None:
    """End jobs that still run after an error: they have time to save."""
    for process in running:
        process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in running:
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()


def _start_what_fits(
    jobs: list[Job], n_jobs: int, gpus: list[str], free: list[str], threads: int
) -> list[str]:
    """Start the waiting jobs that there is room for; return the GPUs that are still free."""
    for job in jobs:
        wanted = min(job.wanted_gpus, len(gpus)) if job.wanted_gpus >= 0 else len(gpus)
        room = n_jobs or (len(jobs) if wanted else 1)
        running = sum(bool(each.process) for each in jobs)
        if job.state == "waiting" and wanted <= len(free) and running < room:
            job.gpus, free = free[:wanted], free[wanted:]
            try:
                start(job, threads)
            except OSError as error:  # The others go on.
                job.state, job.note = "failed", str(error)
                free += job.gpus
    return free


def start(job: Job, threads: int) -> None:
    """Start a job, in a process group of its own: a Ctrl-C reaches it once, from here."""
    environment = {**os.environ, JOB: str(os.getpid())}
    if job.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(job.gpus)
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    job.folder.mkdir(parents=True, exist_ok=True)
    if is_marked(job.folder):
        (job.folder / "progress.json").unlink(missing_ok=True)
        if not read_result(job.folder).finished:  # It says nothing of this start.
            (job.folder / "result.json").unlink(missing_ok=True)
    with job.log.open("ab") as log:
        job.started, job.started_at = time.monotonic(), time.time()
        job.log_start = log.tell()
        job.process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
        )
    job.state = "running"


def finish(job: Job) -> None:
    """Note how a job ended, by its result file: its exit code does not tell."""
    assert job.process is not None
    code, job.process = job.process.returncode, None
    job.seconds = time.monotonic() - job.started
    path = job.folder / "result.json"
    # After an error, a result of an earlier start says nothing.
    valid = path.exists() and (code == 0 or path.stat().st_mtime >= job.started_at)
    result = read_result(job.folder) if valid else RunResult("failed")
    job.state = result.status
    if job.state == "finished":
        job.note = score_of(job.folder)
    elif job.state in ("failed", "unfinished"):
        job.state = "failed"
        error = _first_error(job) or result.error or ""
        if not error and code < 0:
            job.state, error = "killed", f"by {signal.Signals(-code).name}"
        elif not error and code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            # A job that had begun to train would have left a result that says so.
            job.state, error = "interrupted", "before it began to train"
        job.note = f"{error or f'exit code {code}'} (see {job.log})"


def _first_error(job: Job) -> str:
    """Return the first error that this start of a job printed, "" where there is none.

    The error may be another process's: the one that writes results then says only that it was lost.
    """
    try:
        text = job.log.read_bytes()[job.log_start :].decode(errors="replace")
    except OSError:  # It was removed meanwhile.
        return ""
    said = [line for line in text.splitlines() if line.startswith("error: ")]
    return said[0].removeprefix("error: ") if said else ""


def score_of(folder: Path) -> str:
    """Format a finished job's mIoU."""
    score = read_result(folder).score
    return "" if score is None else f"mIoU {100 * score:.2f} %"


class JobTable:
    """The state of all jobs: a live table in a terminal, elsewhere a line for each change."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.shown: dict[str, str] = {}
        console = Console()
        self.live: Live | None = None
        if console.is_terminal:
            self.live = Live(console=console, auto_refresh=False, get_renderable=self._render)
            self.live.start()

    def show(self) -> None:
        """Bring it up to date."""
        if self.live:
            self.live.refresh()
            return
        for number, job in enumerate(self.jobs, 1):
            if job.state != "waiting" and self.shown.get(job.name) != job.state:
                took = f", {job.seconds:.0f} s" if job.seconds else ""
                where = f"[{number}/{len(self.jobs)}] {job.name}"
                print(f"{where}: {job.state}{took} {job.note or job.folder}", flush=True)
                self.shown[job.name] = job.state

    def close(self) -> None:
        """Leave the last state in the terminal."""
        if self.live:
            self.live.refresh()
            self.live.stop()

    def _render(self) -> rich.table.Table:
        table = rich.table.Table("job", "state", "epoch", "mIoU", "time left", "")
        for job in self.jobs:
            now = read_progress(job.folder) if job.state == "running" else None
            if now is None:
                table.add_row(job.name, job.state, "", "", "", job.note)
                continue
            score = "" if now.mIoU is None else f"{100 * now.mIoU:.2f} %"
            left = "" if now.seconds_left is None else str(timedelta(seconds=now.seconds_left))
            epoch = f"{now.epoch}/{now.epochs}"
            table.add_row(job.name, now.stage, epoch, score, left, job.note)
        return table
