"""Evaluation image by image: exact, independent of processes, and what training leaves."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from conftest import TINY, run, tiny_model
from cyclenet.config.commands import EvaluateConfig
from cyclenet.config.restore import read_config
from cyclenet.config.schema import DatasetConfig, ProtocolConfig, TrainConfig
from cyclenet.data.base import Source
from cyclenet.lab.report.evaluations import read_evaluation
from cyclenet.runs.evaluate import count, evaluate, summarise
from cyclenet.runs.results import RunResult, missing_protocols
from cyclenet.scoring.metrics import scores
from cyclenet.training.task import SegmentationTask
from made import model_of

CLASSES = [f"class {i}" for i in range(4)]


class Noise(Source):
    """Seven images of unequal sizes; one class never occurs."""

    classes = CLASSES
    palette = np.zeros((4, 3), np.uint8)

    def __len__(self):
        return 7

    def name(self, index):
        return f"noise {index}"

    def image(self, index):
        return np.random.default_rng(index).integers(
            0, 256, (40 + 3 * index, 56, 3), dtype=np.uint8
        )

    def mask(self, index):
        labels = np.array([0, 1, 2, 255], np.uint8)
        return np.kron(
            np.random.default_rng(100 + index).choice(labels, (40 + 3 * index, 7)),
            np.ones((1, 8), np.uint8),
        )


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    task = SegmentationTask(TrainConfig(model=tiny_model()), CLASSES, [[0, 0, 0]] * 4)
    torch.nn.init.normal_(task.net.classifier[-1].weight, std=3)
    return task.eval()


CFG = EvaluateConfig(
    "run/checkpoints/last.ckpt", DatasetConfig(), ProtocolConfig(scales=[1.0, 0.5])
)


def test_counts_are_those_of_the_predictions(task):
    source, found = Noise(), count(model_of(task), Noise(), CFG)
    assert (
        found["pixels"].shape == (7, 4, 3)
        and found["boundary"].shape == (7, 4, 3)
        and found["trimap"].shape == (7, 9, 4, 3)
    )
    matrix = np.zeros((4, 4), int)
    for i in range(7):
        image = torch.from_numpy(source.image(i)).permute(2, 0, 1)[None]
        prediction = model_of(task).labels(image, CFG.protocol)[0].numpy()
        mask = source.mask(i)
        for c in range(4):
            true, predicted = mask == c, (prediction == c) & (mask != 255)
            assert found["pixels"][i, c].tolist() == [
                (true & predicted).sum(),
                true.sum(),
                predicted.sum(),
            ]
            matrix[c] += [(true & (prediction == p)).sum() for p in range(4)]
    assert np.array_equal(found["confusion"], matrix)
    result = summarise(found, CLASSES, CFG)
    assert vars(result) | vars(scores(matrix, CLASSES)) == vars(result)
    assert result.trimap.mIoU[-1] > 0 and len(result.trimap.IoU["class 1"]) == 9
    assert (
        found["confusion"].sum(1)[3] == 0 and len({m.argmax() for m in matrix.T}) > 1
    )  # Not all one class.


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_any_number_of_processes_counts_the_same(task, monkeypatch, world_size):
    alone = count(model_of(task), Noise(), CFG)
    shares = []
    monkeypatch.setattr(
        "cyclenet.runs.evaluate._gather", lambda counts, world: shares.append(counts)
    )
    for rank in range(world_size):
        count(model_of(task), Noise(), CFG, rank, world_size)
    monkeypatch.undo()
    assert [len(share["pixels"]) for share in shares] == [
        len(range(rank, 7, world_size)) for rank in range(world_size)
    ]

    def all_gather_object(into, own):
        into[:] = [dict(share) for share in shares]

    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    joined = count(model_of(task), Noise(), CFG, 0, world_size)
    assert joined.keys() == alone.keys()
    for key, value in alone.items():
        assert np.array_equal(joined[key], value), key


def test_the_result_is_written_with_what_it_depends_on(task, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclenet.runs.evaluate.open_validation", lambda cfg, split: Noise())
    result, folder = evaluate(model_of(task), CFG, tmp_path)
    assert json.loads((folder / "scores.json").read_text()) == asdict(result)
    assert read_evaluation(folder).scores == result
    with np.load(folder / result.counts) as arrays:
        assert arrays["names"].tolist() == [f"noise {i}" for i in range(7)]
        assert all(
            np.array_equal(arrays[key], value)
            for key, value in count(model_of(task), Noise(), CFG).items()
        )
    assert {p.name for p in folder.iterdir()} == {
        "scores.json",
        result.counts,
        "confusion.png",
        "trimap.png",
    }
    # A damaged one is made anew in the run; a file of the user's elsewhere is refused.
    (folder / "scores.json").write_text("{")
    assert evaluate(model_of(task), CFG, tmp_path)[0] == result
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/scores.json").write_text('{"mine": 1}')
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/trimap.png").write_text("mine")
    with pytest.raises(ValueError, match=r"trimap\.png is of no evaluation"):
        evaluate(model_of(task), replace(CFG, output=str(tmp_path / "pictures")), tmp_path)
    with pytest.raises(ValueError, match=r"scores\.json is of no evaluation"):
        evaluate(model_of(task), replace(CFG, output=str(tmp_path / "mine")), tmp_path)
    assert (tmp_path / "mine/scores.json").read_text() == '{"mine": 1}'
    plain = EvaluateConfig(CFG.ckpt_path, CFG.dataset, CFG.protocol, boundary=False)
    other, where = evaluate(model_of(task), plain, tmp_path)
    assert where != folder and other.trimap is None and other.mIoU == result.mIoU
    # Where the data were elsewhere in the training, the run's own evaluation stands.
    for module in ("results", "evaluate"):
        monkeypatch.setattr(f"cyclenet.runs.{module}.data_root", lambda dataset: "/data/fog")
    RunResult("finished", data_root="/data/fog").write(tmp_path)
    assert evaluate(model_of(task), CFG, tmp_path)[1] == folder
    RunResult("finished", data_root="/data/clear").write(tmp_path)
    other, where = evaluate(model_of(task), CFG, tmp_path)
    assert where != folder and other.elsewhere and not result.elsewhere


def test_training_ends_with_every_protocol_that_was_asked_for(tmp_path):
    words = ["dataset.scenes_train=2", "dataset.scenes_val=2", "dataset.scenes_size=[64,96]", *TINY]
    output = run("train", *words, "extra_protocols=[semseg_ss]", cwd=tmp_path)
    assert (
        "Protocol: semseg_ss (windows 769/513, probs; scale 1; flip)" in output
        and "boundary IoU" in output
    )
    (folder,) = (tmp_path / "runs").glob("*/*")
    first = json.loads((folder / "result.json").read_text())
    assert [key.split()[0] for key in first["evaluations"]] == ["whole", "semseg_ss"]
    whole = json.loads(
        (
            folder / first["evaluations"]["whole (whole image; scale 1; no flip)"] / "scores.json"
        ).read_text()
    )
    assert whole["mIoU"] == pytest.approx(first["metrics"]["val/mIoU"], abs=1e-7)

    # Other boundaries are no longer those that were scored.
    cfg = read_config(folder / "config.yaml")
    assert not missing_protocols(cfg, folder)
    cfg.dataset.boundary_ratio = 0.005
    assert [each.name for each in missing_protocols(cfg, folder)] == ["whole", "semseg_ss"]

    # One more, later: the training stands, and only that one is made.
    before = (folder / "checkpoints/last.ckpt").stat().st_mtime_ns
    output = run("train", *words, "extra_protocols=[semseg_ss,paper_ms]", cwd=tmp_path)
    assert (
        "Finished before" in output
        and "Protocol: paper_ms" in output
        and "Protocol: semseg_ss" not in output
    )
    second = json.loads((folder / "result.json").read_text())
    assert [key.split()[0] for key in second["evaluations"]] == ["whole", "semseg_ss", "paper_ms"]
    assert (folder / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    assert (
        second["metrics"] == first["metrics"] and second["train_seconds"] == first["train_seconds"]
    )
