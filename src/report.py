"""Compare finished runs in one report: Markdown, CSV and a self-contained HTML page."""

import argparse
import os
from pathlib import Path

from cyclenet.cli import user_errors


def main() -> None:
    """Read the runs, write the report and say where it is."""
    parser = argparse.ArgumentParser(prog="python src/report.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--output", type=Path, help="folder of the report (default: report/ beside the runs)")
    parser.add_argument("--title", help="default: the name of the folder")
    parser.add_argument("--baseline", default="", help="part of the name of the arm to compare with (default: the first)")
    parser.add_argument("--images", type=int, default=3, help="images in the panel of predictions; 0: none (default: 3)")
    options = parser.parse_args()
    with user_errors():
        from cyclenet.comparison import find_runs
        from cyclenet.report import write_report

        runs = find_runs(options.runs)
        common = Path(os.path.commonpath([run.folder.parent.resolve() for run in runs]))
        title = options.title or f"{common.name}: {len(runs)} runs"
        print(write_report(runs, options.output or common / "report", title, options.baseline, options.images))


if __name__ == "__main__":
    main()
