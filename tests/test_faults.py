"""What people and hostile files did to the program, a test for each kind of fault."""

import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT, TINY, run, tiny_model, write
from cyclenet.config.commands import PredictConfig
from cyclenet.config.restore import read_config, restore
from cyclenet.config.schema import DatasetConfig, TrainConfig
from cyclenet.data.check import read_split
from cyclenet.data.datamodule import SegmentationData
from cyclenet.data.download import Archive, unpack
from cyclenet.data.images import DataError, decode_image, read_image, read_values
from cyclenet.data.meaning import check_meaning
from cyclenet.data.open import open_split
from cyclenet.environment import loader_problem, settle_home, settle_ranks
from cyclenet.files import atomic_write, read_yaml, safe_name
from cyclenet.lab.markdown import markdown_table, plain
from cyclenet.lab.report.evaluations import read_evaluation
from cyclenet.lab.report.publish import check_publishable, publish
from cyclenet.lab.report.runs import find_runs
from cyclenet.lab.report.write import write_report
from cyclenet.runs.evaluate import write as write_evaluation
from cyclenet.runs.folder import AlreadyFinishedError, RunFolder
from cyclenet.runs.predict import find_inputs, predict_all
from cyclenet.runs.results import RunResult, mark
from cyclenet.training.curves import read_metrics
from cyclenet.training.loggers import choose_wandb_mode
from cyclenet.training.metrics_csv import MetricsCSV
from made import fit, make_run, run_config, save_checkpoint, scenes_task, short_config, task_of

SCENES = ["dataset.scenes_train=4", "dataset.scenes_val=2", "dataset.scenes_size=[64,96]"]
IDS = np.repeat(np.arange(2, dtype=np.uint8), 24)[None].repeat(40, 0)


def own(root: Path, mask=lambda ids: ids, classes=("road", "sky"), count=3) -> Path:
    """A data set of one's own: two classes, side by side."""
    for split in ("train", "val"):
        for i in range(count):
            write(root / f"images/{split}/im{i}.png", np.stack([100 * IDS + 50] * 3, -1))
            write(root / f"masks/{split}/im{i}.png", mask(IDS))
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    return root


def opened(root: Path, split: str = "train"):
    return open_split(DatasetConfig(name="folder", root=str(root)), split)


