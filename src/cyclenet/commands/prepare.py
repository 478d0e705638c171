"""Write the cache of a data set's pixels, from which training reads windows without decoding; or verify the one there is."""

from pathlib import Path

from cyclenet.commands.cli import compose_config, parse_overrides, user_errors
from cyclenet.config import PrepareConfig

USAGE = """
python src/prepare.py dataset=cityscapes|ade20k|camvid|folder [dataset.root=DIR] [dataset.cache_root=DIR] ['splits=[train]']

Writes the decoded pixels of the training split, uncompressed, so that a loader reads the window that it needs and no more.
Training does the same on first use, where there is room (dataset.cache=auto). A cache that is there is read and verified;
one whose source files have changed is written anew. It may be deleted at any time.

  dataset.cache_root   where caches lie (default: $CYCLENET_CACHE, else data/cache)
"""


def main() -> None:
    """Write or verify a cache for each split."""
    overrides = parse_overrides(USAGE)
    with user_errors():
        cfg: PrepareConfig = compose_config("prepare", PrepareConfig, overrides)
        for split in cfg.splits or [cfg.dataset.train_split]:
            print(prepare(cfg, split))


def prepare(cfg: PrepareConfig, split: str) -> str:
    """Prepare one split; say what was done.

    Raises:
        ValueError: the data set needs no cache, a file cannot be read, there is no room, or the cache is damaged.
    """
    import sys

    from rich.progress import track

    from cyclenet.data.base import FolderSource, build_source
    from cyclenet.data.cache import CachedSource, cached

    cfg.dataset.cache = "always"
    source = build_source(cfg.dataset, split)
    if not isinstance(source, FolderSource):
        raise ValueError(f"dataset={cfg.dataset.name} is drawn while loading: it has no files, and needs no cache.")
    before = cached(source, cfg.dataset, split)
    there = before if isinstance(before, CachedSource) else cached(source, cfg.dataset, split, build=True)
    assert isinstance(there, CachedSource)  # It is, or has said why not: cache=always.
    for index in track(range(len(there)), "Verifying", disable=not sys.stderr.isatty()):
        there.image(index)
    size = (Path(there.folder) / "pixels.bin").stat().st_size
    done = "verified" if there is before else "written and verified"
    return f"{there.folder}: {len(there)} pairs, {size / 1e9:.2f} GB, {done}"


if __name__ == "__main__":
    main()
