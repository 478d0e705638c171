"""A small world of files for fuzz.py and audit.py: data, a trained model, runs, a cache."""

import shutil
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from conftest import TINY, tiny_model, write
from cyclenet.config.schema import DatasetConfig, TrainConfig
from cyclenet.data.open import open_split
from cyclenet.training.task import SegmentationTask
from made import make_run, run_config, save_checkpoint
from warm import run_forked

SMALL = [*TINY, "dataset.crop_size=[32,32]", "dataset=folder", "dataset.root=data"]
DATA = ["dataset=folder", "dataset.root=data"]
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "train": ("train", [*SMALL, "hydra.run.dir=run", "trainer.max_epochs=2"]),
    "evaluate": ("evaluate", ["ckpt_path=model.ckpt", "dataset.root=data", "boundary=false"]),
    "predict": ("predict", ["ckpt_path=model.ckpt", "input=photos", "output=out"]),
    "visualize": (
        "visualize",
        ["ckpt_path=model.ckpt", "image=photos", "points=points.csv", "what=probabilities",
         "formats=png", "dataset.root=data", "output=figures"],
    ),
    "check_data": ("check_data", [*DATA, "num_workers=1"]),
    "prepare": ("prepare", [*DATA, "dataset.cache_root=cache"]),
    "report": ("report", ["runs=runs", "output=report", "images=0", "plan=plan.yaml"]),
    "publish": ("publish", ["runs=runs", "output=published"]),
}  # fmt: skip
"""What each command is, in the folder of the world."""

READS = {
    "train": ["data/images/train/im0.png", "data/masks/train/im0.png", "data/classes.txt",
              "run/checkpoints/last.ckpt", "run/config.yaml", "run/metrics.csv"],
    "evaluate": ["model.ckpt", "data/images/val/im0.png", "data/masks/val/im1.png",
                 "data/classes.txt"],
    "predict": ["model.ckpt", *(f"photos/a.{end}" for end in
                ("png", "jpg", "tif", "webp", "bmp", "ppm", "mp4"))],
    "visualize": ["model.ckpt", "photos/a.png", "photos/a.jpg", "points.csv"],
    "check_data": ["data/images/train/im0.png", "data/masks/val/im1.png", "data/classes.txt"],
    "prepare": ["data/images/train/im0.png", "data/masks/train/im0.png",
                "cache/INDEX", "cache/PIXELS"],
    "report": ["runs/run1/config.yaml", "runs/run1/result.json", "runs/run1/metrics.csv",
               "runs/run1/SCORES", "runs/run1/NPZ", "plan.yaml"],
    "publish": ["runs/run1/config.yaml", "runs/run1/result.json", "runs/run1/SCORES",
                "runs/run1/NPZ"],
}  # fmt: skip
"""Files that each command reads. A name in capitals stands for one that is found by its kind."""

KINDS = {
    "INDEX": "*/index.json",
    "PIXELS": "*/pixels.bin",
    "SCORES": "evaluate/*/scores.json",
    "NPZ": "evaluate/*/images*.npz",
}


def find(root: Path, name: str) -> Path:
    """Return a file of `READS` in a copy of the world."""
    path = root / name
    return next(path.parent.glob(KINDS[path.name])) if path.name in KINDS else path


def make_world(root: Path) -> Path:
    """Make everything that the commands read."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(2, dtype=np.uint8), 24)[None].repeat(40, 0)
    for split in ("train", "val"):
        for i in range(3):
            image = np.stack([120 * ids + 40] * 3, -1) + rng.integers(0, 20, (40, 48, 3))
            write(root / f"data/images/{split}/im{i}.png", image.astype(np.uint8))
            write(root / f"data/masks/{split}/im{i}.png", ids)
    (root / "data/classes.txt").write_text("road\nsky\n")
    dataset = DatasetConfig(name="folder", root=str(root / "data"))
    source = open_split(dataset, "val")
    cfg = TrainConfig(model=tiny_model(), dataset=dataset)
    task = SegmentationTask(cfg, source.classes, source.palette.tolist())
    save_checkpoint(task, root / "model.ckpt")
    photo = Image.fromarray(source.image(0))
    (root / "photos").mkdir()
    for ending in ("png", "jpg", "tif", "webp", "bmp", "ppm"):
        photo.save(root / f"photos/a.{ending}")
    video = cv2.VideoWriter(
        str(root / "photos/a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, photo.size
    )
    for _ in range(3):
        video.write(np.asarray(photo))
    video.release()
    (root / "points.csv").write_text("image,x,y\n" + "a,10,10\n")
    for number in range(2):
        make_run(root / "runs", run_config(number), number=number)
    claim = "- {claim: It helps., arm: CycleASPP, than: CycleASPP, score: mIoU}\n"
    (root / "plan.yaml").write_text(claim)
    for name in ("prepare", "train"):
        command, words = COMMANDS[name]
        code, output = run_forked(command, words, root, 120)
        assert code == 0, output
    (root / "run/result.json").unlink()  # As if it had been killed before its end.
    return root


def copy_world(world: Path, target: Path) -> Path:
    """Copy the world for one trial."""
    shutil.copytree(world, target)
    return target
