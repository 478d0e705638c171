"""The state of all jobs of a sweep, in the terminal."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import rich.table
from rich.console import Console
from rich.live import Live

from cyclenet.training.progress import read_progress


class ShownJob(Protocol):
    """What the table reads of a job (`cyclenet.lab.sweeps.run_jobs.Job`)."""

    name: str
    folder: Path
    state: str
    note: str
    seconds: float


class JobTable:
    """A live table in a terminal, elsewhere a line for each change."""

    def __init__(self, jobs: Sequence[ShownJob]) -> None:
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
