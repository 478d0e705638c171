"""Keep what a report needs of runs, and no more: small enough for a repository; or hold a run against what was published."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from cyclenet.commands.cli import user_errors
from cyclenet.runs.results import read_result, write_result

KEPT = ("config.yaml", "metrics.csv", "visualize/analysis.json", "evaluate/*/scores.json", "evaluate/*/images.npz")


def main() -> None:
    """Publish runs, or compare one with its published self."""
    parser = argparse.ArgumentParser(prog="python src/publish.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--output", type=Path, required=True, help="folder of the published runs, as results/camvid")
    parser.add_argument("--check", action="store_true", help="write nothing: tell whether the runs have the published numbers")
    options = parser.parse_args()
    with user_errors():
        from cyclenet.lab.report.comparison import find_runs

        runs = find_runs(options.runs)
        if options.check:
            same = [check(run.folder, options.output) for run in runs]
            raise SystemExit(0 if all(same) else 1)
        for run in runs:
            publish(run.folder, options.output)
            print(f"{run.folder.name}: {run.status}")


def publish(folder: Path, output: Path) -> None:
    """Copy a run's configuration, result, curves, scores and counts; one that failed keeps its place, with its error.

    Raises:
        ValueError: the run lies in ``output`` itself, where it would be replaced by nothing.
    """
    target = output / folder.name
    if target.resolve() == folder.resolve():
        raise ValueError(f"{folder} is the published run itself: give the run folder that training wrote.")
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(path for pattern in KEPT for path in folder.glob(pattern)):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.name in ("scores.json", "analysis.json"):
            text = json.loads(path.read_text())
            text["checkpoint"] = "checkpoints/" + Path(text["checkpoint"]).name  # Not where it lay on this machine.
            copy.write_text(json.dumps(text, indent=1) + "\n")
        else:
            shutil.copyfile(path, copy)
    target.mkdir(parents=True, exist_ok=True)
    write_result(target, read_result(folder) or {"status": "unfinished"})


def check(folder: Path, output: Path) -> bool:
    """Tell whether a run has the published numbers to the last digit: its curves, scores, and counts of each image.

    Raises:
        ValueError: it was not published, or has not finished.
    """
    configs = sorted(path.parent for path in output.glob("*/config.yaml"))
    there = next((path for path in configs if same_config(path, folder)), None)
    if there is None:
        raise ValueError(f"{folder.name} has no published run of the same configuration in {output}.")
    results = [read_result(run) for run in (there, folder)]
    differ = [
        f"{key}: {' there, '.join(str(result.get(key, 'not told')) for result in results)} here"
        for key in ("threads", "precision", "torch")
        if results[0].get(key) != results[1].get(key)
    ]
    hint = f" ({'; '.join(differ)})" if differ else ""
    curves = [(run / "metrics.csv").read_text() for run in (there, folder)]
    equal = curves[0] == curves[1]
    print(f"Training, step by step (metrics.csv): {_verdict(equal, hint)}")
    compared = 0
    for path in sorted(there.glob("evaluate/*")):
        other, name = folder / "evaluate" / path.name, path.name.rsplit("-", 1)[0]
        if not (other / "scores.json").is_file():
            print(f"{name}: not compared, for it was not made here")
            continue
        scores = [json.loads((run / "scores.json").read_text()) | {"checkpoint": ""} for run in (path, other)]
        with np.load(path / "images.npz") as a, np.load(other / "images.npz") as b:
            same = scores[0] == scores[1] and set(a) == set(b) and all(np.array_equal(a[key], b[key]) for key in a)
        published, here = (100 * score["mIoU"] for score in scores)
        print(f"{name}: published {published:.10f} % mIoU, here {here:.10f}: {_verdict(same, hint)}")
        equal, compared = equal and same, compared + 1
    if not compared:
        raise ValueError(f"{folder} has no evaluation that {there} has too: let it finish.")
    return equal


def _verdict(same: bool, hint: str) -> str:
    return "the same to the last digit" if same else f"NOT the same{hint}"


def same_config(a: Path, b: Path) -> bool:
    """Tell whether two run folders differ in nothing that changes the result but the sweep's name."""
    from dataclasses import asdict

    from cyclenet.config import identity
    from cyclenet.lab.report.comparison import read_run

    configs = [cfg for folder in (a, b) if (cfg := read_run(folder).cfg) is not None]
    values = [{key: value for key, value in identity(asdict(cfg)).items() if key != "name"} for cfg in configs]
    return len(values) == 2 and values[0] == values[1]


if __name__ == "__main__":
    main()