def grey_png(path: Path, ids: np.ndarray, bits: int, palette=None) -> None:
    """A PNG of any bit depth, written by hand: grey, or with a palette."""
    lines = b""
    for row in ids:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    height, width = ids.shape
    kind = 0 if palette is None else 3
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    if palette is not None:
        data += chunk(b"PLTE", bytes(np.asarray(palette, np.uint8).ravel()))
    path.write_bytes(data + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


# 1. Wrong numbers in silence (sizes that are no multiple of the stride: models/test_resize.py).


def test_masks_of_0_and_255_are_refused_and_the_doctor_says_what_it_sees(tmp_path):
    root = own(tmp_path, lambda ids: ids * np.uint8(255))
    with pytest.raises(ValueError, match=r"every pixel is road \(0\) or ignored \(255, 50%"):
        check_meaning(opened(root))
    words = ["dataset=folder", f"dataset.root={root}"]
    output = run("train", *words, *TINY, "dataset.crop_size=[32,32]", cwd=tmp_path, ok=False)
    assert "where 255 stands for a class" in output
    output = run("check_data", *words, cwd=tmp_path)
    assert "sky never occurs, and 50% of the pixels are 255" in output


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_are_read_as_they_are_stored_at_any_depth(tmp_path, bits):
    ids = np.random.default_rng(0).integers(0, 2**bits, (7, 13), dtype=np.uint8)
    grey_png(tmp_path / "grey.png", ids, bits)
    assert np.array_equal(read_values(tmp_path / "grey.png"), ids)
    colors = np.random.default_rng(1).integers(0, 256, (2**bits, 3))
    grey_png(tmp_path / "palette.png", ids, bits, colors)
    assert np.array_equal(read_values(tmp_path / "palette.png"), ids)


def test_a_palette_of_greys_that_are_not_the_numbers_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    grey_png(path, IDS, 8, [[0] * 3, [7] * 3])
    with pytest.raises(DataError, match="numbers 0, 1 stand for the greys 0, 7"):
        read_values(path)
    grey_png(path, IDS, 8, [[0] * 3, [1] * 3])
    assert np.array_equal(read_values(path), IDS)


def test_a_mask_that_is_no_png_inside_is_refused(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="is JPEG inside"):
        read_values(tmp_path / "a.png")


def test_deep_images_are_refused_by_every_reader(tmp_path):
    for name, array in (("grey", np.full((4, 6), 999, np.uint16)),):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    cv2.imwrite(str(tmp_path / "rgb.png"), np.full((4, 6, 3), 999, np.uint16))
    cv2.imwrite(str(tmp_path / "rgb.tif"), np.full((4, 6, 3), 999, np.uint16))
    for name in ("grey.png", "rgb.png", "rgb.tif"):
        for read in (read_image, lambda path: decode_image(path.read_bytes(), path.name)):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_every_reader_shows_an_image_as_a_viewer_does(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = np.zeros((40, 64, 3), np.uint8)
    image[:20, :32] = 255
    path = tmp_path / f"a.{ending}"
    Image.fromarray(image).save(path, exif=exif)
    kinds = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's table, as Pillow names them.
    wanted = Image.fromarray(image)
    if orientation > 1:
        wanted = wanted.transpose(Image.Transpose(kinds[orientation]))
    shown = read_image(path).astype(int)  # JPEG and WebP change values a little.
    assert shown.shape == np.asarray(wanted).shape
    assert np.abs(shown - np.asarray(wanted)).mean() < 10


def test_a_short_window_of_accumulated_batches_is_a_mean_too(tmp_path):
    """One batch an epoch: the step of four accumulated batches is that of one."""
    starts = []
    for number in (1, 4):
        cfg = short_config()
        trainer = replace(cfg.trainer, accumulate_grad_batches=number, max_epochs=1)
        dataset = replace(cfg.dataset, scenes_train=2)
        optim = replace(cfg.optim, momentum=0.0, weight_decay=0.0)
        cfg = replace(cfg, trainer=trainer, dataset=dataset, optim=optim)
        task, _ = fit(cfg, tmp_path / str(number))
        starts.append(task.net.classifier[1].weight.detach().clone())
    assert torch.equal(*starts)


def test_names_are_compared_at_resume_and_have_no_byte_order_mark(tmp_path):
    root = own(tmp_path)
    dataset = DatasetConfig(name="folder", root=str(root), cache="never", batch_size=2)
    data = SegmentationData(dataset, 0)
    state = data.state_dict()
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfsky\r\nroad\r\n")
    assert opened(root).classes == ["sky", "road"]
    again = SegmentationData(dataset, 0)
    with pytest.raises(ValueError, match=r"classes was \['road', 'sky'\] and is \['sky', 'road'\]"):
        again.load_state_dict(state)


def test_another_number_of_classes_at_resume_is_a_sentence(tmp_path):
    root = own(tmp_path / "data")
    words = ["dataset=folder", f"dataset.root={root}", *TINY, "dataset.crop_size=[32,32]"]
    run("train", *words, "hydra.run.dir=r", cwd=tmp_path)
    (tmp_path / "r/result.json").unlink()
    (root / "classes.txt").write_text("road\nsky\ntree\n")
    output = run("train", *words, "hydra.run.dir=r", cwd=tmp_path, ok=False)
    assert "classes was ['road', 'sky'] and is ['road', 'sky', 'tree']" in output
    assert "Traceback" not in output and (tmp_path / "r/checkpoints/last.ckpt").exists()


def test_subfolders_of_a_split_are_used(tmp_path):
    root = own(tmp_path)
    for kind in ("images", "masks"):
        (root / kind / "train/day 1").mkdir()
        (root / kind / "train/im1.png").rename(root / kind / "train/day 1/im1.png")
    (root / "images/train/._im1.png").write_bytes(b"what a Mac leaves")
    source = opened(root)
    assert [source.name(i) for i in range(3)] == ["day 1/im1", "im0", "im2"]
    assert source.mask(0).shape == source.image(0).shape[:2]


def test_endings_have_any_case_and_what_is_not_read_is_named(tmp_path):
    root = own(tmp_path)
    for kind in ("images", "masks"):
        for path in (root / kind / "train").iterdir():
            path.rename(path.with_suffix(".PNG"))
    (root / "images/train/old.gif").write_bytes(b"GIF89a")
    source, report = read_split(DatasetConfig(name="folder", root=str(root)), "train", 1)
    assert len(source) == 3 and len(report.problems) == 1
    assert "old.gif is not read: images end in" in report.problems[0]
    for path in (root / "masks/train").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    with pytest.raises(DataError, match=r"called like im0_mask\.png: name masks as their images"):
        opened(root)


def test_an_empty_line_does_not_shift_the_ids(tmp_path):
    with pytest.raises(DataError, match="has an empty line 2"):
        opened(own(tmp_path, classes=("road", "", "sky")))


def test_no_output_overwrites_anothers(tmp_path):
    for name in ("drive.mp4", "drive/000001.png", "a.jpg", "a.PNG", "B.png", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [name for _, name in find_inputs(tmp_path, tmp_path)]
    outputs = {name.casefold() for name in names} | {"drive.mp4/000001"}
    assert len(outputs) == len(names) + 1 and "drive/000001" not in outputs


def test_no_score_is_no_score(tmp_path):
    root = own(tmp_path)
    for path in (root / "masks/val").iterdir():
        write(path, np.full((40, 48), 255, np.uint8))
    words = ["dataset=folder", f"dataset.root={root}", *TINY, "dataset.crop_size=[32,32]"]
    output = run("train", *words, "hydra.run.dir=r", cwd=tmp_path, ok=False)
    assert "every pixel is ignored (255)" in output
    assert not (tmp_path / "r/checkpoints").exists()
    output = run("check_data", *words[:2], cwd=tmp_path, ok=False)
    assert "BAD: Every pixel is ignored" in output


# 2. Files of the user.


def test_a_run_folder_with_the_users_files_keeps_them(tmp_path):
    mine = {
        "checkpoints/imagenet.pth": b"weights",
        "wandb/notes.txt": b"notes",
        "visualize/figure.png": b"figure",
        "evaluate/mine/table.csv": b"table",
    }
    for name, data in mine.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with RunFolder(tmp_path, TrainConfig(), []):
        pass
    with RunFolder(tmp_path, TrainConfig(resume="never"), []):
        pass
    assert {name: (tmp_path / name).read_bytes() for name in mine} == mine


@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints/best.ckpt", "evaluate/x/scores.json"])
def test_a_file_that_a_run_would_replace_is_refused_where_no_run_wrote_it(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with (
        pytest.raises(ValueError, match="would be replaced, and"),
        RunFolder(tmp_path, TrainConfig(), []),
    ):
        raise AssertionError
    assert (tmp_path / name).read_bytes() == b"mine"
    assert not (tmp_path / "result.json").exists()


def test_starting_afresh_from_another_checkpoint_clears_the_folder(tmp_path):
    """resume=never with ckpt_path: what is left of the run before must not pass for this one's."""
    folder = tmp_path / "run"
    mark(folder)
    for name in ("checkpoints/best.ckpt", "evaluate/a/scores.json", "metrics.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"old")
    cfg = TrainConfig()
    other = scenes_task()
    other.save_hyperparameters({"cfg": asdict(cfg)}, logger=False)
    path = save_checkpoint(other, tmp_path / "other.ckpt")
    with RunFolder(folder, replace(cfg, resume="never", ckpt_path=str(path)), []) as entered:
        assert entered.checkpoint == str(path)
        assert not list(folder.rglob("best.ckpt")) and not list(folder.rglob("scores.json"))


def test_a_start_from_the_folders_own_checkpoint_keeps_it(tmp_path, monkeypatch):
    cfg = TrainConfig()
    task = scenes_task()
    task.save_hyperparameters({"cfg": asdict(cfg)}, logger=False)
    save_checkpoint(task, tmp_path / "run/checkpoints/best.ckpt")
    mark(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    start = replace(cfg, resume="never", ckpt_path="run/checkpoints/best.ckpt")
    with RunFolder(tmp_path / "run", start, []):
        assert (tmp_path / "run/checkpoints/best.ckpt").exists()


def test_a_start_that_failed_does_not_stand_in_the_way_of_the_next(tmp_path):
    with (
        pytest.raises(ValueError, match="There is no checkpoint"),
        RunFolder(tmp_path, TrainConfig(ckpt_path="nowhere.ckpt"), []),
    ):
        raise AssertionError
    assert (tmp_path / "result.json").exists()
    with RunFolder(tmp_path, TrainConfig(), []) as entered:
        assert entered.checkpoint is None


def test_a_run_that_another_process_finished_is_not_begun_again(tmp_path):
    mark(tmp_path)
    RunResult("finished").write(tmp_path)
    with pytest.raises(AlreadyFinishedError), RunFolder(tmp_path, TrainConfig(), []):
        pass
    assert (tmp_path / "result.json").exists()


def test_old_scores_stand_until_new_ones_are_whole(tmp_path, monkeypatch):
    run_folder = make_run(tmp_path, run_config())
    (folder,) = (run_folder / "evaluate").iterdir()
    before = read_evaluation(folder)
    counts = {**before.counts, "pixels": before.counts["pixels"][::-1]}
    for broken in ("confusion_chart", "trimap_chart", "write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(f"cyclenet.runs.evaluate.{broken}", lambda *a: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                write_evaluation(folder, counts, before.scores)
        after = read_evaluation(folder)
        assert np.array_equal(after.counts["pixels"], before.counts["pixels"]), broken
    write_evaluation(folder, counts, before.scores)
    assert np.array_equal(read_evaluation(folder).counts["pixels"], counts["pixels"])
    assert len(list(folder.glob("images*"))) == 1


def test_publish_replaces_no_file_of_the_user_and_no_run_of_the_same_name(tmp_path):
    first = make_run(tmp_path / "a", run_config())
    second = make_run(tmp_path / "b", run_config(1))
    with pytest.raises(ValueError, match="2 of the runs are called run0"):
        check_publishable([first, second], tmp_path / "out")
    publish(first, tmp_path / "out")
    with pytest.raises(ValueError, match="where runs are published"):
        check_publishable([tmp_path / "out/run0"], tmp_path / "out")
    (tmp_path / "out/run0/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt is not part of a published run"):
        check_publishable([first], tmp_path / "out")
    (tmp_path / "out/run0/notes.txt").unlink()
    (tmp_path / "out/run0").rename(tmp_path / "out/.old-run0")  # As a kill may leave it.
    publish(first, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run0"]


def test_a_submission_does_not_replace_images_of_its_names(tmp_path, cityscapes):
    checkpoint = city_checkpoint(tmp_path, cityscapes)
    folder = cityscapes / "leftImg8bit/val/bern"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    words = [f"ckpt_path={checkpoint}", f"dataset.root={cityscapes}", "split=val"]
    output = run("submit", *words, f"output={folder}", cwd=tmp_path, ok=False)
    assert "would be replaced, and no submission made it" in output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def city_checkpoint(tmp_path: Path, root: Path) -> Path:
    from cyclenet.training.task import SegmentationTask

    dataset = DatasetConfig(name="cityscapes", root=str(root))
    source = open_split(dataset, "val")
    cfg = TrainConfig(model=tiny_model(), dataset=dataset)
    task = SegmentationTask(cfg, source.classes, source.palette.tolist())
    return save_checkpoint(task, tmp_path / "run/checkpoints/last.ckpt")


# 3. Untrusted files.


def hostile(tmp_path: Path, part: str, **values) -> Path:
    """A checkpoint whose configuration was changed by hand."""
    path = save_checkpoint(scenes_task(), tmp_path / "hostile.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["cfg"][part] |= values
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("protocol", {"name": "${oc.env:SECRET}"}),
        ("dataset", {"root": "${oc.env:SECRET}"}),
        ("model", {"atrous_rates": ["${oc.env:SECRET}"]}),
        ("dataset", {"val_split": "../../elsewhere"}),
        ("model", {"feedback": 10**9}),
        ("model", {"head_channels": 200_000}),
        ("model", {"atrous_rates": list(range(1, 4000))}),
        ("protocol", {"scales": [1000.0]}),
        ("protocol", {"scales": [1.0] * 1000}),
        ("model", {"reduce_channels": 8000, "growth_channels": 8000, "feedback": 16}),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_checkpoint_neither_reads_the_environment_nor_asks_for_the_impossible(
    tmp_path, command, part, values
):
    path = hostile(tmp_path, part, **values)
    write(tmp_path / "a.png", np.zeros((40, 50, 3), np.uint8))
    words = [f"ckpt_path={path}"] + (["input=a.png", "output=out"] if command == "predict" else [])
    output = run(command, *words, cwd=tmp_path, ok=False, SECRET="hunter2")
    assert "hunter2" not in output and "Traceback" not in output
    assert output.startswith("error: ") and len(output.strip().splitlines()) == 1
    assert not any("hunter2" in p.read_text(errors="replace") for p in tmp_path.rglob("*.json"))


def test_a_checkpoint_writes_nowhere_else_and_fetches_nothing(tmp_path):
    outside = tmp_path / "elsewhere"
    path = hostile(tmp_path, "protocol", name="../../../../elsewhere/x")
    output = run("evaluate", f"ckpt_path={path}", cwd=tmp_path)
    assert "Written to" in output and not outside.exists()
    (made,) = (tmp_path / "evaluate").iterdir()
    assert not made.name.startswith(".") and "/" not in made.name
    path = hostile(tmp_path, "dataset", name="camvid", root=str(outside), download=True)
    output = run("evaluate", f"ckpt_path={path}", cwd=tmp_path, ok=False)
    assert "There is no folder data/camvid" in output and not outside.exists()


def test_a_runs_result_names_only_its_own_evaluations(tmp_path):
    secret = make_run(tmp_path / "other", run_config())
    folder = make_run(tmp_path / "runs", run_config())
    result = json.loads((folder / "result.json").read_text())
    (where,) = (secret / "evaluate").iterdir()
    result["evaluations"] = {"whole": f"../../other/run0/evaluate/{where.name}"}
    (folder / "result.json").write_text(json.dumps(result))
    (found,) = find_runs([folder])
    assert not found.finished and "cannot be used" in found.problem


def test_names_become_file_names_in_one_place():
    for text in ("../../x", "/etc/passwd", "a\\b", "a\nb", ".hidden", "", "CON", "a" * 300, "ä b"):
        name = safe_name(text)
        assert name and Path(name).name == name and not name.startswith(".") and len(name) < 200
    assert safe_name("last-scenes_val=2.ckpt") == "last-scenes_val=2.ckpt"
    assert safe_name("a/b") != safe_name("a_b") and safe_name("a/b") != safe_name("a b")


SCRIPT = "<script>alert(1)</script>"
EVIL = f"`x` {SCRIPT} ![p](http://evil.example/p.png) [l](javascript:alert(1)) | $_$"


def test_a_report_shows_what_comes_from_outside_as_text(tmp_path):
    run_dir = make_run(tmp_path / "runs", run_config())
    make_run(tmp_path / "runs", run_config(1), number=1, status="failed")
    edit(tmp_path / "runs/run1/result.json", error=EVIL)
    for path in run_dir.glob("evaluate/*/scores.json"):
        edit(path, protocol=EVIL, split=EVIL, dataset=EVIL)
    result = json.loads((run_dir / "result.json").read_text())
    result["evaluations"] = {EVIL: next(iter(result["evaluations"].values()))}
    edit(run_dir / "result.json", **result)
    (tmp_path / "runs/run1").rename(tmp_path / "runs/`run` <img src=x onerror=alert(1)>")
    page = write_report(find_runs([tmp_path / "runs"]), tmp_path / "out", EVIL, images=0)
    html = page.read_text()
    assert "default-src 'none'" in html
    body = html.split("<body>")[1]
    for tag in ("<script", "<img src=x", 'http://evil.example/p.png"', 'href="javascript'):
        assert tag not in body
    text = (tmp_path / "out/report.md").read_text()
    assert "](http" not in text.replace("\\]", "")


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_status_is_one_of_four(tmp_path):
    folder = make_run(tmp_path, run_config())
    edit(folder / "result.json", status=SCRIPT)
    (found,) = find_runs([folder])
    assert found.status == "unfinished"


def test_a_table_escapes_its_cells():
    table = markdown_table(["a", "b"], [["x|y", "`<b>`\n2"]])
    assert table.splitlines()[2] == r"| x\|y | \`\<b\>\` 2 |"
    assert plain("[a](b)") == r"[a\](b)"


def test_yaml_that_explodes_or_is_deep_is_refused_at_once(tmp_path):
    bomb = "a: &a [x,x]\n" + "".join(
        f"{c}: &{c} [*{p},*{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for text in (bomb, "[" * 5000, "a: !!python/object/apply:os.system [ls]", "\x00"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"config\.yaml"):
            read_yaml(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("[]")
    with pytest.raises(ValueError, match="must be a mapping"):
        read_config(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match=r"is '\$\{oc.env:HOME\}'"):
        restore({"name": "${oc.env:HOME}"})


@pytest.mark.parametrize("damage", ["empty", "bomb", "encrypted", "compression"])
def test_archives_are_bounded_and_damaged_ones_are_a_sentence(tmp_path, monkeypatch, damage):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("in/a.png", bytes(5000))
    raw = bytearray(path.read_bytes())
    place = raw.rindex(b"PK\x01\x02")
    if damage == "encrypted":
        raw[place + 8] |= 1
        raw[6] |= 1
    elif damage == "compression":
        raw[place + 10] = raw[8] = 77
    elif damage == "empty":
        raw = bytearray()
    else:
        monkeypatch.setattr("cyclenet.data.download.MOST_BYTES", 4000)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.zip is not a whole zip file"):
        unpack(path, tmp_path / "root", Archive("", {"in": "."}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_the_users_own_archive_is_neither_read_nor_removed(tmp_path, monkeypatch):
    from cyclenet.data import download

    (tmp_path / "ade20k.zip").write_bytes(b"mine")
    monkeypatch.setattr(download, "fetch", lambda url, file, sha1: file.write_bytes(b"theirs"))
    monkeypatch.setattr(download, "unpack", lambda file, root, archive: None)
    download.download("ade20k", tmp_path / "ade20k")
    assert (tmp_path / "ade20k.zip").read_bytes() == b"mine"


# 4. Hangs and dead ends.


def test_loaders_that_cannot_work_are_told_at_the_start(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert "TMPDIR is too long" in loader_problem(1, 0) and loader_problem(0, 0) == ""
    words = ["dataset=scenes", *SCENES, *TINY, "trainer.num_workers=1"]
    output = run("train", *words, cwd=tmp_path, ok=False, TMPDIR=str(long))
    assert "TMPDIR is too long for sockets" in output
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert "/dev/shm has" in loader_problem(64, 1 << 40)


def test_a_run_ended_by_max_steps_can_be_finished_later(tmp_path):
    words = ["dataset=scenes", *SCENES, *TINY, "trainer.max_steps=1", "hydra.run.dir=r"]
    run("train", *words, cwd=tmp_path)
    (tmp_path / "r/result.json").unlink()
    run("train", *words, cwd=tmp_path)
    assert json.loads((tmp_path / "r/result.json").read_text())["status"] == "finished"


def test_class_names_are_no_mathematics(tmp_path):
    root = own(tmp_path, classes=("price $_$", "<b>%s</b>\\frac{"))
    words = ["dataset=folder", f"dataset.root={root}", *TINY, "dataset.crop_size=[32,32]"]
    assert "Run folder" in run("train", *words, cwd=tmp_path)


def test_wandb_follows_its_own_variables_and_never_waits_for_the_network(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.warns(UserWarning, match="cannot be reached: wandb runs offline"):
        assert choose_wandb_mode("auto") == "offline"
    with pytest.raises(ValueError, match=r"logger\.wandb=offline"):
        choose_wandb_mode("online")
    for said, mode in (("disabled", "disabled"), ("offline", "offline")):
        monkeypatch.setenv("WANDB_MODE", said)
        assert choose_wandb_mode("auto") == choose_wandb_mode("online") == mode


def test_a_home_that_cannot_be_written_gets_a_stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nope")
    settle_home()
    assert os.environ["HOME"] != "/proc/nope" and os.access(os.environ["HOME"], os.W_OK)


def test_left_over_ranks_do_not_make_one_process_the_second_of_none(tmp_path, monkeypatch):
    words = ["dataset=scenes", *SCENES, *TINY, "hydra.run.dir=r"]
    left = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "NODE_RANK": "1"}
    run("train", *words, cwd=tmp_path, **left)
    assert json.loads((tmp_path / "r/result.json").read_text())["status"] == "finished"
    slurm = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2", "SLURM_JOB_ID": "1"}
    run("train", *words, "hydra.run.dir=s", "seed=2", cwd=tmp_path, **slurm)
    assert json.loads((tmp_path / "s/result.json").read_text())["status"] == "finished"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    for processes in (1, 2):
        with pytest.raises(ValueError, match="torchrun has started 4 processes"):
            settle_ranks(1, processes)


# 5. One bad item.


def test_one_bad_image_does_not_end_a_folder(tmp_path):
    checkpoint = save_checkpoint(scenes_task(), tmp_path / "m.ckpt")
    folder = tmp_path / "in"
    for name, size in (("a", (40, 60)), ("onepx", (1, 1)), ("thin", (2, 300)), ("tall", (400, 20))):
        write(folder / f"{name}.png", np.full((*size, 3), 90, np.uint8))
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    odd = os.fsencode(folder) + b"/stra\xdfe.png"
    Path(os.fsdecode(odd)).write_bytes((folder / "a.png").read_bytes())
    words = [f"ckpt_path={checkpoint}", "input=in", "output=out", "protocol.scales=[0.5,1]"]
    output = run("predict", *words, "protocol.flip=true", cwd=tmp_path, ok=False)
    assert "5 predicted, 1 skipped" in output and "Traceback" not in output
    labels = {os.fsencode(path.name) for path in (tmp_path / "out/label").iterdir()}
    assert b"stra\xdfe.png" in labels and b"onepx.png" in labels
    with Image.open(tmp_path / "out/label/tall.png") as file:
        assert file.size == (20, 400)


@pytest.mark.parametrize("damage", ["npz", "json", "deep", "empty"])
def test_one_damaged_run_does_not_end_the_report(tmp_path, damage):
    make_run(tmp_path, run_config())
    folder = make_run(tmp_path, run_config(1), number=1)
    (npz,) = folder.glob("evaluate/*/images*.npz")
    if damage == "npz":
        npz.write_bytes(npz.read_bytes()[:-400] + bytes(400))
    elif damage == "json":
        (folder / "result.json").write_text('{"status": "finished", "evaluations": [1]}')
    elif damage == "deep":
        (folder / "result.json").write_text("[" * 100_000)
    else:
        npz.write_bytes(b"")
    write_report(find_runs([tmp_path]), tmp_path / "out", "title", images=0)
    assert "run1" in (tmp_path / "out/report.md").read_text()


def test_damaged_rows_of_a_curve_are_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    good = b"epoch,step,train/loss\n0,1,2.5\n"
    path.write_bytes(good + good[:9] + good + b"0,2,\xff\xfe,7,8\n0,\0x,1\n0,3,nonsense\n0,4,1.5\n")
    rows = read_metrics(path)
    assert [(row["step"], row["train/loss"]) for row in rows] == [
        ("1", "2.5"),
        ("1", "2.5"),
        ("4", "1.5"),
    ]
    logger = MetricsCSV(path, 9)
    logger.log_metrics({"train/loss": 1.0}, 9)
    logger.flush()
    assert len(read_metrics(path)) == 4


# 6. Sentences.


def test_a_failed_write_names_the_file(tmp_path):
    target = tmp_path / "scores.json"
    with pytest.raises(OSError, match=r"scores\.json") as caught, atomic_write(target) as part:
        part.symlink_to("/dev/full")
        part.write_bytes(b"x" * 100)
    assert caught.value.filename == str(target)


def test_input_and_output_may_be_one_folder(tmp_path):
    write(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    write(tmp_path / "label/a.png", np.zeros((4, 4), np.uint8))
    found = find_inputs(tmp_path, tmp_path)
    assert [path.name for path, _ in found] == ["a.png"] and len(found) == 1


def test_a_seed_has_32_bits(tmp_path):
    output = run("train", f"seed={2**32}", cwd=tmp_path, ok=False)
    assert output.strip() == f"error: seed must be in 0..2**32 - 1; got {2**32}."


def test_a_program_without_streams_works(tmp_path):
    write(tmp_path / "a.png", np.zeros((40, 50, 3), np.uint8))
    checkpoint = save_checkpoint(scenes_task(), tmp_path / "m.ckpt")
    command = [sys.executable, str(ROOT / "src/predict.py"), f"ckpt_path={checkpoint}"]
    line = " ".join([*command, "input=a.png", "output=out", "<&-", ">&-", "2>&-"])
    assert subprocess.run(["sh", "-c", line], cwd=tmp_path).returncode == 0
    assert (tmp_path / "out/label/a.png").is_file()


def test_threads_write_files_of_long_names_apart(tmp_path):
    paths = [tmp_path / f"{number}-{'x' * 110}.txt" for number in range(2)]
    both = threading.Barrier(2)

    def write(path):
        with atomic_write(path) as part:
            both.wait(timeout=10)
            part.write_text(path.name)
            both.wait(timeout=10)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, paths))
    assert [path.read_text() for path in paths] == [path.name for path in paths]


def test_linked_folders_are_read_and_links_to_nothing_are_named(tmp_path):
    """Both were left out without a word: half of a data set could be missing."""
    root = own(tmp_path / "data")
    for kind in ("images", "masks"):
        elsewhere = own(tmp_path / "disk") / kind / "val"
        for name in ("more", "same"):  # It is read once, by its first name.
            (root / kind / "train" / name).symlink_to(elsewhere)
        for folder in (elsewhere, root / kind / "train"):  # Both lead in a circle.
            (folder / "back").symlink_to(root / kind / "train")
            (folder / "up").symlink_to(root / kind)
    options = DatasetConfig(name="folder", root=str(root), classes="classes.txt")
    names = ["im0", "im1", "im2", "more/im0", "more/im1", "more/im2"]
    assert [pair.name for pair in open_split(options, "train").pairs] == names
    (root / "images/train/gone.png").symlink_to(tmp_path / "nowhere.png")
    broken = open_split(options, "train")
    with pytest.raises(DataError, match=r"gone\.png"):
        broken.image([pair.name for pair in broken.pairs].index("gone"))


def test_memory_that_is_freed_and_asked_for_again_does_not_come_in_pages():
    """`settle_memory` keeps it: without, each round has more than ten thousand page faults."""
    code = """
import resource, sys
import numpy as np
from cyclenet.environment import settle_memory
if sys.argv[1] == "settled":
    settle_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    for _ in range(20):
        kept = [np.ones(3 << 18) for _ in range(8)]  # 6 MiB each, 48 in all.

work()
before = faults()
work()
print(faults() - before)
"""
    names = ("MALLOC_", "GLIBC_TUNABLES")
    usual = {key: value for key, value in os.environ.items() if not key.startswith(names)}
    assert int(subprocess.check_output([sys.executable, "-c", code, "settled"], env=usual)) < 1000


def test_pictures_that_are_not_read_are_named(tmp_path, capsys):
    write(tmp_path / "in/a.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "in/b.heic").write_bytes(b"picture")
    path = save_checkpoint(task_of(), tmp_path / "last.ckpt")
    cfg = PredictConfig(str(path), input=str(tmp_path / "in"), output=str(tmp_path / "out"))
    done, skipped = predict_all(cfg)
    assert done == 1 and not skipped
    assert "in/b.heic is not read" in capsys.readouterr().err
