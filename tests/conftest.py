"""What the tests share: tiny models and tiny data sets in the real layouts, made on the spot."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.config.model import ModelConfig
from cyclenet.models.contexts.cycleaspp import CycleASPP
from cyclenet.models.decoders.adc import ADC

ROOT = Path(__file__).parents[1]
# As many processes as cores run the tests (pytest-xdist).
torch.set_num_threads(1)


def tiny_model(**changes) -> ModelConfig:
    """A small head on a small random backbone."""
    values = {
        "backbone": "resnet10t",
        "backbone_weights": "none",
        "atrous_rates": [1, 2, 3],
        "reduce_channels": 16,
        "bottleneck_channels": 12,
        "growth_channels": 8,
        "head_channels": 16,
    }
    return ModelConfig(**(values | changes))


def tiny_cycleaspp(feedback: int = 1, in_channels: int = 10, **changes) -> CycleASPP:
    """CycleASPP with the widths of `tiny_model`."""
    cfg = tiny_model(feedback=feedback, **changes)
    return CycleASPP(in_channels, **CONTEXTS["cycleaspp"].arguments(cfg))


def tiny_adc(low_channels: int = 6, **changes) -> ADC:
    """ADC with the widths of `tiny_model`."""
    cfg = tiny_model(**changes)
    return ADC(low_channels, cfg.head_channels, **DECODERS["adc"].arguments(cfg))


TINY = [
    "model.backbone=resnet10t",
    "model.backbone_weights=none",
    "model.atrous_rates=[1,2,3]",
    "model.reduce_channels=16",
    "model.bottleneck_channels=12",
    "model.growth_channels=8",
    "model.head_channels=16",
    "dataset.crop_size=[64,64]",
    "dataset.batch_size=2",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.num_workers=0",
    "trainer.progress_bar=false",
    "logger=csv",
]


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """4 training and 3 validation pairs of 96 x 72."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for i in range(count):
            write(tmp_path / "camvid" / split / f"frame_{i}.png", noise_image(rng, 72, 96))
            write(
                tmp_path / "camvid" / f"{split}annot" / f"frame_{i}.png",
                rng.integers(0, 12, (72, 96), dtype=np.uint8),
            )
    return tmp_path / "camvid"


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """2 pairs of 128 x 64 in two cities."""
    rng = np.random.default_rng(1)
    for split, city in (("train", "ulm"), ("train", "jena"), ("val", "bern")):
        stem = f"{split}/{city}/{city}_000000_000019"
        write(
            tmp_path / "cityscapes" / "leftImg8bit" / f"{stem}_leftImg8bit.png",
            noise_image(rng, 64, 128),
        )
        write(
            tmp_path / "cityscapes" / "gtFine" / f"{stem}_gtFine_labelIds.png",
            rng.integers(0, 34, (64, 128), dtype=np.uint8),
        )
    return tmp_path / "cityscapes"


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    """2 training and 3 validation pairs of unequal sizes."""
    rng, root = np.random.default_rng(2), tmp_path / "ade" / "ADEChallengeData2016"
    for split, count in (("training", 2), ("validation", 3)):
        for i in range(count):
            height, width = 70 + 9 * i, 90 + 7 * i
            write(root / "images" / split / f"ADE_{split}_{i}.jpg", noise_image(rng, height, width))
            write(
                root / "annotations" / split / f"ADE_{split}_{i}.png",
                rng.integers(0, 151, (height, width), dtype=np.uint8),
            )
    names = "".join(f"{i}\t0.1\t1\t1\tthing {i}, object {i}\n" for i in range(1, 151))
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + names)
    return tmp_path / "ade"


@functools.cache
def warm() -> subprocess.Popen:
    """The process that runs the commands (`tests/warm.py`); it ends with its standard input."""
    command = [sys.executable, str(ROOT / "tests" / "warm.py")]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def run(command: str, *words: str, cwd: Path, ok: bool = True, **environment: str) -> str:
    """Run a command of `src/` as a user does; return what it printed (both streams)."""
    job = {
        "script": str(ROOT / "src" / f"{command}.py"),
        "words": words,
        "cwd": str(cwd),
        "env": {**os.environ, "OMP_NUM_THREADS": "1", **environment},
    }
    with tempfile.NamedTemporaryFile("r") as output:
        process = warm()
        process.stdin.write(json.dumps({**job, "output": output.name}) + "\n")
        code = int(process.stdout.readline())
        text = output.read()
    assert (code == 0) == ok, f"exit code {code}\n{text}"
    return text
