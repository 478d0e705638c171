"""Read every image and mask of a data set and name all that is wrong with it."""

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from cyclenet.commands.cli import compose_config, parse_overrides, user_errors
from cyclenet.config import CheckConfig, DatasetConfig
from cyclenet.data.base import Source, build_source
from cyclenet.data.images import DataError
from cyclenet.data.loader import check_sizes, cores

USAGE = """
python src/check_data.py dataset=NAME [dataset.root=DIR] ['splits=[train,val]'] [num_workers=N]

Reads every pair of cityscapes, ade20k, camvid, folder or scenes; reports counts, sizes, how often each class occurs, and each
missing, truncated, mismatched or illegal file by name. The exit code is 1 if there is one.
"""


@dataclass
class Report:
    """What a split holds."""

    sizes: Counter = field(default_factory=Counter)
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    images_with: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    problems: list[str] = field(default_factory=list)


def main() -> None:
    """Check and print; exit with 1 if a file is bad."""
    overrides = parse_overrides(USAGE)
    with user_errors():
        cfg: CheckConfig = compose_config("check_data", CheckConfig, overrides)
        bad = check(cfg)
    raise SystemExit(1 if bad else 0)


def check(cfg: CheckConfig) -> int:
    """Print a report of each split; return the number of bad files."""
    workers = cfg.num_workers if cfg.num_workers > 0 else cores()
    bad = 0
    for split in cfg.splits or [cfg.dataset.train_split, cfg.dataset.val_split]:
        source, report = read_split(cfg.dataset, split, workers)
        bad += len(report.problems)
        sizes = ", ".join(f"{count} of {size}" for size, count in report.sizes.most_common(5))
        more = f" and {len(report.sizes) - 5} other sizes" if len(report.sizes) > 5 else ""
        print(f"\n{cfg.dataset.name} {split}: {len(source)} pairs; {sizes}{more} (width x height)")
        total = max(int(report.histogram.sum()), 1)
        for index, name in [*enumerate(source.classes), (255, "(ignored)")]:
            share, images = report.histogram[index] / total, report.images_with[index]
            print(f"  {name:<22} {100 * share:7.3f} %  in {images} images")
        for problem in report.problems:
            print(f"  BAD: {problem}")
        print(f"  {len(report.problems)} bad files")
    return bad


def read_split(dataset: DatasetConfig, split: str, workers: int) -> tuple[Source, Report]:
    """Read all pairs of a split in parallel."""
    from rich.progress import track

    source, report = build_source(dataset, split), Report()
    report.problems += source.strays()
    with ProcessPoolExecutor(workers, initializer=_open, initargs=(dataset, split)) as pool:
        chunks = [range(start, min(start + 16, len(source))) for start in range(0, len(source), 16)]
        results = pool.map(_read_chunk, chunks)
        for part in track(results, f"{dataset.name} {split}", total=len(chunks), disable=not sys.stderr.isatty()):
            report.sizes += part.sizes
            report.histogram += part.histogram
            report.images_with += part.images_with
            report.problems += part.problems
    return source, report


_source: Source


def _open(dataset: DatasetConfig, split: str) -> None:
    # Once a process: listing a large split takes seconds.
    global _source
    _source = build_source(dataset, split)


def _read_chunk(indices: range) -> Report:
    report = Report()
    for index in indices:
        read: list[np.ndarray] = []
        for part in (_source.image, _source.mask):
            try:
                read.append(part(index))
            except DataError as error:
                report.problems.append(str(error))
        if len(read) < 2:
            continue
        image, mask = read
        try:
            check_sizes(_source.name(index), image, mask)
        except DataError as error:
            report.problems.append(str(error))
        counts = np.bincount(mask.ravel(), minlength=256)
        report.sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
        report.histogram += counts
        report.images_with += counts > 0
    return report


if __name__ == "__main__":
    main()
