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

CHUNK = 16  # Pairs that a process reads at a time.

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

    def add(self, part: "SplitReport") -> None:
        """Add what another part of the split holds."""
        self.sizes += part.sizes
        self.histogram += part.histogram
        self.images_with += part.images_with
        self.problems += part.problems


def read_split(dataset: DatasetConfig, split: str, workers: int) -> tuple[Source, SplitReport]:
    """Read all pairs of a split in parallel.

    Raises:
        DataError: there is no such split.
    """
    from rich.progress import track

    source, report = open_split(dataset, split), SplitReport()
    report.problems += source.strays()
    count = len(source)
    with ProcessPoolExecutor(workers, initializer=_open, initargs=(dataset, split)) as pool:
        chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
        parts = pool.map(_read_chunk, chunks)
        title, quiet = f"{dataset.name} {split}", not sys.stderr.isatty()
        for part in track(parts, title, total=len(chunks), disable=quiet):
            report.add(part)
    return source, report


_source: Source


def _open(dataset: DatasetConfig, split: str) -> None:
    # A process opens the split once: listing a large one takes seconds.
    global _source
    _source = open_split(dataset, split)


def _read_chunk(indices: range) -> SplitReport:
    report = SplitReport()
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
