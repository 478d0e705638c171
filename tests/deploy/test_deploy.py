"""A trained network outside of experiments: Python, exported files, shared folders."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import cyclenet
from conftest import ROOT, run
from cyclenet.config.commands import EvaluateConfig, ExportConfig, PredictConfig, PushConfig
from cyclenet.config.load import compose_config
from cyclenet.data.open import open_split
from cyclenet.deploy import export as exporting
from cyclenet.deploy.load import load, read_checkpoint
from cyclenet.lab import share
from cyclenet.lab.share import push
from cyclenet.models.layers import ZeroConv2d
from cyclenet.runs.evaluate import summarise
from cyclenet.runs.evaluate import write as write_scores
from cyclenet.scoring import inference
from cyclenet.training.task import SegmentationTask
from made import RUN_CLASSES, counts_of, model_of, save_checkpoint, scenes_task, task_of

PICTURE = np.random.default_rng(0).integers(0, 256, (41, 67, 3), dtype=np.uint8)


@pytest.fixture
def checkpoint(tmp_path):
    return save_checkpoint(task_of(), tmp_path / "run/checkpoints/last.ckpt")


def test_a_picture_in_every_form_gives_the_labels_of_the_task(checkpoint, tmp_path):
    task = task_of()
    tensor = torch.from_numpy(PICTURE).permute(2, 0, 1)[None]
    wanted = model_of(task).labels(tensor)[0].numpy()
    model = cyclenet.load(tmp_path / "run", device="cpu")
    assert model.classes == task.classes
    Image.fromarray(PICTURE).save(tmp_path / "p.png")
    for form in (PICTURE, Image.fromarray(PICTURE), tmp_path / "p.png", str(tmp_path / "p.png")):
        np.testing.assert_array_equal(model.predict(form).labels, wanted)
    for batch in ([PICTURE, PICTURE], np.stack([PICTURE, PICTURE])):
        assert [each.labels.tolist() for each in model.predict(batch)] == [wanted.tolist()] * 2
    result = model.predict(PICTURE, probabilities=True, confidence=True)
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(result.probabilities.argmax(0), wanted)
    np.testing.assert_array_equal(result.probabilities.max(0), result.confidence)
    result.save(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as file:
        np.testing.assert_array_equal(np.asarray(file), wanted)
        color = np.asarray(file.convert("RGB"))
    np.testing.assert_array_equal(color, np.array(task.palette, np.uint8)[wanted])
    assert result.overlay().size[0] >= PICTURE.shape[1]


def test_a_protocol_is_an_argument(checkpoint):
    task = task_of()
    several = cyclenet.load(checkpoint, device="cpu", protocol="paper_ms")
    tensor = torch.from_numpy(PICTURE).permute(2, 0, 1)[None]
    wanted = model_of(task).labels(tensor, several.protocol)[0].numpy()
    np.testing.assert_array_equal(several.predict(PICTURE).labels, wanted)
    one = cyclenet.load(checkpoint, device="cpu")
    np.testing.assert_array_equal(one.predict(PICTURE, protocol="paper_ms").labels, wanted)
    shares = one.predict(PICTURE, protocol="paper_ms", probabilities=True).probabilities
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)


def test_threads_share_a_model(checkpoint):
    model = cyclenet.load(checkpoint, device="cpu")
    wanted = model.predict(PICTURE).labels
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.predict(PICTURE).labels, range(8)):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "wrong", [PICTURE.astype(np.float32), PICTURE[..., 0], PICTURE[:0], 3, Image.new("I", (4, 4))]
)
def test_what_is_no_picture_is_refused(checkpoint, wrong):
    with pytest.raises(ValueError, match=r"picture|uint8"):
        cyclenet.load(checkpoint, device="cpu").predict(wrong)


def test_what_is_no_network_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.safetensors").write_bytes(b"no weights")
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    for source, said in [
        ("nowhere.ckpt", "There is no checkpoint"),
        ("empty", "holds no checkpoints"),
        ("x.safetensors", "not a whole file"),
        ("x.onnx", "cannot be run"),
    ]:
        with pytest.raises(ValueError, match=said):
            cyclenet.load(tmp_path / source)


@pytest.mark.parametrize("context", ["denseaspp_net", "deeplabv3plus"])
def test_weights_that_computed_something_else_are_refused(context, tmp_path):
    task = task_of(context=context, decoder="none", output_stride=16)
    path = save_checkpoint(task, tmp_path / "last.ckpt")
    stored = torch.load(path, weights_only=True)
    for layout, refused in ((2, True), (3, False)):
        torch.save(stored | {"run": {"layout": layout}}, path)
        with (
            pytest.raises(ValueError, match="computes something else") if refused else nullcontext()
        ):
            load(path, device="cpu")


def test_neither_hydra_nor_lightning_is_imported(checkpoint):
    code = (
        "import sys, cyclenet; assert 'torch' not in sys.modules; "
        f"cyclenet.load({str(checkpoint)!r}, device='cpu'); "
        "print(sorted({'hydra', 'lightning', 'albumentations', 'wandb'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


ARMS = [
    {},
    {"align_corners": True},
    {"feedback": 2, "decoder": "skip"},
    {"offset_groups": 2, "mask_scale": 0.0},
    {"context": "aspp", "decoder": "deeplabv3plus"},
    {"context": "ocrnet", "decoder": "none"},
    {"context": "ccnet", "decoder": "none"},
    {"context": "danet", "decoder": "none"},
    {"context": "encnet", "decoder": "none"},
    {"context": "none", "decoder": "fapn", "output_stride": 32},
    {"context": "identity", "decoder": "refinenet"},
    {"context": "identity", "decoder": "bisenet", "output_stride": 32},
    {"context": "aspp", "decoder": "dupsampling"},
    {"context": "denseaspp_net", "decoder": "none"},
    {"context": "pspnet", "decoder": "none"},
    {"context": "spnet", "decoder": "none"},
    {"context": "pspnet", "decoder": "upernet", "output_stride": 32},
    {"context": "pspnet", "decoder": "gff"},
    {"context": "aligncm", "decoder": "alignseg"},
]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: "-".join(map(str, arm.values())) or "whole")
def test_an_exported_graph_gives_what_pytorch_gives(arm, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TRACED", (2, 64, 96))
    # The last is one feature high.
    monkeypatch.setattr(exporting, "CHECKED", ((1, 41, 97), (3, 72, 80), (1, 7, 50)))
    task = task_of(**arm)
    for module in task.modules():  # What starts at 0 would hide where it is applied.
        if isinstance(module, ZeroConv2d):
            torch.nn.init.normal_(module.weight, std=0.1)
    path = save_checkpoint(task, tmp_path / "last.ckpt")
    output = str(tmp_path / "m.onnx")
    said = exporting.export(ExportConfig(ckpt_path=str(path), output=output))
    assert "what the checkpoint gives" in said[1]
    ours, exported = cyclenet.load(path, device="cpu"), cyclenet.load(output)
    a, b = (m.predict(PICTURE, probabilities=True).probabilities for m in (ours, exported))
    np.testing.assert_allclose(a, b, atol=2e-3)


def test_paddings_are_those_of_tensorflow():
    for side, kernel, stride, dilation in itertools.product(
        range(1, 30), (2, 3, 5), (1, 2), (1, 4)
    ):
        wanted = timm.layers.padding.get_same_padding(side, kernel, stride, dilation)
        assert exporting._same_padding(side, kernel, stride, dilation) == wanted


def test_a_graph_may_do_without_a_deformable_convolution(tmp_path, monkeypatch):
    import onnx

    monkeypatch.setattr(exporting, "TRACED", (2, 64, 96))
    monkeypatch.setattr(exporting, "CHECKED", ((1, 41, 97), (3, 72, 80)))
    path, kinds = save_checkpoint(task_of(), tmp_path / "last.ckpt"), {}
    for way in ("operator", "grid_sample"):
        output = str(tmp_path / f"{way}.onnx")
        exporting.export(ExportConfig(ckpt_path=str(path), output=output, deformable=way))
        kinds[way] = {node.op_type for node in onnx.load(output).graph.node}
    assert kinds["operator"] - kinds["grid_sample"] == {"DeformConv"}
    assert "GridSample" in kinds["grid_sample"]


@pytest.mark.parametrize("gives", ["labels", "probabilities"])
def test_a_graph_may_end_in_labels(gives, tmp_path, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(exporting, "TRACED", (2, 64, 96))
    monkeypatch.setattr(exporting, "CHECKED", ((1, 41, 97),))
    path, output = save_checkpoint(task_of(), tmp_path / "last.ckpt"), str(tmp_path / "m.onnx")
    exporting.export(ExportConfig(ckpt_path=str(path), output=output, gives=gives))
    session = onnxruntime.InferenceSession(output)
    image = PICTURE.transpose(2, 0, 1)[None].astype(np.float32)
    (found,) = session.run(None, {"image": image})
    wanted = cyclenet.load(path, device="cpu").predict(PICTURE, probabilities=True)
    if gives == "labels":
        assert (found[0] == wanted.labels).mean() > 0.999
    else:
        np.testing.assert_allclose(found[0], wanted.probabilities, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == wanted.classes
    with pytest.raises(ValueError, match="export it with gives=logits"):
        cyclenet.load(output)


def test_what_cannot_be_exported_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TRACED", (2, 64, 96))
    monkeypatch.setattr(exporting, "CHECKED", ((1, 41, 97),))
    for context, said in (("psanet", "crops of one size"), ("reseg", "cannot be exported")):
        task = task_of(context=context, decoder="none")
        path = save_checkpoint(task, tmp_path / f"{context}.ckpt")
        with pytest.raises(ValueError, match=said):
            exporting.export(ExportConfig(ckpt_path=str(path), output=str(tmp_path / "m.onnx")))
    # A graph that gives something else.
    path = save_checkpoint(task_of(), tmp_path / "last.ckpt")
    wrong = exporting.Deployed.forward
    recording = torch.onnx.is_in_onnx_export
    monkeypatch.setattr(
        exporting.Deployed,
        "forward",
        lambda self, image: wrong(self, image) + (0.1 if recording() else 0),
    )
    with pytest.raises(ValueError, match="does not give what PyTorch gives"):
        exporting.export(ExportConfig(ckpt_path=str(path), output=str(tmp_path / "m.onnx")))
    assert not list(tmp_path.glob("*.onnx")) and not list(tmp_path.glob(".tmp*"))


def test_a_graph_that_gives_nan_is_not_equal():
    net = model_of(scenes_task()).net

    def run(image):
        found = exporting.Deployed(net, "logits")(image).detach().numpy()
        np.put_along_axis(found, found.argmax(1)[:, None], np.nan, 1)  # No label changes.
        return found

    with pytest.raises(ValueError, match="does not give what PyTorch gives"):
        exporting.compare(net, "logits", run, [(1, 64, 64)])


def test_an_exported_file_is_evaluated_and_predicted_like_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "CHECKED", ((1, 41, 97),))
    path = save_checkpoint(scenes_task(), tmp_path / "last.ckpt")
    for name in ("m.onnx", "m.safetensors"):
        kind = name.split(".")[1]
        exporting.export(
            ExportConfig(ckpt_path=str(path), output=str(tmp_path / name), format=kind)
        )
    scores = []
    for name in ("last.ckpt", "m.onnx", "m.safetensors"):
        run(
            "evaluate", f"ckpt_path={name}", f"output=scores-{name}", "boundary=false", cwd=tmp_path
        )
        scores.append(json.loads((tmp_path / f"scores-{name}/scores.json").read_text())["mIoU"])
    # A run folder is its last checkpoint, and its scores lie in the run.
    (tmp_path / "run.8/checkpoints").mkdir(parents=True)
    shutil.copy(path, tmp_path / "run.8/checkpoints/last.ckpt")
    for name in ("run.8", "run.8/checkpoints/last.ckpt"):
        run("evaluate", f"ckpt_path={name}", "boundary=false", cwd=tmp_path)
        (folder,) = tmp_path.glob("**/evaluate/*")
        assert folder.parts[-3] == "run.8" and folder.name.startswith("last-")
    assert scores[1] == pytest.approx(scores[0], abs=1e-4) and scores[2] == scores[0]
    Image.fromarray(PICTURE).save(tmp_path / "p.png")
    words = ("predict", "ckpt_path=m.onnx", "input=p.png", "output=out")
    save = "save=[label,confidence,probability]"
    assert "1 predicted" in run(*words, save, cwd=tmp_path)
    kinds = {file.parent.name for file in (tmp_path / "out").glob("*/*")}
    assert kinds == {"label", "confidence", "probability"}
    shares = np.load(tmp_path / "out/probability/p.npz")["arr_0"]
    label = np.asarray(Image.open(tmp_path / "out/label/p.png"))
    confidence = np.asarray(Image.open(tmp_path / "out/confidence/p.png"))
    assert shares.shape[1:] == label.shape and shares.dtype == np.float16
    np.testing.assert_allclose(confidence / 65535, shares.max(0), atol=1e-3)
    # A repeated command goes on where it stopped; another one starts afresh.
    assert "there already" in run(*words, save, cwd=tmp_path)
    (tmp_path / "out/label/p.png").unlink()
    assert "1 predicted" in run(*words, save, cwd=tmp_path)
    assert "1 predicted" in run(*words, save, "protocol=paper_ms", cwd=tmp_path)
    for wrong in ("precision=bf16-mixed", "accelerator=gpu"):
        run(*words, save, wrong, cwd=tmp_path, ok=False)


def test_a_stopped_prediction_keeps_no_file_of_another_checkpoint(tmp_path):
    """The second command was stopped before its second image; the first one's files are there."""
    from cyclenet.runs.predict import Predictor, Tally

    for name in ("a", "b"):
        Image.fromarray(PICTURE).save(tmp_path / f"{name}.png")
    one, two = (save_checkpoint(task_of(seed), tmp_path / f"{seed}.ckpt") for seed in (0, 1))
    options = {"input": str(tmp_path), "output": str(tmp_path / "out"), "accelerator": "cpu"}

    def predict(path, *names):
        predictor, tally = Predictor(PredictConfig(ckpt_path=str(path), **options)), Tally()
        predictor.predict_images([(tmp_path / f"{name}.png", name) for name in names], tally)
        return tally.done

    assert predict(one, "a", "b") == 2 and predict(one, "a", "b") == 0
    assert predict(two, "a") == 1
    assert predict(two, "a", "b") == 1
    label = np.asarray(Image.open(tmp_path / "out/label/b.png"))
    np.testing.assert_array_equal(label, load(two, device="cpu").predict(PICTURE).labels)


