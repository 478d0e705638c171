"""Compare runs in one report: Markdown, CSV and an HTML page that needs no other file.

python src/report.py runs=runs/ablation [baseline=NAME]
python src/report.py runs=runs/camvid watch=true     while trainings go on
"""

import os
from pathlib import Path

from cyclenet.config.commands import ReportConfig


def run(cfg: ReportConfig) -> None:
    """Write the report once, or until no run is in progress."""
    from cyclenet.lab.report.claims import read_plan
    from cyclenet.lab.report.live import watch
    from cyclenet.lab.report.runs import Run, find_runs, keep_protocols
    from cyclenet.lab.report.write import write_report

    plan = read_plan(Path(cfg.plan)) if cfg.plan else None
    paths = [Path(path) for path in cfg.runs]

    def write(runs: list[Run], refresh: float) -> Path:
        if cfg.protocols:
            keep_protocols(runs, cfg.protocols)
        common = Path(os.path.commonpath([run.folder.parent for run in runs]))
        output = Path(cfg.output) if cfg.output else common / "report"
        images = 0 if refresh else cfg.images
        title = cfg.title or common.name
        return write_report(runs, output, title, cfg.baseline, images, refresh, plan, cfg.block)

    if cfg.watch:
        print(watch(lambda: find_runs(paths), write, cfg.every))
    else:
        print(write(find_runs(paths), 0))
