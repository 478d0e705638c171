"""What a sweep (-m, or an experiment that sets MULTIRUN) does beyond its jobs: it ends in a report."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class ReportAfterSweep(Callback):
    """Note each job's run folder, and compare the runs when all have ended (`cyclenet.report`)."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        assert job_return.hydra_cfg is not None
        self.folders.append(Path(job_return.hydra_cfg.hydra.runtime.output_dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if not self.folders:
            return
        name = config.hydra.runtime.choices.experiment or config.name
        output = self.folders[0].parent / f"report-{name}-{config.hydra.runtime.choices.dataset}"
        stamp, state = output / "inputs.txt", inputs(self.folders)
        if stamp.is_file() and stamp.read_text() == state:
            print(f"Report: {output / 'report.html'}")  # Made from the same results before.
            return
        from cyclenet.comparison import read_run
        from cyclenet.report import write_report

        runs = [read_run(folder) for folder in dict.fromkeys(self.folders)]
        try:
            print(f"Report: {write_report(runs, output, f'{name} on {config.hydra.runtime.choices.dataset}')}")
            stamp.write_text(state)
        except ValueError as error:
            print(f"No report: {error}", file=sys.stderr)


def inputs(folders: list[Path]) -> str:
    """List the results of runs with their digests, a line each: what a report is made from."""
    files = [path for f in folders for path in (f / "result.json", *sorted(f.glob("evaluate/*/scores.json")))]
    return "".join(f"{hashlib.blake2b(p.read_bytes()).hexdigest()} {p}\n" if p.is_file() else f"- {p}\n" for p in files)
