"""Kill commands that replace earlier results, at random moments: the second part of ``make chaos``.

Old results stand until new ones are whole: after each kill, what lies there can be read, and is
the old result or the new one.
"""

import argparse
import random
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conftest import tiny_model, write
from cyclenet.config.schema import DatasetConfig, TrainConfig
from cyclenet.data.cache import open_cache
from cyclenet.data.open import open_split
from cyclenet.lab.report.evaluations import read_evaluation
from cyclenet.lab.report.runs import find_runs
from cyclenet.training.task import SegmentationTask
from made import save_checkpoint
from warm import run_forked
from world import COMMANDS, make_world


def add_city(root: Path) -> None:
    """Add Cityscapes in small and a model of its classes, for `submit`."""
    rng = np.random.default_rng(0)
    for i in range(6):
        stem = f"test/bern/bern_{i:06d}_000019_leftImg8bit.png"
        image = rng.integers(0, 256, (64, 128, 3), dtype=np.uint8)
        write(root / "city/leftImg8bit" / stem, image)
    dataset = DatasetConfig(name="cityscapes", root=str(root / "city"))
    source = open_split(dataset, "test")
    cfg = TrainConfig(model=tiny_model(), dataset=dataset)
    for seed in range(2):
        torch.manual_seed(seed)
        task = SegmentationTask(cfg, source.classes, source.palette.tolist())
        torch.nn.init.normal_(task.net.classifier[-1].weight, std=3)
        save_checkpoint(task, root / f"city{seed}.ckpt")


def evaluation(root: Path) -> None:
    """Read the scores and the counts."""
    found = read_evaluation(root / "scores")
    assert np.array_equal(found.counts["confusion"], np.array(found.scores.confusion))


def published(root: Path) -> None:
    """Read the published runs."""
    assert all(run.finished for run in find_runs([root / "published"]))
    assert len(find_runs([root / "published"])) == 2


def report(root: Path) -> None:
    """Read the report's page."""
    assert (root / "report/report.html").read_text().endswith("</body></html>\n")


def cache(root: Path) -> None:
    """Read every pair of the cache, where there is one of the files as they are."""
    source = open_split(DatasetConfig(name="folder", root=str(root / "data")), "train")
    for folder in (root / "cache").glob("folder-train-????????"):
        found = open_cache(source, folder)
        for index in range(len(source)) if found else ():
            assert found is not None
            assert np.array_equal(found.image(index), source.image(index))


def pictures(root: Path) -> None:
    """Decode every label."""
    for path in (root / "out/label").rglob("*.png"):
        if not path.name.startswith(".tmp"):
            Image.open(path).load()


def submission(root: Path) -> None:
    """Read the .zip."""
    with zipfile.ZipFile(root / "sent.zip") as file:
        assert file.testzip() is None and len(file.namelist()) == 6


CITY = ["dataset.root=city", "split=test", "output=sent"]
TRIALS: dict[str, tuple[list[str], Callable[[Path], None]]] = {
    "evaluate": ([*COMMANDS["evaluate"][1][1:], "output=scores"], evaluation),
    "publish": (COMMANDS["publish"][1], published),
    "report": (COMMANDS["report"][1], report),
    "prepare": (COMMANDS["prepare"][1], cache),
    "predict": (COMMANDS["predict"][1][1:], pictures),
    "submit": (CITY, submission),
}
"""Words of each command, without its checkpoint, and what must hold after a kill."""


def words_of(command: str, turn: int) -> list[str]:
    """Return a command's words; every other turn has another model."""
    words = TRIALS[command][0]
    model = f"city{turn % 2}.ckpt" if command == "submit" else f"model{turn % 2}.ckpt"
    return [f"ckpt_path={model}", *words] if command in ("evaluate", "predict", "submit") else words


def change_inputs(command: str, root: Path, turn: int) -> None:
    """Let a command without a model have something new to write."""
    if command == "prepare":
        path = root / "data/images/train/im0.png"
        write(path, np.full((40, 48, 3), turn, np.uint8))


def main() -> None:
    """Kill each command several times and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        root = make_world(Path(folder) / "world")
        add_city(root)
        for seed in range(2):
            shutil.copy(root / "model.ckpt", root / f"model{seed}.ckpt")
        for command, (_, check) in TRIALS.items():
            began = time.monotonic()
            code, output = run_forked(command, words_of(command, 0), root, 120)
            seconds = time.monotonic() - began
            assert code == 0, output
            held = 0
            for turn in range(1, options.kills + 1):
                change_inputs(command, root, turn)
                after = rng.uniform(0.3, 1) * seconds
                run_forked(command, words_of(command, turn), root, 120, kill_after=after)
                try:
                    check(root)
                    held += 1
                except Exception as error:
                    print(f"{command}, killed after {after:.2f} s: {error!r}", flush=True)
            code, output = run_forked(command, words_of(command, 0), root, 120)
            assert code == 0, output
            check(root)
            print(f"{command}: {held} of {options.kills} kills left whole results", flush=True)
            wrong += options.kills - held
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
