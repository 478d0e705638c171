"""Predict a test split for its benchmark's server: PNGs of full size, checked and zipped.

  python src/submit.py ckpt_path=FILE [dataset=cityscapes|ade20k] [split=test] [protocol=paper_ms]

There is a PNG for every image of the split, of its size and under its name, in Cityscapes' labelIds
or ADE20K's 1..150, and a .zip of them beside the folder. A missing file or an illegal id is
refused. The same command again continues where it was stopped.
"""

from cyclenet.config.commands import SubmitConfig


def run(cfg: SubmitConfig) -> None:
    """Predict, check and zip; say where the .zip is."""
    from cyclenet.runs.submission import submit

    archive, count = submit(cfg)
    print(f"{count} predictions by {cfg.protocol.describe()}, checked: {archive}")
