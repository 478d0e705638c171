"""Read every image and mask of a data set and name all that is wrong with it.

  python src/check_data.py dataset=cityscapes dataset.root=DIR

Counts, sizes and how often each class occurs are reported for each split, and each missing,
truncated, mismatched or illegal file by name. The exit code is 1 if there is one.
"""

from cyclenet.commands.cli import run_command
from cyclenet.config.commands import CheckConfig
from cyclenet.devices import cores


def main() -> None:
    """Check and print; exit with 1 if a file is bad."""
    run_command("check_data", __doc__, run)


def run(cfg: CheckConfig) -> int:
    """Print a report of each split."""
    from cyclenet.data.check import describe_split, read_split

    workers, bad = cfg.num_workers if cfg.num_workers > 0 else cores(), 0
    usual = [*cfg.dataset.training_split.split("+"), cfg.dataset.validation_split]
    for split in cfg.splits or [each for each in usual if each]:
        source, report = read_split(cfg.dataset, split, workers)
        print(describe_split(f"{cfg.dataset.name} {split}", source, report))
        bad += len(report.problems)
    return 1 if bad else 0


if __name__ == "__main__":
    main()
