"""The commands as a user runs them, on small data in the real layouts."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import TINY, noise_image, run, write
from cyclenet.data.images import DataError
from cyclenet.runs.video import VideoWriter

ROOTS = {"camvid": "camvid", "cityscapes": "cityscapes", "ade20k": "ade"}


def folder_of(tmp_path):
    (path,) = (tmp_path / "runs").glob("*/*")
    return path


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "ade20k", "scenes"])
def test_train_evaluate_predict(name, tmp_path, request):
    if name == "scenes":
        data = [
            "dataset=scenes",
            "dataset.scenes_train=4",
            "dataset.scenes_val=2",
            "dataset.scenes_size=[64,128]",
        ]
    else:
        request.getfixturevalue(name)
        data = [f"dataset={name}", f"dataset.root={ROOTS[name]}"]
    output = run("train", *data, *TINY, cwd=tmp_path)
    assert "mIoU" in output and "Protocol: whole (whole image; scale 1; no flip)" in output
    folder = folder_of(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished" and 0 <= result["metrics"]["val/mIoU"] <= 1
    assert (
        result["overrides"] == [*data, *TINY]
        and result["seconds"] > 0
        and result["peak_rss_mb"] > 100
    )
    for left in (
        "config.yaml",
        "metrics.csv",
        "validation.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    ):
        assert (folder / left).stat().st_size > 0, left

    last = folder / "checkpoints/last.ckpt"
    (scores,) = folder.glob("evaluate/*/scores.json")  # Training ended in it.
    found = json.loads(scores.read_text())
    assert abs(found["mIoU"] - result["metrics"]["val/mIoU"]) < 1e-6
    assert (scores.parent / "confusion.png").stat().st_size > 10_000
    if name == "camvid":  # By hand, into the same folder, and the same again.
        output = run("evaluate", f"ckpt_path={last}", data[1], cwd=tmp_path)
        assert (
            "Protocol: whole (whole image; scale 1; no flip)" in output and "pixel acc." in output
        )
        again = json.loads(scores.read_text())
        assert list(folder.glob("evaluate/*")) == [scores.parent]
        assert {**again, "checkpoint": ""} == {**found, "checkpoint": ""}
    options = [
        "protocol=sliding",
        "protocol.window=48",
        "protocol.stride=32",
        "protocol.scales=[0.5,1]",
        "protocol.flip=true",
    ]
    output = run(
        "evaluate",
        f"ckpt_path={last}",
        data[1],  # A checkpoint does not say where data lie.
        *options,
        f"output={tmp_path / 'out'}",
        "accelerator=cpu",
        cwd=tmp_path,
    )
    assert "Protocol: sliding (windows 48/32, probs; scale 0.5/1; flip)" in output
    assert json.loads((tmp_path / "out/scores.json").read_text())["mIoU"] != found["mIoU"]

    rng = np.random.default_rng(0)
    write(tmp_path / "in/a street.png", noise_image(rng, 50, 70))
    write(tmp_path / "in/sub/photo.jpg", noise_image(rng, 61, 33))
    output = run("predict", f"ckpt_path={last}", "input=in", "output=predicted", cwd=tmp_path)
    assert "2 predicted, 0 skipped" in output
    for stem, size in (("a street", (70, 50)), ("sub/photo", (33, 61))):
        label = Image.open(tmp_path / f"predicted/label/{stem}.png")
        assert label.size == size and np.asarray(label).max() < len(found["IoU"])
        assert Image.open(tmp_path / f"predicted/color/{stem}.png").size == size
        overlay = Image.open(tmp_path / f"predicted/overlay/{stem}.png")
        assert overlay.size[0] == size[0] and overlay.size[1] > size[1]  # the legend


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run on two scenes."""
    path = tmp_path_factory.mktemp("trained")
    run(
        "train",
        "dataset.scenes_train=2",
        "dataset.scenes_val=1",
        "dataset.scenes_size=[64,96]",
        *TINY,
        cwd=path,
    )
    return folder_of(path) / "checkpoints/last.ckpt"


def test_predict_skips_what_it_cannot_read_and_says_so(checkpoint, tmp_path):
    write(tmp_path / "in/good.png", noise_image(np.random.default_rng(0), 40, 50))
    (tmp_path / "in/bad.png").write_bytes((tmp_path / "in/good.png").read_bytes()[:900])
    (tmp_path / "in/note.txt").write_text("not an image")
    output = run(
        "predict", f"ckpt_path={checkpoint}", "input=in", "output=out", cwd=tmp_path, ok=False
    )
    assert "bad.png is not a readable image" in output and "1 predicted, 1 skipped" in output
    assert [p.name for p in (tmp_path / "out/label").iterdir()] == ["good.png"]
    output = run(
        "predict", f"ckpt_path={checkpoint}", "input=nowhere", "output=out", cwd=tmp_path, ok=False
    )
    assert (
        output
        == "error: input: there is no nowhere; give an image, a folder of images, or a video.\n"
    )