def test_another_folder_of_the_same_name_is_predicted_anew(tmp_path):
    from cyclenet.runs.predict import predict_all

    def put(folder, shade, name="0.png"):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((41, 67, 3), shade, np.uint8)).save(folder / name)

    for day, shade in (("in/day", 10), ("other", 240), ("in/night", 0)):
        put(tmp_path / day, shade)
    path = save_checkpoint(task_of(), tmp_path / "last.ckpt")
    options = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    cfg = PredictConfig(ckpt_path=str(path), accelerator="cpu", save=["confidence"], **options)
    assert predict_all(cfg)[0] == 2 and predict_all(cfg)[0] == 0
    # An added folder alone is predicted, also after a stop.
    put(tmp_path / "in/dusk", 90)
    put(tmp_path / "in/dusk", 90, "1.png")
    assert predict_all(cfg)[0] == 2
    (tmp_path / "out/confidence/dusk/1.png").unlink()
    assert predict_all(cfg)[0] == 1
    first = (tmp_path / "out/confidence/day/0.png").read_bytes()
    (tmp_path / "in/day").rename(tmp_path / "gone")
    (tmp_path / "other").rename(tmp_path / "in/day")
    # The same folder may be written in another way.
    cfg.input = f"{tmp_path}/out/../in"
    assert predict_all(cfg)[0] == 4 and predict_all(cfg)[0] == 0
    assert (tmp_path / "out/confidence/day/0.png").read_bytes() != first
    # A file that a clock of the future dated is no proof.
    future = time.time() + 3600
    os.utime(tmp_path / "out/confidence/day/0.png", (future, future))
    assert predict_all(cfg)[0] == 1


