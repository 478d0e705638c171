"""The report while runs are in progress: how far each is, and a page that is written again and again."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cyclenet.lab.report.comparison import Run, read_curve
from cyclenet.lab.report.page import markdown_table
from cyclenet.plots.charts import Curve, curves_picture
from cyclenet.runs.results import read_progress


def watch(find: Callable[[], list[Run]], write: Callable[[list[Run], float], Path], every: float) -> Path:
    """Write a report again and again until no run is in progress, then once more without refreshing.

    A run that was killed counts as in progress until it has been silent for an hour.

    Args:
        find: reads the runs; where it raises `ValueError`, there is none yet.
        write: writes the report, given the runs and the seconds after which the page is loaded again; where it raises
            `ValueError` while runs are in progress, none of them has what is asked for yet.
        every: seconds between reports.
    """
    told = False
    while True:
        active = True
        try:
            runs = find()
            active = any(run.status == "unfinished" and _silent_minutes(run.folder) < 60 for run in runs)
            page = write(runs, every if active else 0)
        except ValueError as error:
            if not active:
                raise
            print(f"Waiting: {error}", flush=True)
            time.sleep(every)
            continue
        if not active:
            return page
        if not told:
            print(f"{page}: open it in a browser; it is written every {every:g} s (Ctrl-C ends it)", flush=True)
            told = True
        time.sleep(every)


def progress(runs: list[Run], output: Path) -> list[str]:
    """Describe the runs in progress: how far each is, its curves, and its last validation picture."""
    active = [run for run in runs if run.status == "unfinished"]
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    parts = [f"Written {now}. {len(active)} of {len(runs)} runs in progress."]
    lines: list[list[str]] = []
    loss: list[Curve] = []
    score: list[Curve] = []
    pictures: list[str] = []
    for number, run in enumerate(active):
        state, silent = read_progress(run.folder), _silent_minutes(run.folder)
        x, y = read_curve(run.folder, "train/loss")
        if x:
            loss.append(Curve(run.folder.name, [x], [y]))
        validated, values = read_curve(run.folder, "val/mIoU")
        if validated:
            score.append(Curve(run.folder.name, [validated], [[100 * value for value in values]]))
        left = state.get("seconds_left")
        lines.append(
            [
                f"`{run.folder.name}`",
                str(state.get("stage", "starting")) + (f", silent for {silent:.0f} min" if silent > 5 else ""),
                f"{state.get('epoch', 0)} of {state.get('epochs', '?')}",
                f"{state.get('step', 0)} of {state.get('steps', '?')}",
                f"{y[-1]:.3f}" if y else "–",
                f"{100 * values[-1]:.2f}" if values else "–",
                f"{left / 60:.0f}" if left is not None else "–",
            ]
        )
        picture = run.folder / "validation.png"
        if picture.is_file() and len(pictures) < 4:
            (output / f"progress{number}.png").write_bytes(picture.read_bytes())
            pictures.append(f"`{run.folder.name}`, last validation:\n\n![image, truth, prediction](progress{number}.png)")
    if lines:
        head = ["run", "state", "epoch", "step", "loss", "val mIoU, %", "minutes left"]
        parts += ["## In progress", markdown_table(head, lines)]
    for name, label, curves in (("progress_loss", "training loss", loss), ("progress_learning", "val mIoU, %", score)):
        if curves:
            curves_picture(output / f"{name}.svg", curves, "optimizer step", label)
            parts.append(f"![{label} by step]({name}.svg)")
    return parts + pictures


def _silent_minutes(folder: Path) -> float:
    # Of a run that has just begun, since its folder was made.
    path = folder / "progress.json"
    return (time.time() - (path if path.is_file() else folder).stat().st_mtime) / 60