def test_predict_a_video(checkpoint, tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (96, 64)
    )
    for shade in (0, 100, 200):
        writer.write(np.full((64, 96, 3), shade, np.uint8))
    writer.release()
    assert "3 predicted" in run(
        "predict", f"ckpt_path={checkpoint}", "input=drive.avi", "output=out", cwd=tmp_path
    )
    assert sorted(p.name for p in (tmp_path / "out/label/drive").iterdir()) == [
        f"00000{i}.png" for i in range(3)
    ]
    video = cv2.VideoCapture(str(tmp_path / "out/overlay/drive.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (3, 12)
    # A shorter video of the same name leaves none of the longer one's frames.
    writer = cv2.VideoWriter(
        str(tmp_path / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (96, 64)
    )
    writer.write(np.full((64, 96, 3), 50, np.uint8))
    writer.release()
    run("predict", f"ckpt_path={checkpoint}", "input=drive.avi", "output=out", cwd=tmp_path)
    assert [p.name for p in (tmp_path / "out/label/drive").iterdir()] == ["000000.png"]


def test_a_video_that_is_not_whole_replaces_none(tmp_path):
    """OpenCV drops frames without a word where the disk is full."""

    class Full:
        def write(self, frame):
            pass

        def isOpened(self):
            return True

        def release(self):
            writer.file.release()

    (tmp_path / "a.mp4").write_bytes(b"before")
    frame = np.zeros((64, 96, 3), np.uint8)
    message = r"a\.mp4 could not be written whole: free disk space in"
    with pytest.raises(DataError, match=message), VideoWriter(tmp_path / "a.mp4") as video:
        video.add(frame, 5)
        writer, video.file = SimpleNamespace(file=video.file), Full()
        video.add(frame, 5)
    assert (tmp_path / "a.mp4").read_bytes() == b"before"


def test_evaluating_on_other_classes_is_refused(checkpoint, camvid, tmp_path):
    words = ["evaluate", f"ckpt_path={checkpoint}", "dataset=camvid", f"dataset.root={camvid}"]
    output = run(*words, cwd=tmp_path, ok=False)
    assert output.startswith("error: ") and "trained on other classes than camvid has" in output
    assert "error: There is no checkpoint x.ckpt" in run(
        "evaluate", "ckpt_path=x.ckpt", cwd=tmp_path, ok=False
    )


@pytest.mark.parametrize(
    ("damage", "message", "workers"),
    [
        (
            lambda p: (p / "train/frame_1.png").write_bytes(b"\x89PNG"),
            "frame_1.png is not a readable image",
            0,
        ),
        (
            lambda p: (p / "train/frame_1.png").write_bytes(b"\x89PNG"),
            "frame_1.png is not a readable image",
            1,
        ),
        (
            lambda p: write(p / "trainannot/frame_1.png", np.full((72, 96), 99, np.uint8)),
            "frame_1.png has the illegal class id 99",
            0,
        ),
        (lambda p: (p / "trainannot/frame_1.png").unlink(), "frame_1.png does not exist", 1),
    ],
)
def test_bad_files_end_training_with_a_sentence_and_check_data_names_them(
    camvid, tmp_path, damage, message, workers
):
    damage(camvid)
    words = ["dataset=camvid", "dataset.root=camvid"]
    output = run("train", *words, *TINY, f"trainer.num_workers={workers}", cwd=tmp_path, ok=False)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] and "Traceback" not in output
    result = json.loads((folder_of(tmp_path) / "result.json").read_text())
    assert result["status"] == "failed" and message in result["error"]
    if not workers or "exist" in message:
        output = run("check_data", *words, cwd=tmp_path, ok=False)
        assert message in output and "1 bad files" in output and "camvid train: 4 pairs" in output


def test_the_same_command_goes_on_where_it_stopped(tmp_path):
    words = [
        "dataset.scenes_train=4",
        "dataset.scenes_val=1",
        "dataset.scenes_size=[64,96]",
        *TINY,
        "trainer.max_epochs=2",
    ]
    run("train", *words, cwd=tmp_path)
    folder = folder_of(tmp_path)
    first = (folder / "result.json").read_text()
    assert "Finished before" in run("train", *words, cwd=tmp_path)
    assert (folder / "result.json").read_text() == first
    # In the same folder by hand: another network's numbers would pass for this one's.
    output = run(
        "train",
        *words,
        "optim.lr=0.5",
        "extra_protocols=[sliding]",
        f"hydra.run.dir={folder}",
        cwd=tmp_path,
        ok=False,
    )
    assert "holds a finished run with another optim.lr (0.02 there, 0.5 here): give " in output
    output = run("train", *words, "extra_protocols=[slidin]", cwd=tmp_path, ok=False)
    assert (
        "extra_protocols must be one of" in output and (folder / "result.json").read_text() == first
    )
    # A run that was cut off has no finished result, but a checkpoint.
    (folder / "result.json").unlink()
    run("train", *words, "resume=must", cwd=tmp_path)
    again = json.loads((folder / "result.json").read_text())
    assert again["metrics"]["val/mIoU"] == json.loads(first)["metrics"]["val/mIoU"]
    assert "resume=must, but there is no" in run(
        "train", *words, "resume=must", "seed=5", cwd=tmp_path, ok=False
    )


def test_two_processes_validate_three_images_of_unequal_size(ade20k, tmp_path):
    """One process has an image less; the scores are those of one process with the same weights."""
    words = [
        "dataset=ade20k",
        "dataset.root=ade",
        *TINY,
        "trainer.devices=2",
        "trainer.max_epochs=2",
    ]
    assert "2 process(es)" in run("train", *words, cwd=tmp_path)
    folder = folder_of(tmp_path)
    (scores,) = folder.glob("evaluate/*/scores.json")
    run(
        "evaluate",
        f"ckpt_path={folder}/checkpoints/last.ckpt",
        "dataset.root=ade",
        "output=alone",
        "accelerator=cpu",
        cwd=tmp_path,
    )
    two, one = (json.loads(path.read_text()) for path in (scores, tmp_path / "alone/scores.json"))
    assert {**two, "checkpoint": ""} == {**one, "checkpoint": ""} and one["images"] == 3
    assert (
        abs(json.loads((folder / "result.json").read_text())["metrics"]["val/mIoU"] - one["mIoU"])
        < 1e-6
    )


def test_the_end_is_validated_whatever_the_interval(tmp_path):
    words = [
        "dataset.scenes_train=2",
        "dataset.scenes_val=1",
        "dataset.scenes_size=[64,96]",
        *TINY,
        "trainer.val_every_epochs=2",
    ]
    run("train", *words, "trainer.max_epochs=3", cwd=tmp_path)
    rows = (folder_of(tmp_path) / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/mIoU")
    assert sum(bool(row.split(",")[column]) for row in rows[1:]) == 2
    assert "val/mIoU" in json.loads((folder_of(tmp_path) / "result.json").read_text())["metrics"]


def test_wandb_and_tensorboard_receive_the_run(tmp_path):
    words = ["dataset.scenes_train=2", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]", *TINY]
    run(
        "train",
        *words,
        "logger=wandb",
        "logger.wandb=offline",
        "logger.tensorboard=true",
        "logger.every_n_steps=1",
        cwd=tmp_path,
        WANDB_SILENT="true",
    )
    folder = folder_of(tmp_path)
    assert list(folder.glob("wandb/offline-run-*/*.wandb")) and list(
        folder.glob("tensorboard/events*")
    )
    files = [
        p.relative_to(folder).as_posix()
        for p in folder.glob("wandb/offline-run-*/files/media/**/*")
        if p.is_file()
    ]
    assert any("images/val/pictures" in f for f in files) and any("images/mask" in f for f in files)
    assert any("table/val/per_class" in f for f in files)
    # Read back: how a sweep is told apart, and what the evaluation at the end leaves.
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    records = [
        json.loads(line)
        for line in subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    ]
    about = next(record["run"] for record in records if record["type"] == "run")
    # The digest tells apart what is made of the same, as share_norm.
    arm = r"CycleASPP\(1,2,3\) \+ ADC [0-9a-f]{4}"
    assert (
        re.fullmatch(arm + ", seed 0", about["display_name"])
        and about["run_group"] == "train-scenes"
    )
    assert re.fullmatch(arm, about["job_type"]) and set(about["tags"]) == {
        "scenes",
        "resnet10t",
        "cycleaspp",
        "adc",
    }
    summary = {}
    for record in records:
        summary |= record["summary"].get("update", {}) if record["type"] == "summary" else {}
    scores = json.loads(next(folder.glob("evaluate/*/scores.json")).read_text())
    assert summary["final/whole/mIoU"] == pytest.approx(scores["mIoU"])
    assert summary["final/whole/boundary_IoU"] == pytest.approx(scores["boundary"]["mIoU"])
    assert summary["final/whole/confusion._type"] == "image-file"
    for key, rows in (("confusion_matrix_table", 19 * 19), ("trimap_table", 9), ("per_class", 19)):
        assert summary[f"final/whole/{key}.nrows"] == rows
        table = json.loads((path.parent / "files" / summary[f"final/whole/{key}.path"]).read_text())
        if key == "trimap_table":
            assert [row[1] for row in table["data"]] == pytest.approx(scores["trimap"]["mIoU"])
        elif key == "confusion_matrix_table":
            assert [row[2] for row in table["data"]] == [
                count for row in scores["confusion"] for count in row
            ]
    drawn = [
        key
        for record in records
        if record["type"] == "config"
        for key in record["config"].get("update", {})
    ]
    assert {
        "_wandb.visualize.final/whole/confusion_matrix",
        "_wandb.visualize.final/whole/trimap",
    } <= set(drawn)


def test_every_command_tells_its_usage(tmp_path):
    for command in ("evaluate", "predict", "check_data"):
        assert f"python src/{command}.py" in run(command, "--help", cwd=tmp_path)