def test_pictures_of_one_size_are_predicted_together_where_that_is_faster(tmp_path, monkeypatch):
    from cyclenet.runs.predict import Predictor, Tally

    rng = np.random.default_rng(1)
    sizes = [(41, 67), (41, 67), (41, 67), (67, 41), (41, 67)]
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    inputs = []
    for number, pixels in enumerate(pictures):
        inputs.append((tmp_path / f"{number}.png", str(number)))
        Image.fromarray(pixels).save(inputs[-1][0])
    damaged = (tmp_path / "damaged.png", "damaged")
    damaged[0].write_bytes(b"no picture")
    path, output = save_checkpoint(task_of(), tmp_path / "last.ckpt"), tmp_path / "out"
    options = {"ckpt_path": str(path), "input": str(tmp_path), "output": str(output)}
    options |= {"accelerator": "cpu", "save": ["label", "confidence"]}
    predictor, tally = Predictor(PredictConfig(**options)), Tally()
    one_by_one = predictor.predict(pictures)
    # A CPU gains nothing by it, so it is told that it does.
    monkeypatch.setitem(inference.PIXELS_AT_ONCE, "cpu", 2 * 41 * 67)
    ran, network = [], predictor.model.net.logits
    monkeypatch.setattr(
        predictor.model.net, "logits", lambda views: ran.append(len(views)) or network(views)
    )
    predictor.predict_images([*inputs[:2], damaged, *inputs[2:]], tally)
    assert ran == [2, 1, 1, 1] and tally.done == 5 and tally.skipped == [str(damaged[0])]
    # Where two do not fit into memory, each is predicted alone.
    inside = predictor.model.net.logits

    def small_memory(views):
        if len(views) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return inside(views)

    monkeypatch.setattr(predictor.model.net, "logits", small_memory)
    alone = predictor.predict(pictures[:2])
    np.testing.assert_array_equal(alone[1].labels, one_by_one[1].labels)
    for number, each in enumerate(one_by_one):
        label = np.asarray(Image.open(output / f"label/{number}.png"))
        confidence = np.asarray(Image.open(output / f"confidence/{number}.png"))
        np.testing.assert_array_equal(label, each.labels)
        np.testing.assert_allclose(confidence / 65535, each.confidence, atol=1e-4)


