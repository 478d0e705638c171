"""The report while runs are in progress: how far each is, and a page that is written repeatedly."""

import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cyclenet.files import atomic_write
from cyclenet.lab.markdown import NONE, code, markdown_table
from cyclenet.lab.report.charts import Curve, curves_chart
from cyclenet.lab.report.runs import Run, read_curve
from cyclenet.training.progress import read_progress

MOST_PICTURES = 4
SILENT_IS_DEAD = 60  # Minutes of silence after which a run counts as killed.

HEAD = ["run", "state", "epoch", "step", "loss", "val mIoU, %", "minutes left"]


def watch(
    find: Callable[[], list[Run]], write: Callable[[list[Run], float], Path], every: float
) -> Path:
    """Write a report repeatedly until no run is in progress, then once without refreshing.

    Args:
        find: reads the runs; it raises `ValueError` where there is none yet.
        write: writes the report, given the runs and the seconds after which a browser loads the
            page again; while runs are in progress, it raises `ValueError` where none of them has
            what is asked for yet.
        every: seconds between reports.
    """
    told = False
    while True:
        active = True
        try:
            runs = find()
            active = any(_in_progress(run) for run in runs)
            page = write(runs, every if active else 0)
        except ValueError as error:
            if not active:
                raise
            print(f"Waiting: {error}", flush=True)
        else:
            if not active:
                return page
            if not told:
                rule = f"it is written every {every:g} s (Ctrl-C ends it)"
                print(f"{page}: open it in a browser; {rule}", flush=True)
                told = True
        time.sleep(every)


def _in_progress(run: Run) -> bool:
    return run.status == "unfinished" and _silent_minutes(run.folder) < SILENT_IS_DEAD


def _silent_minutes(folder: Path) -> float:
    # A run that has just begun is silent since its folder was made.
    path = folder / "progress.json"
    return (time.time() - (path if path.is_file() else folder).stat().st_mtime) / 60


def describe_progress(runs: list[Run], output: Path) -> list[str]:
    """Describe the runs in progress: how far each is, its curves, its last validation picture."""
    active = [run for run in runs if run.status == "unfinished"]
    living = sum(map(_in_progress, active))
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    parts = [f"Written {now}. {living} of {len(runs)} runs are in progress."]
    if active:
        table = markdown_table(HEAD, [_line(run.folder) for run in active])
        parts += ["## In progress", table]
    parts += _curves(active, "train/loss", output / "progress_loss.svg", "training loss", 1)
    parts += _curves(active, "val/mIoU", output / "progress_learning.svg", "val mIoU, %", 100)
    return parts + _pictures(active, output)


def _line(folder: Path) -> list[str]:
    state, silent = read_progress(folder), _silent_minutes(folder)
    _, losses = read_curve(folder, "train/loss")
    _, scores = read_curve(folder, "val/mIoU")
    stage = state.stage if state else "starting"
    if silent > 5:
        stage += f", silent for {silent:.0f} min"
    left = state.seconds_left if state else None
    return [
        code(folder.name),
        stage,
        f"{state.epoch} of {state.epochs}" if state else NONE,
        f"{state.step} of {state.steps}" if state else NONE,
        f"{losses[-1]:.3f}" if losses else NONE,
        f"{100 * scores[-1]:.2f}" if scores else NONE,
        NONE if left is None else f"{left / 60:.0f}",
    ]


def _curves(runs: list[Run], column: str, path: Path, label: str, scale: float) -> list[str]:
    curves = []
    for run in runs:
        steps, values = read_curve(run.folder, column)
        if steps:
            curves.append(Curve(run.folder.name, [steps], [[scale * v for v in values]]))
    if not curves:
        return []
    curves_chart(path, curves, "optimizer step", label)
    return [f"![{label} by step]({path.name})"]


def _pictures(runs: list[Run], output: Path) -> list[str]:
    found = [run for run in runs if (run.folder / "validation.png").is_file()][:MOST_PICTURES]
    parts = []
    for number, run in enumerate(found):
        name = f"progress{number}.png"
        with atomic_write(output / name) as copy:
            shutil.copyfile(run.folder / "validation.png", copy)
        parts.append(
            f"{code(run.folder.name)}, last validation:\n\n![image, truth, prediction]({name})"
        )
    return parts
