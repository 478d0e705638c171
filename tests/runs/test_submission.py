"""Submissions: what the servers take, scored by their own scripts as by ours."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import noise_image, run, tiny_model, write
from cyclenet.commands.evaluate import run as evaluate
from cyclenet.config.commands import SubmitConfig
from cyclenet.config.schema import DatasetConfig, ProtocolConfig, TrainConfig
from cyclenet.data.images import DataError
from cyclenet.data.open import open_split
from cyclenet.runs.submission import check, file_name, pack, server_ids, submit, write_prediction

REAL = Path(__file__).parents[3] / "shared/data"


def untrained(tmp_path: Path, dataset: DatasetConfig) -> Path:
    """A checkpoint whose predictions differ from pixel to pixel."""
    from cyclenet.training.task import SegmentationTask

    torch.manual_seed(0)
    source = open_split(dataset, dataset.val_split)
    task = SegmentationTask(
        TrainConfig(model=tiny_model(), dataset=dataset), source.classes, source.palette.tolist()
    )
    torch.nn.init.normal_(task.net.classifier[-1].weight, std=3)
    path = tmp_path / "run/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict()}, path)
    return path


def scored(checkpoint: Path, dataset: DatasetConfig, output: Path) -> dict:
    from cyclenet.config.commands import EvaluateConfig

    evaluate(EvaluateConfig(str(checkpoint), dataset, output=str(output), boundary=False))
    return json.loads((output / "scores.json").read_text())


def compare_with_cityscapes(root: Path, split: str, tmp_path: Path) -> None:
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script

    dataset = DatasetConfig(name="cityscapes", root=str(root), val_split=split)
    checkpoint = untrained(tmp_path, dataset)
    archive, number = submit(SubmitConfig(str(checkpoint), dataset, ProtocolConfig(), split=split))
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "server")
    names = [p.name for p in sorted(root.glob(f"leftImg8bit/{split}/*/*.png"))]
    assert sorted(p.name for p in (tmp_path / "server").iterdir()) == sorted(
        names
    ) and number == len(names)
    # As the script's own main: it looks up a prediction for each ground truth by its name.
    truth = sorted(str(p) for p in root.glob(f"gtFine/{split}/*/*_labelIds.png"))
    args = script.args
    args.predictionPath, args.predictionWalk = str(tmp_path / "server"), None
    args.evalInstLevelScore, args.quiet, args.JSONOutput = False, True, False
    official = script.evaluateImgLists(
        [script.getPrediction(args, path) for path in truth], truth, args
    )
    ours = scored(checkpoint, dataset, tmp_path / "scores")
    for name, value in official["classScores"].items():
        if name in ours["IoU"]:
            assert (
                ours["IoU"][name] is None
                if np.isnan(value)
                else abs(ours["IoU"][name] - value) < 1e-12
            )
    assert abs(ours["mIoU"] - official["averageScoreClasses"]) < 1e-12
    assert len([v for v in ours["IoU"].values() if v]) > 3


def test_cityscapes_own_script_scores_the_submission_as_we_do(cityscapes, tmp_path):
    compare_with_cityscapes(cityscapes, "val", tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real Cityscapes files")
def test_cityscapes_own_script_scores_real_files_as_we_do(tmp_path):
    """Two real pairs, in a folder of their own."""
    for image in sorted((REAL / "cityscapes").glob("leftImg8bit/train/*/*.png"))[:2]:
        name, city = image.name.removesuffix("_leftImg8bit.png"), image.parent.name
        mask = REAL / "cityscapes/gtFine/train" / city / f"{name}_gtFine_labelIds.png"
        for path in (image, mask):
            target = tmp_path / "data" / path.relative_to(REAL / "cityscapes")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())
    compare_with_cityscapes(tmp_path / "data", "train", tmp_path)


def ade_benchmark(truth: list[np.ndarray], prediction: list[np.ndarray]) -> tuple[float, float]:
    """The benchmark's rule, as its development kit states it: pixels of label 0 do not count, IoU
    is of sums over images.
    """
    intersection, union, right, labelled = np.zeros(150), np.zeros(150), 0, 0
    for t, p in zip(truth, prediction, strict=True):
        p = p * (t > 0)
        right, labelled = right + ((p == t) & (t > 0)).sum(), labelled + (t > 0).sum()
        overlap = p * (p == t)
        areas = [np.histogram(a, bins=150, range=(1, 151))[0] for a in (overlap, p, t)]
        intersection += areas[0]
        union += areas[1] + areas[2] - areas[0]
    return (intersection[union > 0] / union[union > 0]).mean(), right / labelled


def test_ade20k_is_scored_by_the_benchmarks_rule_as_by_ours(ade20k, tmp_path):
    compare_with_ade20k(ade20k, tmp_path, 3)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real ADE20K files")
def test_ade20k_is_scored_by_the_benchmarks_rule_on_real_files(tmp_path):
    """Two images, in which most of the 150 classes do not occur."""
    compare_with_ade20k(REAL / "ade20k", tmp_path, 2)


def compare_with_ade20k(root: Path, tmp_path: Path, images: int) -> None:
    dataset = DatasetConfig(
        name="ade20k", root=str(root), train_split="training", val_split="validation"
    )
    checkpoint = untrained(tmp_path, dataset)
    archive, _ = submit(
        SubmitConfig(str(checkpoint), dataset, ProtocolConfig(), split="validation")
    )
    truth, prediction = [], []
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            prediction.append(np.asarray(Image.open(file.open(name))))
            truth.append(
                np.asarray(Image.open(root / "ADEChallengeData2016/annotations/validation" / name))
            )
    assert (
        len(truth) == images
        and min(p.min() for p in prediction) >= 1
        and max(p.max() for p in prediction) <= 150
    )
    miou, accuracy = ade_benchmark(truth, prediction)
    ours = scored(checkpoint, dataset, tmp_path / "scores")
    assert abs(ours["mIoU"] - miou) < 1e-12 and abs(ours["pixel_accuracy"] - accuracy) < 1e-12


@pytest.fixture
def whole(cityscapes, tmp_path):
    """A submission of two predictions, and what they are checked against."""
    source = open_split(DatasetConfig(name="cityscapes", root=str(cityscapes)), "train")
    ids, folder = server_ids("cityscapes"), tmp_path / "out"
    for pair in source.pairs:
        labels = np.random.default_rng(0).integers(0, 19, (64, 128))
        write_prediction(folder / file_name(pair), labels, ids)
    check(folder, source.pairs, ids)
    return folder, source, ids


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.unlink(), "jena_000000_000019_leftImg8bit.png is missing"),
        (lambda f: write(f, np.full((64, 128), 9, np.uint8)), "has the illegal id 9"),
        (
            lambda f: write(f, np.full((64, 128), 18, np.uint8)),
            "has the illegal id 18",
        ),  # A train id.
        (lambda f: write(f, np.full((32, 64), 7, np.uint8)), "is 64x32 instead of 128x64"),
        (lambda f: write(f, np.full((64, 128, 3), 7, np.uint8)), "of mode RGB"),
        (lambda f: f.write_bytes(f.read_bytes()[:60]), "cannot be read"),
        (
            lambda f: write(f.with_name("more.png"), np.full((64, 128), 7, np.uint8)),
            "more.png is one too many",
        ),
    ],
)
def test_what_the_server_would_refuse_is_refused_here(whole, damage, message):
    folder, source, ids = whole
    damage(folder / "jena_000000_000019_leftImg8bit.png")
    with pytest.raises(DataError, match="no whole submission: .*" + message):
        pack(folder, source.pairs, ids)
    assert not folder.with_name("out.zip").exists()


def test_test_images_need_no_masks_and_a_stopped_submission_goes_on(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(3):
        write(
            tmp_path / f"city/leftImg8bit/test/berlin/berlin_{i:06d}_000019_leftImg8bit.png",
            noise_image(rng, 64, 128),
        )
    for stem in (
        "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit",
        "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds",
    ):
        write(
            tmp_path / f"city/{stem}.png",
            np.full((64, 128, 3), 7, np.uint8)[..., : 3 if "left" in stem else 1].squeeze(),
        )
    dataset = DatasetConfig(name="cityscapes", root=str(tmp_path / "city"))
    checkpoint = untrained(tmp_path, dataset)
    root = f"dataset.root={tmp_path}/city"  # A checkpoint does not say where data lie.
    output = run("submit", f"ckpt_path={checkpoint}", root, cwd=tmp_path)
    assert "3 predictions by whole (whole image; scale 1; no flip), checked: " in output
    folder = tmp_path / "run/submit/cityscapes-test-whole"
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    (folder / "berlin_000001_000019_leftImg8bit.png").unlink()
    cfg = SubmitConfig(str(checkpoint), dataset, ProtocolConfig())
    submit(cfg)
    after = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    assert {name for name in before if before[name][0] != after[name][0]} == {
        "berlin_000001_000019_leftImg8bit.png"
    }
    assert {name: data for name, (_, data) in before.items()} == {
        name: data for name, (_, data) in after.items()
    }
    # An image that was replaced is predicted anew, and with it all.
    image = tmp_path / "city/leftImg8bit/test/berlin/berlin_000002_000019_leftImg8bit.png"
    os.utime(image, ns=(1, 1))
    submit(cfg)
    anew = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert all(anew[name] != time for name, (time, _) in after.items())
    # Another model's predictions are not mixed with these.
    state = torch.load(checkpoint, weights_only=True)
    state["state_dict"]["net.classifier.1.weight"] *= -1
    torch.save(state, checkpoint)
    submit(cfg)
    assert all(p.read_bytes() != before[p.name][1] for p in folder.iterdir())
    # Nor if it was stopped after the first of them.
    second = {p.name: p.read_bytes() for p in folder.iterdir()}
    state["state_dict"]["net.classifier.1.weight"] *= -0.5
    torch.save(state, checkpoint)
    written = []

    def stop(path, *args):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_prediction(path, *args)

    monkeypatch.setattr("cyclenet.runs.submission.write_prediction", stop)
    with pytest.raises(KeyboardInterrupt):
        submit(cfg)
    assert len(list(folder.iterdir())) == 1
    # The .zip of before stands until the new one is whole.
    with zipfile.ZipFile(folder.with_name(folder.name + ".zip")) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == second
    monkeypatch.undo()
    submit(cfg)
    assert (
        all(p.read_bytes() != second[p.name] for p in folder.iterdir())
        and len(list(folder.iterdir())) == 3
    )


@pytest.mark.parametrize("name", ["camvid", "scenes"])
def test_a_data_set_without_a_server_is_refused(name):
    with pytest.raises(
        ValueError,
        match=f"dataset={name} has no test server; submissions are for cityscapes and ade20k",
    ):
        submit(SubmitConfig("any.ckpt", DatasetConfig(name=name)))
