"""What a sweep (-m, or an experiment that sets MULTIRUN) ends in: a report and an exit code."""

import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cyclenet.config.load import to_config
from cyclenet.config.schema import TrainConfig
from cyclenet.files import read_text
from cyclenet.lab.sweeps.jobs import FAILED, swept_jobs
from cyclenet.runs.results import missing_protocols, read_result


class ReportAfterSweep(Callback):
    """When all jobs of a sweep have ended, compare the runs; exit with 1 if one is not complete.

    Args:
        choose: a key of the configuration whose best value for each network is written to
            ``chosen.yaml`` beside the report; "" for none.
    """

    def __init__(self, choose: str = "") -> None:
        self.choose = choose

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            swept = swept_jobs(config)
        except ValueError as error:
            print(f"No report: {error}", file=sys.stderr)
            return
        folders = [folder for folder, _ in swept]
        failed = not all(_is_done(folder, composed) for folder, composed in swept)
        choices = config.hydra.runtime.choices
        title = f"{choices.experiment or config.name} on {choices.dataset}"
        try:
            from cyclenet.lab.report.runs import find_runs, read_run
            from cyclenet.lab.report.write import write_report
            from cyclenet.lab.sweeps.choose import write_chosen

            runs = [read_run(folder) for folder in dict.fromkeys(folders)]
            output = folders[0].parent / f"report-{title.replace(' on ', '-')}"
            page = write_report(runs, output, title)
            print(results_of(page))
            print(f"Report: {page}")
            if self.choose:
                earlier = find_runs([folders[0].parent])
                print(write_chosen(runs, self.choose, page.with_name("chosen.yaml"), earlier))
        except ValueError as error:
            print(f"No report: {error}", file=sys.stderr)
        except Exception:  # Hydra would make a warning of it, and forget the exit code.
            traceback.print_exc()
            failed = True
        for folder, jobs in Counter(folders).items():
            if jobs > 1:
                print(
                    f"Note: {jobs} jobs were one run, since they set the same values: {folder.name}"
                )
        if failed:
            raise SystemExit(1)


def results_of(page: Path) -> str:
    """Return the table of results of a report, for a terminal."""
    text = read_text(page.with_name("report.md"))
    table = text.split("## Results", 1)[-1].strip().split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    shown = [row[:5] for number, row in enumerate(rows) if number != 1]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )


def _is_done(folder: Path, composed: DictConfig) -> bool:
    """Tell whether a job has finished, with all evaluations that are asked for."""
    if folder in FAILED or not read_result(folder).finished:
        return False
    try:
        return not missing_protocols(to_config(TrainConfig, composed), folder)
    except ValueError:  # The result names a folder that is none of the run's.
        return False
