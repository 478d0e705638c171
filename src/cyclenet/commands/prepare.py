"""Write the cache of a data set's pixels, or verify the one there is.

  python src/prepare.py dataset=cityscapes dataset.root=DIR [dataset.cache_root=DIR]

The decoded pixels of the training split are written uncompressed, so that a loader reads the window
that it needs and no more. Training does the same on first use, where there is room. A cache that is
there is read and verified; one whose source files have changed is written anew. It may be deleted
at any time.
"""

from cyclenet.config.commands import PrepareConfig


def run(cfg: PrepareConfig) -> None:
    """Write or verify a cache for each split, and say what was done."""
    from cyclenet.data.prepare import prepare

    for split in cfg.splits or [cfg.dataset.training_split]:
        print(prepare(cfg.dataset, split))
