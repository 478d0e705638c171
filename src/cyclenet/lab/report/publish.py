"""Keep what a report needs of runs, and no more; or hold a run against its published self."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from cyclenet.config.identity import result_affecting
from cyclenet.files import read_text, safe_name, write_text
from cyclenet.lab.report.evaluations import Evaluation, read_evaluation
from cyclenet.lab.report.runs import Run, read_run
from cyclenet.runs.results import RunResult, read_result

KEPT = ("config.yaml", "metrics.csv", "visualize/analysis.json", "evaluate/*/scores.json")
MADE = (*KEPT, "result.json", "evaluate/*/images.npz")  # What a published run consists of.


def check_publishable(folders: list[Path], output: Path) -> None:
    """Refuse runs that would replace each other or something else.

    Raises:
        ValueError: two runs have one name, a run lies in ``output``, or a folder there holds files
            that are not of a published run.
    """
    for name, count in Counter(folder.name for folder in folders).items():
        if count > 1:
            raise ValueError(f"{count} of the runs are called {name}: rename all but one.")
    for folder in folders:
        if folder.resolve().is_relative_to(output.resolve()):
            raise ValueError(
                f"{folder} lies in {output}, where runs are published: give the run folder that "
                "training wrote."
            )
        _check_replaceable(output / folder.name)


def publish(folder: Path, output: Path) -> None:
    """Copy a run's configuration, result, curves, scores and counts.

    A run that failed keeps its place, with its error. What was published before stands until the
    new copy is whole.

    Raises:
        ValueError: a file of the run is damaged.
    """
    target, fresh, old = (output / f"{prefix}{folder.name}" for prefix in ("", ".new-", ".old-"))
    if old.is_dir() and not target.exists():
        old.replace(target)  # A kill came between the two renamings.
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    for path in sorted(path for pattern in KEPT for path in folder.glob(pattern)):
        copy = fresh / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.name not in ("scores.json", "analysis.json"):
            shutil.copyfile(path, copy)
            continue
        try:
            values = json.loads(read_text(path))
            # Where the checkpoint lay on this machine says nothing elsewhere.
            values["checkpoint"] = "checkpoints/" + Path(values["checkpoint"]).name
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: evaluate the run again.") from error
        if path.name == "scores.json":
            counts = path.with_name(safe_name(values.get("counts", "images.npz")))
            shutil.copyfile(counts, copy.with_name("images.npz"))
            values["counts"] = "images.npz"
        write_text(copy, json.dumps(values, indent=1) + "\n")
    fresh.mkdir(parents=True, exist_ok=True)
    replace(read_result(folder), data_root=None).write(fresh)
    if target.exists():
        target.replace(old)
    fresh.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(target: Path) -> None:
    """Raise `ValueError` where a folder holds more than a published run."""
    made = {path for pattern in MADE for path in target.glob(pattern)}
    foreign = [path for path in sorted(target.rglob("*")) if path.is_file() and path not in made]
    if foreign:
        raise ValueError(
            f"{foreign[0]} is not part of a published run, and {target} would be replaced: "
            "move it away."
        )


def is_reproduced(folder: Path, output: Path) -> bool:
    """Tell whether a run has the published numbers to the last digit.

    Its curves, its scores and the counts of each image are compared, and the verdicts printed.

    Raises:
        ValueError: it was not published, or has not finished.
    """
    here, there = read_run(folder), _find_published(folder, output)
    hint = _what_differs(there.result, here.result)
    curves = [read_text(run.folder / "metrics.csv") for run in (there, here)]
    equal = curves[0] == curves[1]
    print(f"Training, step by step (metrics.csv): {_verdict(equal, hint)}")
    compared = 0
    for path in sorted(there.folder.glob("evaluate/*")):
        other, name = folder / "evaluate" / path.name, path.name.rsplit("-", 1)[0]
        if not (other / "scores.json").is_file():
            print(f"{name}: not compared, for it was not made here")
            continue
        published, again = read_evaluation(path), read_evaluation(other)
        same = _equal(published, again)
        scores = [100 * each.scores.mIoU for each in (published, again)]
        print(
            f"{name}: published {scores[0]:.10f} % mIoU, here {scores[1]:.10f}: "
            f"{_verdict(same, hint)}"
        )
        equal, compared = equal and same, compared + 1
    if not compared:
        raise ValueError(f"{folder} has no evaluation that {there.folder} has too: let it finish.")
    return equal


def _find_published(folder: Path, output: Path) -> Run:
    for path in sorted(path.parent for path in output.glob("*/config.yaml")):
        if have_same_config(path, folder):
            return read_run(path)
    raise ValueError(f"{folder.name} has no published run of the same configuration in {output}.")


def have_same_config(a: Path, b: Path) -> bool:
    """Tell whether two run folders differ in nothing that changes the result.

    The name of the sweep and the checkpoint that a run continued from may differ.
    """
    configs = [read_run(folder).cfg for folder in (a, b)]
    values = [
        result_affecting(cfg) | {"name": "", "ckpt_path": None}
        for cfg in configs
        if cfg is not None
    ]
    return len(values) == 2 and values[0] == values[1]


def _what_differs(there: RunResult, here: RunResult) -> str:
    """Name what changes the last digits and differs between two runs."""
    differ = []
    for key in ("threads", "precision", "torch"):
        values = [getattr(result, key) for result in (there, here)]
        if values[0] != values[1]:
            told = ["not told" if value is None else value for value in values]
            differ.append(f"{key}: {told[0]} there, {told[1]} here")
    return f" ({'; '.join(differ)})" if differ else ""


def _equal(a: Evaluation, b: Evaluation) -> bool:
    scores = [vars(each.scores) | {"checkpoint": "", "counts": ""} for each in (a, b)]
    same_counts = a.counts.keys() == b.counts.keys() and all(
        np.array_equal(a.counts[key], b.counts[key]) for key in a.counts
    )
    return scores[0] == scores[1] and same_counts


def _verdict(same: bool, hint: str) -> str:
    return "the same to the last digit" if same else f"NOT the same{hint}"
