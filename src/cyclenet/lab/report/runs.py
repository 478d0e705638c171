"""Read run folders, whatever they hold."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException

from cyclenet.config.restore import read_config
from cyclenet.config.schema import TrainConfig
from cyclenet.lab.report.evaluations import Evaluation, read_evaluation
from cyclenet.runs.results import RunResult, evaluation_folder, read_result
from cyclenet.training.curves import read_metrics

CONFIGS = ("config.yaml", ".hydra/config.yaml")
MARKS = (*CONFIGS, "result.json", "train.log")
"""Files by which a folder is known as a run; a sweep's job has a train.log first of all."""


@dataclass
class Run:
    """A run folder.

    Attributes:
        folder: its path.
        cfg: its configuration; None where there is none that can be read.
        result: what its result file holds.
        evaluations: those that its result file names, by the protocol's name, its own first; a
            second rule of one name is called by all that it says.
        problem: why it, or a part of it, is not compared; "" where all is.
    """

    folder: Path
    cfg: TrainConfig | None = None
    result: RunResult = field(default_factory=RunResult)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    problem: str = ""

    @property
    def status(self) -> str:
        """finished, failed, interrupted, or unfinished where there is no result file."""
        return self.result.status

    @property
    def config(self) -> TrainConfig:
        """The configuration of a finished run, which has one."""
        assert self.cfg is not None
        return self.cfg

    @property
    def finished(self) -> bool:
        """Whether there is something to compare."""
        return self.result.finished and bool(self.evaluations)


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Read run folders, or all that lie below a folder, in the order they were finished.

    Raises:
        ValueError: there is no path, one does not exist, or nothing below it is a run.
    """
    if not paths:
        raise ValueError("runs is empty: give run folders, or a folder that holds them.")
    folders: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise ValueError(
                f"There is no folder {path}: give run folders, or a folder that holds them."
            )
        found = _search(path.resolve())
        if not found:
            raise ValueError(f"{path} holds no runs (folders with a config.yaml).")
        folders += [folder for folder in found if folder not in folders]
    return sorted(map(read_run, folders), key=_end)


def _end(run: Run) -> float:
    end = run.result.finished_at
    return float("inf") if end is None else end


def _search(path: Path) -> list[Path]:
    # The search does not go below a run, where loggers have config.yaml files of their own.
    if any((path / name).is_file() for name in MARKS):
        return [path]
    # A folder that is still being written has a hidden name.
    folders = [each for each in sorted(path.iterdir()) if each.is_dir() and each.name[0] != "."]
    return [run for folder in folders for run in _search(folder)]


def keep_protocols(runs: list[Run], protocols: Sequence[str]) -> None:
    """Leave of each run only the evaluations by these protocols.

    Raises:
        ValueError: runs were evaluated, but none by one of them.
    """
    there = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    for name in protocols:
        if there and name not in there:
            raise ValueError(f"No run was evaluated by {name!r}; there are: {', '.join(there)}.")
    for run in runs:
        run.evaluations = {k: found for k, found in run.evaluations.items() if k in protocols}
        if run.result.finished and not run.evaluations:
            run.problem = run.problem or f"was not evaluated by {' or '.join(protocols)}"


def read_run(folder: Path) -> Run:
    """Read what a run left, however far it came."""
    result = read_result(folder)
    run = Run(folder, result=result, problem=result.error or "")
    for name in CONFIGS:
        try:
            run.cfg = read_config(folder / name)
            break
        except OSError:
            continue
        except (ValueError, OmegaConfBaseException) as error:
            # It is cut off, of another version, or the wrong one that the job failed for.
            run.problem = run.problem or f"{name}: {str(error).splitlines()[0]}"
    if run.cfg is not None and result.finished:
        _read_evaluations(run, run.cfg.protocol.describe())
    return run


def _read_evaluations(run: Run, own: str) -> None:
    # Only those that the result names are read: what was evaluated by hand may be of fewer images,
    # or by other rules under the same name.
    named = run.result.evaluations
    if not named:
        run.problem = "was not evaluated (dataset.val_split=null, or an earlier version)"
    found = []
    for where in named.values():
        try:
            found.append(read_evaluation(evaluation_folder(run.folder, where)))
        except Exception as error:  # A damaged file raises a dozen kinds.
            kind = type(error).__name__
            run.problem = f"{where} cannot be used ({kind}): run the same training command again"
    found.sort(key=lambda each: each.scores.protocol != own)
    for each in found:
        name = each.scores.protocol_name
        run.evaluations[each.scores.protocol if name in run.evaluations else name] = each


def read_curve(folder: Path, column: str) -> tuple[list[float], list[float]]:
    """Return (optimizer steps, values) of a column of ``metrics.csv``; empty where none is."""
    steps, values = [], []
    path = folder / "metrics.csv"
    if path.is_file():
        for row in read_metrics(path):
            if column in row:
                steps.append(float(row["step"]) + 1)  # Rows are numbered from 0.
                values.append(float(row[column]))
    return steps, values
