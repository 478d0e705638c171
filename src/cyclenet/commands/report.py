"""Compare runs in one report, finished or in progress (--watch): Markdown, CSV and a self-contained HTML page."""

import argparse
import os
from pathlib import Path

from cyclenet.commands.cli import user_errors


def main() -> None:
    """Read the runs, write the report and say where it is."""
    parser = argparse.ArgumentParser(prog="python src/report.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--output", type=Path, help="folder of the report (default: report/ beside the runs)")
    parser.add_argument("--title", help="default: the name of the folder")
    parser.add_argument("--baseline", default="", help="part of the name of the arm to compare with (default: the first)")
    parser.add_argument("--protocols", nargs="+", metavar="NAME", help="only evaluations by these (default: all)")
    parser.add_argument("--images", type=int, default=3, help="images in the panel of predictions; 0: none (default: 3)")
    parser.add_argument("--plan", type=Path, help="YAML list of claims (claim, arm, than, score, seeds) to be judged")
    parser.add_argument("--block", type=int, default=1, metavar="N", help="claims: an interval by stretches of N images too")
    parser.add_argument("--watch", action="store_true", help="write the page again and again while the runs are in progress")
    parser.add_argument("--every", type=float, default=60, metavar="SECONDS", help="with --watch (default: 60)")
    options = parser.parse_args()
    with user_errors():
        from cyclenet.lab.report.comparison import Run, find_runs, keep
        from cyclenet.lab.report.live import watch
        from cyclenet.lab.report.write import read_plan, write_report

        if options.every <= 0:
            raise ValueError(f"--every must be positive; got {options.every:g}.")
        if options.block < 1:
            raise ValueError(f"--block must be 1 or more; got {options.block}.")

        plan = read_plan(options.plan) if options.plan else None

        def write(runs: list[Run], refresh: float) -> Path:
            if options.protocols:
                keep(runs, options.protocols)
            common = Path(os.path.commonpath([run.folder.parent.resolve() for run in runs]))
            title = options.title or f"{common.name}: {len(runs)} runs"
            # Predicting the panel's images would slow the trainings down: at the end.
            images = 0 if refresh else options.images
            output = options.output or common / "report"
            return write_report(runs, output, title, options.baseline, images, refresh, plan, options.block)

        try:
            if options.watch:
                print(watch(lambda: find_runs(options.runs), write, options.every))
            else:
                print(write(find_runs(options.runs), 0))
        except KeyboardInterrupt:
            raise SystemExit(130) from None


if __name__ == "__main__":
    main()
