"""Keep what a report needs of runs, small enough for a repository; or compare with it.

python src/publish.py runs=runs/camvid_ablation output=results/camvid
python src/publish.py runs=RUN output=results/camvid check=true
"""

import sys
from pathlib import Path

from cyclenet.config.commands import PublishConfig


def run(cfg: PublishConfig) -> int:
    """Publish, or compare; return 1 where a run has not the published numbers."""
    from cyclenet.lab.report.publish import check_publishable, is_reproduced, publish
    from cyclenet.lab.report.runs import find_runs

    output = Path(cfg.output)
    runs = find_runs([Path(path) for path in cfg.runs])
    if cfg.check:
        same = [is_reproduced(run.folder, output) for run in runs]
        return 0 if all(same) else 1
    check_publishable([run.folder for run in runs], output)
    failed = 0
    for run in runs:
        try:
            publish(run.folder, output)
            print(f"{run.folder.name}: {run.status}")
        except ValueError as error:
            print(f"error: {run.folder.name} was left out: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0
