"""What a sweep (-m, or an experiment that sets MULTIRUN) does beyond its jobs: it ends in a report."""

import hashlib
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class ReportAfterSweep(Callback):
    """Note each job's run folder; when all have ended, compare the runs (`cyclenet.report`), and exit with 1 if one failed."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.failed = False

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        assert job_return.hydra_cfg is not None
        self.folders.append(Path(job_return.hydra_cfg.hydra.runtime.output_dir))
        self.failed |= job_return.return_value is False

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        choices = config.hydra.runtime.choices
        title = f"{choices.experiment or config.name} on {choices.dataset}"
        try:
            print(f"Report: {self._report(title)}")
        except ValueError as error:
            print(f"No report: {error}", file=sys.stderr)
        except Exception:  # Hydra would make a warning of it, and forget the exit code.
            traceback.print_exc()
            self.failed = True
        for folder, jobs in Counter(self.folders).items():
            if jobs > 1:
                print(f"Note: {jobs} jobs were one run, since they set the same values: {folder.name}")
        if self.failed:
            raise SystemExit(1)

    def _report(self, title: str) -> Path:
        output = self.folders[0].parent / f"report-{title.replace(' on ', '-')}"
        page, stamp, state = output / "report.html", output / "inputs.txt", inputs(self.folders)
        if page.is_file() and stamp.is_file() and stamp.read_text() == state:
            return page  # Made from the same results before.
        from cyclenet.comparison import read_run
        from cyclenet.report import write_report

        write_report([read_run(folder) for folder in dict.fromkeys(self.folders)], output, title)
        stamp.write_text(state)
        return page


def inputs(folders: list[Path]) -> str:
    """List the results of runs with their digests, a line each: what a report is made from."""
    files = [path for f in folders for path in (f / "result.json", *sorted(f.glob("evaluate/*/scores.json")))]
    return "".join(f"{hashlib.blake2b(p.read_bytes()).hexdigest()} {p}\n" if p.is_file() else f"- {p}\n" for p in files)