def test_a_folder_that_took_anothers_name_is_predicted_anew(tmp_path):
    from cyclenet.runs.predict import predict_all

    rng = np.random.default_rng(1)
    for name in ("in", "other"):
        (tmp_path / name).mkdir()
        Image.fromarray(rng.integers(0, 256, (41, 67, 3), np.uint8)).save(tmp_path / name / "a.png")
    path = save_checkpoint(task_of(), tmp_path / "last.ckpt")
    cfg = PredictConfig(
        ckpt_path=str(path),
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        accelerator="cpu",
    )
    assert predict_all(cfg)[0] == 1 and predict_all(cfg)[0] == 0
    (tmp_path / "in").rename(tmp_path / "old")
    (tmp_path / "other").rename(tmp_path / "in")
    assert predict_all(cfg)[0] == 1


def test_a_picture_of_the_same_name_is_predicted_anew(tmp_path, capsys):
    """Of another folder, and older than the first one's output."""
    from cyclenet.runs.predict import predict_all

    rng = np.random.default_rng(1)
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        picture = rng.integers(0, 256, (41, 67, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / name / "a.png")
    path = save_checkpoint(task_of(), tmp_path / "last.ckpt")
    options = {"ckpt_path": str(path), "output": str(tmp_path / "out"), "accelerator": "cpu"}
    for name in ("A", "B"):
        done, _ = predict_all(PredictConfig(input=str(tmp_path / name), **options))
        assert done == 1
    label = np.asarray(Image.open(tmp_path / "out/label/a.png"))
    np.testing.assert_array_equal(label, load(path, device="cpu").predict(picture).labels)
    # Of another input there are labels, which confidence alone would not replace.
    with pytest.raises(ValueError, match=r"out/(color|label|overlay) is of another network, input"):
        predict_all(PredictConfig(input=str(tmp_path / "A"), save=["confidence"], **options))
    Image.fromarray(picture).save(tmp_path / "A/b.png")
    predict_all(PredictConfig(input=str(tmp_path / "A"), **options))
    assert "earlier predictions" not in capsys.readouterr().err
    (tmp_path / "A/a.png").unlink()
    (tmp_path / "A").rename(tmp_path / "C")
    predict_all(PredictConfig(input=str(tmp_path / "C"), **options))
    assert f"Files of earlier predictions in {tmp_path}/out: 3." in capsys.readouterr().err
    # A user's own masks are no outputs.
    (tmp_path / "mine/label").mkdir(parents=True)
    Image.fromarray(label).save(tmp_path / "mine/label/a.png")
    before = (tmp_path / "mine/label/a.png").read_bytes()
    options["output"] = str(tmp_path / "mine")
    with pytest.raises(ValueError, match="holds files that no prediction wrote"):
        predict_all(PredictConfig(input=str(tmp_path / "B"), **options))
    assert (tmp_path / "mine/label/a.png").read_bytes() == before


@pytest.mark.parametrize("protocol", ["paper_ms", "mmseg_ms_flip"])
def test_an_exported_graph_agrees_at_several_scales_with_aligned_corners(
    protocol, tmp_path, monkeypatch
):
    monkeypatch.setattr(exporting, "CHECKED", ((1, 41, 97),))
    path = save_checkpoint(task_of(align_corners=True, decoder="adc"), tmp_path / "last.ckpt")
    exporting.export(ExportConfig(ckpt_path=str(path), output=str(tmp_path / "m.onnx")))
    ours, theirs = (
        load(each, device="cpu").predict(PICTURE, protocol=protocol, probabilities=True)
        for each in (path, tmp_path / "m.onnx")
    )
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4)


