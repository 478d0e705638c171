"""Predict a test split for its benchmark's server: PNGs of full size, checked and zipped."""

import hashlib
import json
import sys
from pathlib import Path

from cyclenet.commands.cli import compose_config, parse_overrides, store_checkpoint_defaults, user_errors
from cyclenet.config import SubmitConfig

USAGE = """
python src/submit.py ckpt_path=FILE [dataset=cityscapes|ade20k] [split=test] [protocol=paper_ms] [KEY=VALUE ...]

Writes a PNG for every image of the split, of its size and under its name, in Cityscapes' labelIds or ADE20K's 1..150,
and a .zip of them beside the folder. A missing file or an illegal id is refused. The same command again goes on where it
was stopped.

  output         folder of the PNGs (default: one in submit/, in the run folder)
  split          default: test (ADE20K: testing, for the folder images/testing)
  accelerator    auto, cpu, gpu
"""


def main() -> None:
    """Compose the configuration over the checkpoint's own, predict, check and zip."""
    overrides = parse_overrides(USAGE)
    with user_errors():
        store_checkpoint_defaults(SubmitConfig, overrides)
        cfg: SubmitConfig = compose_config("submit", SubmitConfig, overrides)
        archive, count = submit(cfg)
    print(f"{count} predictions by {cfg.protocol.describe()}, checked: {archive}")


def submit(cfg: SubmitConfig) -> tuple[Path, int]:
    """Return the .zip and the number of its files.

    Raises:
        ValueError: the data set has no server or other classes than the model, or the predictions are not whole.
    """
    import torch
    from rich.progress import track

    from cyclenet.data.base import FolderSource, build_source
    from cyclenet.runs.submission import file_ids, file_names, pack, write_prediction
    from cyclenet.training.checkpoint import load_checkpoint, load_task, run_of
    from cyclenet.training.trainer import choose_device

    ids = file_ids(cfg.dataset.name)
    source = build_source(cfg.dataset, cfg.split)
    assert isinstance(source, FolderSource)
    checkpoint = Path(cfg.ckpt_path).resolve()
    device = choose_device(cfg.accelerator)
    task = load_task(load_checkpoint(checkpoint)).to(device)
    if source.classes != task.classes:
        raise ValueError(f"{cfg.ckpt_path} was trained on other classes than {cfg.dataset.name} has; choose its own data set.")
    folder = Path(cfg.output or run_of(checkpoint) / "submit" / f"{cfg.dataset.name}-{cfg.split}-{cfg.protocol.name}")
    folder.mkdir(parents=True, exist_ok=True)

    # What the PNGs that are there already were made by; those of another model or protocol are made again.
    made_by = {
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "protocol": cfg.protocol.describe(),
        "root": str(source.pairs[0].image.resolve().parent),
    }
    note = folder.with_name(folder.name + ".json")
    folder.with_name(folder.name + ".zip").unlink(missing_ok=True)
    if not note.is_file() or json.loads(note.read_text()) != made_by:
        for name in file_names(source):
            (folder / name).unlink(missing_ok=True)
        note.write_text(json.dumps(made_by))
    for index, name in enumerate(track(file_names(source), cfg.split, disable=not sys.stderr.isatty())):
        if (folder / name).is_file():
            continue
        image = torch.from_numpy(source.image(index).copy()).permute(2, 0, 1)[None].to(device)
        write_prediction(folder / name, task.predict(image, cfg.protocol)[0].cpu().numpy(), ids)
    for part in folder.glob("*.tmp"):
        part.unlink()
    return pack(folder, source, ids), len(source)


if __name__ == "__main__":
    main()
