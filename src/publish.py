"""Keep what a report needs of runs, and no more: small enough for a repository; or hold a run against what was published."""

import argparse
import json
import shutil
from pathlib import Path

from cyclenet.cli import user_errors
from cyclenet.results import read_result, write_result

KEPT = ("config.yaml", "metrics.csv", "visualize/analysis.json", "evaluate/*/scores.json", "evaluate/*/images.npz")


def main() -> None:
    """Publish runs, or compare one with its published self."""
    parser = argparse.ArgumentParser(prog="python src/publish.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--output", type=Path, required=True, help="folder of the published runs, as results/camvid")
    parser.add_argument("--check", action="store_true", help="write nothing: tell whether the runs have the published numbers")
    options = parser.parse_args()
    with user_errors():
        from cyclenet.comparison import find_runs

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
    """Tell whether a run has the published numbers, to the last digit, and print both.

    Raises:
        ValueError: it was not published, or has not finished.
    """
    # The name ends in a hash of what changes the result, of which the name of the sweep is one.
    stem = folder.name.rsplit("-", 1)[0]
    published = [path for path in sorted(output.glob(f"{stem}*")) if same_config(path, folder)]
    if not published:
        raise ValueError(f"{folder.name} has no published run of the same configuration in {output}.")
    pairs = [
        (path.parent.name.rsplit("-", 1)[0], json.loads(path.read_text()), json.loads(other.read_text()))
        for path in sorted(folder.glob("evaluate/*/scores.json"))
        for other in published[0].glob(f"evaluate/{path.parent.name}/scores.json")
    ]
    if not pairs:
        raise ValueError(f"{folder} has no evaluation that {published[0]} has too: let it finish.")
    threads = [read_result(run).get("threads") for run in (published[0], folder)]
    hint = f" (threads: {threads[0]} there, {threads[1]} here; set OMP_NUM_THREADS)" if threads[0] != threads[1] else ""
    equal = True
    for name, here, there in pairs:
        same = all(here[key] == there[key] for key in here if key != "checkpoint")
        equal &= same
        verdict = "the same to the last digit" if same else f"NOT the same{hint}"
        print(f"{name}: published {100 * there['mIoU']:.10f} % mIoU, here {100 * here['mIoU']:.10f}: {verdict}")
    return equal


def same_config(a: Path, b: Path) -> bool:
    """Tell whether two run folders differ in nothing that changes the result but the sweep's name."""
    from dataclasses import asdict

    from cyclenet.comparison import read_run
    from cyclenet.config import identity

    configs = [cfg for folder in (a, b) if (cfg := read_run(folder).cfg) is not None]
    values = [{key: value for key, value in identity(asdict(cfg)).items() if key != "name"} for cfg in configs]
    return len(values) == 2 and values[0] == values[1]


if __name__ == "__main__":
    main()
