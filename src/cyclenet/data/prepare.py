"""Write or verify the cache of a split: the program of ``prepare``."""

import sys
from dataclasses import replace

from rich.progress import track

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.cache import CachedSource, cached
from cyclenet.data.open import open_split


def prepare(dataset: DatasetConfig, split: str) -> str:
    """Prepare one split; say what was done.

    Raises:
        ValueError: the data set needs no cache, a file cannot be read, there is no room, or the
            cache is damaged.
    """
    dataset = replace(dataset, cache="always")
    source = open_split(dataset, split)
    if not source.pairs:
        raise ValueError(
            f"dataset={dataset.name} is drawn while loading: it has no files, and needs no cache."
        )
    there = cached(source, dataset, split)
    done = "verified"
    if not isinstance(there, CachedSource):
        there, done = cached(source, dataset, split, build=True), "written and verified"
    assert isinstance(there, CachedSource)  # The build raises where it fails.
    for index in track(range(len(there)), "Verifying", disable=not sys.stderr.isatty()):
        there.image(index)
    size = (there.folder / "pixels.bin").stat().st_size
    return f"{there.folder}: {len(there)} pairs, {size / 1e9:.2f} GB, {done}"
