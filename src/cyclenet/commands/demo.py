"""Train the demo and its baseline, and show what each got right: ``python src/demo.py [KEY=VALUE ...]``."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from cyclenet.commands.cli import CONF, user_errors
from cyclenet.config import register, run_folder

ARMS = {"CycleNet": [], "backbone only": ["model.context=none", "model.decoder=none"]}


def main() -> None:
    """Run both arms with the same overrides, then print one line: both scores and the picture's path."""
    folders = {name: train(["experiment=demo", *arm, *sys.argv[1:]]) for name, arm in ARMS.items()}
    with user_errors():
        picture = draw(folders)
    score = {name: json.loads((folder / "result.json").read_text())["metrics"]["val/mIoU"] for name, folder in folders.items()}
    print(f"val mIoU {100 * score['CycleNet']:.1f} % | backbone only {100 * score['backbone only']:.1f} % | picture {picture}")


def train(overrides: list[str]) -> Path:
    """Run ``src/train.py`` as a user would and return its run folder; end the program if it fails."""
    command = [sys.executable, str(Path(__file__).parents[2] / "train.py"), *overrides]
    print(f"\n$ python src/train.py {' '.join(overrides)}", flush=True)
    code = subprocess.run(command).returncode
    if code:
        raise SystemExit(code)
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Path("runs") / run_folder(compose("config", overrides))


def draw(folders: dict[str, Path], count: int = 4) -> Path:
    """Compare the arms on a few validation images, as ``comparison.png`` beside their folders."""
    import torch

    from cyclenet.data.base import build_source
    from cyclenet.plots.pictures import panel, save_png
    from cyclenet.training.checkpoint import load_checkpoint, load_task

    tasks = [load_task(load_checkpoint(folder / "checkpoints" / "last.ckpt")) for folder in folders.values()]
    cfg = tasks[0].cfg
    source = build_source(cfg.dataset, cfg.dataset.val_split)
    rows = []
    for index in np.linspace(0, len(source) - 1, min(count, len(source))).astype(int):
        image = torch.from_numpy(source.image(index)).permute(2, 0, 1)[None]
        predictions = [task.predict(image)[0].numpy() for task in tasks]
        rows.append((source.image(index), source.mask(index), predictions))
    path = folders["CycleNet"].parent / "comparison.png"
    save_png(path, panel(rows, list(folders), source.classes, source.palette))
    return path


if __name__ == "__main__":
    main()
