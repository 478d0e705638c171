"""What a sweep (-m, or an experiment that sets MULTIRUN) does beyond its jobs: it ends in a report."""

import hashlib
import sys
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cyclenet.config import TrainConfig, flat, run_folder, to_config
from cyclenet.runs.results import missing, read_result


class ReportAfterSweep(Callback):
    """When all jobs of a sweep have ended, compare the runs (`cyclenet.lab.report.write`); exit with 1 if one is not complete."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        swept = swept_jobs(config)
        self.folders = [folder for folder, _ in swept]
        self.failed = not all(is_done(folder, composed) for folder, composed in swept)
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
        from cyclenet.lab.report.comparison import read_run
        from cyclenet.lab.report.write import write_report

        write_report([read_run(folder) for folder in dict.fromkeys(self.folders)], output, title)
        stamp.write_text(state)
        return page


def swept_jobs(config: DictConfig) -> list[tuple[Path, DictConfig]]:
    """Return the run folder and the configuration of each job, composed again: some launchers run jobs out of sight."""
    axes = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*axes, *config.hydra.overrides.task])
    jobs = [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
    composed = [compose(config.hydra.job.config_name, job) for job in jobs]
    root = Path(config.hydra.sweep.dir)
    if "ProcessLauncher" in config.hydra.launcher._target_:
        return list(zip(job_folders(root, [to_config(TrainConfig, each) for each in composed]), composed, strict=True))
    return [(root / run_folder(each), each) for each in composed]


def is_done(folder: Path, composed: DictConfig) -> bool:
    """Tell whether a job has finished, with all evaluations that are asked for."""
    result = read_result(folder)
    return result.get("status") == "finished" and not missing(to_config(TrainConfig, composed), result)


def job_folders(root: Path, configs: list[TrainConfig]) -> list[Path]:
    """Name the run folder of each job of a sweep, as `run_folder` does.

    Jobs that differ in what changes no result (devices, workers) get folders of their own, with the difference at the end of
    the name; jobs that are alike share one.
    """
    known: dict[str, dict[str, Any]] = {}
    folders = []
    for cfg in configs:
        values, name = flat(asdict(cfg)), run_folder(OmegaConf.structured(cfg))
        first = known.setdefault(name, values)
        for key in values:
            if values[key] != first[key]:
                name += f"-{key.rsplit('.', 1)[-1]}={values[key]}"
        folders.append(root / name)
    return folders


def inputs(folders: list[Path]) -> str:
    """List the results of runs with their digests, a line each: what a report is made from."""
    files = [path for f in folders for path in (f / "result.json", *sorted(f.glob("evaluate/*/scores.json")))]
    return "".join(f"{hashlib.blake2b(p.read_bytes()).hexdigest()} {p}\n" if p.is_file() else f"- {p}\n" for p in files)