def test_an_onnx_file_gives_no_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "CHECKED", ((1, 41, 97),))
    path = save_checkpoint(task_of(), tmp_path / "last.ckpt")
    onnx = str(tmp_path / "m.onnx")
    exporting.export(ExportConfig(ckpt_path=str(path), output=onnx))
    with pytest.raises(ValueError, match="gives no weights"):
        exporting.export(
            ExportConfig(
                ckpt_path=onnx, output=str(tmp_path / "w.safetensors"), format="safetensors"
            )
        )
    with pytest.raises(ValueError, match="gives no weights"):
        push(PushConfig(ckpt_path=onnx, repo="me/a", output=str(tmp_path / "shared")))
    assert not (tmp_path / "w.safetensors").exists() and not (tmp_path / "shared").exists()
    with pytest.raises(ValueError, match=r"torch\.export\.load"):
        (tmp_path / "m.pt2").touch()
        load(tmp_path / "m.pt2")


def test_what_is_pushed_is_the_three_files_and_its_own_scores(tmp_path, monkeypatch):
    task = task_of()
    task.hparams["cfg"]["dataset"]["train_split"] = ["train", "val"]
    path = save_checkpoint(task, tmp_path / "run/checkpoints/best.ckpt")
    for name, accuracy in (("best", 0.9), ("best-v1", 0.8), ("last", 0.6)):
        counts = counts_of(np.random.default_rng(0), accuracy)
        where = tmp_path / f"run/evaluate/{name}-folder-val-whole-1"
        config = EvaluateConfig(str(path.with_name(f"{name}.ckpt")))
        write_scores(where, counts, summarise(counts, RUN_CLASSES, config))
    folder = tmp_path / "shared"
    config = PushConfig(ckpt_path=str(path), repo="me/a", output=str(folder), dry_run=True)
    push(config)
    card = (folder / "README.md").read_text()
    assert card.count("40 images") == 1 and "split train+val" in card
    (folder / ".env").write_text("secret")
    uploaded = {}
    import huggingface_hub

    class Hub:
        def create_repo(self, *args, **kwargs): ...

        def upload_folder(self, **options):
            uploaded.update(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    push(replace(config, dry_run=False))
    assert sorted(uploaded["allow_patterns"]) == ["README.md", "config.json", "model.safetensors"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"README\.md would be replaced"):
        push(replace(config, output=str(tmp_path / "mine")))


def test_a_shared_folder_is_loaded_and_holds_no_paths(checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    cfg = PushConfig(
        ckpt_path=str(tmp_path / "run"), repo="me/streets", output=str(tmp_path / "shared")
    )
    said = push(cfg)
    assert "Nothing was uploaded" in said[-1]
    assert sorted(p.name for p in (tmp_path / "shared").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    shared, own = (load(p, device="cpu") for p in (tmp_path / "shared", checkpoint))
    np.testing.assert_array_equal(shared.predict(PICTURE).labels, own.predict(PICTURE).labels)
    hyper = read_checkpoint(tmp_path / "shared/model.safetensors")["hyper_parameters"]
    assert "root" not in hyper["cfg"]["dataset"]
    card = (tmp_path / "shared/README.md").read_text()
    assert 'cyclenet.load("me/streets")' in card and "No evaluation of these weights" in card
    # The hub gives such a file.
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda repo, name: str(tmp_path / "shared" / name)
    )
    np.testing.assert_array_equal(
        load("me/streets", device="cpu").predict(PICTURE).labels, own.predict(PICTURE).labels
    )


SMALL = ["dataset=scenes", "model.backbone=resnet50", "model.backbone_weights=none"]
FOLDERS = [ROOT / "conf/arm", ROOT / "conf/arm/heads", ROOT / "conf/arm/zoo"]
NAMES = [f"{f.name}/{p.stem}".removeprefix("arm/") for f in FOLDERS for p in f.glob("*.yaml")]
NO_COUNTERPART = ("zoo/psanet", "zoo/reseg")


@pytest.mark.slow
@pytest.mark.parametrize("arm", sorted(NAMES))
def test_every_arm_is_exported_at_the_sizes_of_photographs(arm, tmp_path):
    cfg = compose_config("train", [f"arm={arm}", *SMALL])
    torch.manual_seed(0)
    source = open_split(cfg.dataset, "val")
    task = SegmentationTask(cfg, source.classes, source.palette.tolist())
    path = save_checkpoint(task, tmp_path / "last.ckpt")
    for kind, ending in (("onnx", "onnx"), ("torch_export", "pt2")):
        output = str(tmp_path / f"m.{ending}")
        options = ExportConfig(ckpt_path=str(path), output=output, format=kind)
        if arm in NO_COUNTERPART:
            with pytest.raises(ValueError, match="cannot be exported"):
                exporting.export(options)
        else:
            assert "1 x 241 x 497, 3 x 360 x 480" in exporting.export(options)[1]


def test_a_program_of_torch_export_takes_images_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TRACED", (2, 64, 96))
    monkeypatch.setattr(exporting, "CHECKED", ((1, 41, 97), (3, 72, 80)))
    path, output = save_checkpoint(task_of(), tmp_path / "last.ckpt"), str(tmp_path / "m.pt2")
    options = ExportConfig(
        ckpt_path=str(path),
        output=output,
        format="torch_export",
        gives="labels",
        deformable="grid_sample",
    )
    said = exporting.export(options)
    assert "1 x 41 x 97, 3 x 72 x 80" in said[1]
    assert "deform_conv" not in str(torch.export.load(output).graph)
    metadata = {"classes.txt": ""}
    program = torch.export.load(output, extra_files=metadata).module()
    assert json.loads(metadata["classes.txt"]) == task_of().classes
    image = torch.randint(0, 256, (2, 3, 33, 130)).float()
    wanted = cyclenet.load(path, device="cpu").labels(image)
    assert (program(image) == wanted).double().mean() > 0.999


def test_weights_alone_have_no_graph_to_choose():
    for key, value in (("gives", "labels"), ("deformable", "grid_sample")):
        with pytest.raises(ValueError, match="safetensors has no graph"):
            ExportConfig("x", "m.safetensors", format="safetensors", **{key: value})


def test_a_card_tells_scores_on_training_images_and_on_other_data(tmp_path):
    task = scenes_task()
    path = save_checkpoint(task, tmp_path / "run/checkpoints/last.ckpt")
    cfg = EvaluateConfig(str(path), task.cfg.dataset, task.cfg.protocol)
    doubts = {"usual": {}, "train": {"trained_on": 3}, "fog": {"elsewhere": True}}
    doubts["changed"] = {"trained_on": None}
    counts = counts_of(np.random.default_rng(0), 0.7)
    for name, keys in doubts.items():
        result = replace(summarise(counts, RUN_CLASSES, cfg), **keys)
        write_scores(tmp_path / "run/evaluate" / name, counts, result)
    card = share.write_card("me/streets", task.cfg, task.classes, path, None)
    rows = [line.split("|")[1].strip() for line in card.splitlines() if line.startswith("| scenes")]
    assert sorted(row.removeprefix("scenes val, 40 images") for row in rows) == [
        "",
        ", 3 of them training images",
        ", in another folder than in the training",
        ", of which some may be training images",
    ]


def test_a_card_names_no_commit_of_another_repository(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "share.py").touch()
    monkeypatch.setattr(share, "__file__", str(tmp_path / "share.py"))
    assert share._commit() == "an installed package"
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    git = ["git", "-C", tmp_path, *author]
    subprocess.run([*git, "add", "share.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    assert re.fullmatch("`[0-9a-f]{40}`", share._commit())
