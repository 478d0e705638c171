"""Read every pair of a split, count what it holds, and name all that is wrong with it."""

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import Source, check_sizes
from cyclenet.data.images import DataError
from cyclenet.data.open import open_split
from cyclenet.labels import IGNORE

SUSPICIOUS = 0.05  # Share of ignored pixels above which a class that never occurs is told.

MOST_SIZES = 5  # Sizes of images that are listed.


@dataclass
class SplitReport:
    """What a split holds.

    Attributes:
        sizes: images by their size, as "width x height".
        histogram: (256,) pixels by train id.
        images_with: (256,) images in which a train id occurs.
        problems: a sentence for each bad file.
    """

    sizes: Counter[str] = field(default_factory=Counter)
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    images_with: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    problems: list[str] = field(default_factory=list)


def read_split(dataset: DatasetConfig, split: str, workers: int) -> tuple[Source, SplitReport]:
    """Read all pairs of a split in parallel.

    Raises:
        DataError: there is no such split.
    """
    from rich.progress import track

    source, report = open_split(dataset, split), SplitReport()
    report.problems += source.strays()
    with ProcessPoolExecutor(workers, initializer=_open, initargs=(dataset, split)) as pool:
        pairs = pool.map(_read_pair, range(len(source)), chunksize=16)
        title, quiet = f"{dataset.name} {split}", not sys.stderr.isatty()
        for size, counts, problems in track(pairs, title, total=len(source), disable=quiet):
            report.sizes.update([size] if size else [])
            report.histogram += counts
            report.images_with += counts > 0
            report.problems += problems
    return source, report


_source: Source


def _open(dataset: DatasetConfig, split: str) -> None:
    # A process opens the split once: listing a large one takes seconds.
    global _source
    _source = open_split(dataset, split)


def _read_pair(index: int) -> tuple[str, np.ndarray, list[str]]:
    """Return a pair's size, its pixels by train id (256,), and a sentence for each bad file.

    Where one of the files cannot be read, the size is empty and no pixels are counted.
    """
    read: list[np.ndarray] = []
    problems: list[str] = []
    for part in (_source.image, _source.mask):
        try:
            read.append(part(index))
        except DataError as error:
            problems.append(str(error))
    if len(read) < 2:
        return "", np.zeros(256, np.int64), problems
    image, mask = read
    try:
        check_sizes(_source.name(index), image, mask)
    except DataError as error:
        problems.append(str(error))
    size = f"{image.shape[1]}x{image.shape[0]}"
    return size, np.bincount(mask.ravel(), minlength=256), problems


def describe_split(name: str, source: Source, report: SplitReport) -> str:
    """Write what a split holds, and name each bad file."""
    common = report.sizes.most_common(MOST_SIZES)
    sizes = ", ".join(f"{count} of {size}" for size, count in common)
    if len(report.sizes) > MOST_SIZES:
        sizes += f" and {len(report.sizes) - MOST_SIZES} other sizes"
    lines = [f"\n{name}: {len(source)} pairs; {sizes} (width x height)"]
    total = max(int(report.histogram.sum()), 1)
    for index, label in [*enumerate(source.classes), (IGNORE, "(ignored)")]:
        share, images = 100 * report.histogram[index] / total, report.images_with[index]
        lines.append(f"  {label:<22} {share:7.3f} %  in {images} images")
    lines += [f"  BAD: {problem}" for problem in report.problems]
    absent = [name for i, name in enumerate(source.classes) if not report.histogram[i]]
    ignored = report.histogram[IGNORE] / total
    if absent and ignored > SUSPICIOUS:
        lines.append(
            f"  NOTE: {', '.join(absent[:5])} never occurs, and {ignored:.0%} of the pixels are "
            "255, which is ignored: where 255 stands for a class, write its number instead."
        )
    lines.append(f"  {len(report.problems)} bad files")
    return "\n".join(lines)
