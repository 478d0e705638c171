"""Read every image and mask of a data set and name all that is wrong with it.

  python src/check_data.py dataset=cityscapes dataset.root=DIR

Counts, sizes and how often each class occurs are reported for each split, and each missing,
truncated, mismatched or illegal file by name. The exit code is 1 if there is one. For one's own
folder that is laid out otherwise (dataset=folder), the keys that fit are proposed.
"""

import sys
from pathlib import Path

from cyclenet.config.commands import CheckConfig
from cyclenet.data.images import DataError
from cyclenet.devices import cores


def run(cfg: CheckConfig) -> int:
    """Print a report of each split."""
    from cyclenet.data.check import describe_split, read_split
    from cyclenet.labels import IGNORE

    workers, bad = cfg.num_workers if cfg.num_workers > 0 else cores(), 0
    strange = cfg.dataset.name == "folder"
    usual = [*cfg.dataset.training_split.split("+"), cfg.dataset.validation_split]
    for split in cfg.splits or [each for each in usual if each]:
        try:
            source, report = read_split(cfg.dataset, split, workers)
        except DataError as error:
            if not strange:
                raise
            print(f"error: {error}", file=sys.stderr)
            bad += 1
            break
        if split in usual and not (report.problems or report.histogram[:IGNORE].any()):
            report.problems.append("Every pixel is ignored, so there is nothing to learn.")
        print(describe_split(f"{cfg.dataset.name} {split}", source, report))
        bad += len(report.problems)
    if bad and strange:
        _propose(cfg)
    return 1 if bad else 0


def _propose(cfg: CheckConfig) -> None:
    """Print keys that would read a folder of one's own data."""
    from cyclenet.data.open import find_root
    from cyclenet.lab.own_data import propose

    root = find_root(cfg.dataset)
    try:
        found = propose(root, Path(cfg.output))
    except DataError as error:
        print(f"No proposal: {error}", file=sys.stderr)
        return
    print(found.text("python src/check_data.py"))
    print("With the same words src/train.py trains.")
