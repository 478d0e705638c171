"""src/visualize.py as a user runs it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from conftest import run, write
from cyclenet.config.commands import VisualizeConfig
from cyclenet.lab.explain.features import Explained
from cyclenet.lab.explain.visualize import _analysis_name
from cyclenet.runs.results import RunResult
from made import model_of, save_checkpoint, scenes_task, task_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visualize")
    save_checkpoint(scenes_task(), folder / "run/checkpoints/last.ckpt")
    save_checkpoint(scenes_task(context="denseaspp", decoder="none"), folder / "other.ckpt")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write(folder / f"in/{name}.png", rng.integers(0, 256, (72, 96, 3), dtype=np.uint8))
    return folder


CKPT = "ckpt_path=run/checkpoints/last.ckpt"


def test_all_figures_of_a_point(folder):
    what = "what=figure3,figure4,similarity,gradcam,offsets,receptive_field,probabilities,feedback"
    output = run(
        "visualize",
        CKPT,
        "image=in/a.png",
        "point=40,30/95,71",
        what,
        "compare=other.ckpt",
        "output=all",
        cwd=folder,
    )
    alone = ("figure3-1", "figure4-1", "offsets", "receptive_field", "feedback")
    names = [f"a/{name}" for name in alone]
    names += [
        f"a/{name}-{at}"
        for name in ("similarity", "gradcam", "probabilities")
        for at in ("40-30", "95-71")
    ]
    for name in names:
        assert f"all/{name}.png" in output
        assert min(Image.open(folder / f"all/{name}.png").size) > 300, name
        assert (folder / f"all/{name}.pdf").read_bytes()[:4] == b"%PDF"
    assert len(list((folder / "all").rglob("*.*"))) == 2 * len(names)


def test_the_same_command_writes_the_same_bytes(folder):
    command = [CKPT, "image=val_00001", "what=gradcam,feedback", "formats=png,pdf,svg"]
    for output in ("first", "second"):  # `val_00001` is drawn on the fly: it has no file.
        run("visualize", *command, f"output={output}", cwd=folder)
    files = sorted(path.relative_to(folder / "first") for path in (folder / "first").rglob("*.*"))
    assert len(files) == 3 * 3 and {path.suffix for path in files} == {".png", ".pdf", ".svg"}
    for path in files:
        assert (folder / "first" / path).read_bytes() == (folder / "second" / path).read_bytes(), (
            path
        )


def test_a_folder_and_a_list_of_points(folder):
    (folder / "points.csv").write_text("image,x,y\na.png,3,4\nb,50,60\nb,70,8\n")
    (folder / "in/broken.jpg").write_bytes(b"no picture")
    output = run(
        "visualize",
        CKPT,
        "image=in",
        "points=points.csv",
        "what=gradcam",
        "formats=png",
        "output=batch",
        cwd=folder,
        ok=False,
    )
    (folder / "in/broken.jpg").unlink()
    assert "broken.jpg is not a readable image" in output
    found = sorted(
        str(path.relative_to(folder / "batch")) for path in (folder / "batch").rglob("*.png")
    )
    assert found == ["a/gradcam-3-4.png", "b/gradcam-50-60.png", "b/gradcam-70-8.png"]


def test_a_whole_split_in_numbers(folder):
    output = run("visualize", CKPT, "dataset.val_limit=2", "formats=svg", cwd=folder)
    assert (
        "features of one class are" in output
        and "the first 2 images (dataset.val_limit)" in output
        and "PartII minus PartI" in output
    )
    # Fewer images are not the run's own split, so this is not what reports read.
    (written,) = (folder / "run/visualize").glob("last-scenes-val-*")
    result = json.loads((written / "analysis.json").read_text())
    assert (
        result["images"] == 2
        and result["dataset"] == "scenes"
        and len(result["feedback"]["IoU"]) == 2
    )
    assert (written / "analysis.md").read_text() in output and "nan" not in output
    for topic in ("feedback", "similarity", "offsets", "receptive_field"):
        assert "</svg>" in (written / f"analysis-{topic}.svg").read_text()


def test_only_the_runs_own_analysis_lies_where_reports_read_it(tmp_path, monkeypatch):
    task = scenes_task()
    path = save_checkpoint(task, tmp_path / "run/checkpoints/last.ckpt")
    best = shutil.copy(path, path.with_name("best.ckpt"))
    RunResult("finished", data_root=None).write(tmp_path / "run")
    own = VisualizeConfig(ckpt_path=str(path), dataset=task.cfg.dataset)
    other = replace(task.cfg.dataset, scenes_seed=9)
    usual = replace(task.cfg.dataset, batch_size=3, crop_size=[64, 64], cache="never")
    assert _analysis_name(replace(own, dataset=usual), model_of(task)) == ""
    cases = [own, replace(own, ckpt_path=str(best)), replace(own, split="train")]
    cases += [replace(own, dataset=other), replace(own, what=["feedback"])]
    names = [_analysis_name(cfg, model_of(task)) for cfg in cases]
    assert names[0] == "" and all(names[1:]) and len(set(names)) == len(names)
    # The data lay elsewhere in the training.
    monkeypatch.setattr("cyclenet.runs.results.data_root", lambda dataset: "/data/fog")
    RunResult("finished", data_root="/data/clear").write(tmp_path / "run")
    assert _analysis_name(own, model_of(task)) != ""


def test_pages_of_more_images_do_not_stay(folder):
    words = [CKPT, "what=figure4", "output=pages", "formats=png", "points=points.csv"]
    for count, pages in ((10, 2), (9, 1)):
        lines = [f"{'ab'[n % 2]},{n},9\n" for n in range(count)]
        (folder / "points.csv").write_text("".join(["image,x,y\n", *lines]))
        run("visualize", *words, "image=in", cwd=folder)
        drawn = {path.name for path in (folder / "pages").iterdir()}
        assert drawn == {f"figure4-{number}.png" for number in range(1, pages + 1)}


def test_names_are_taken_as_they_stand(folder):
    """With signs that Hydra's grammar has a meaning for, and the same name in two folders."""
    odd = folder / "my run (1), x=3/café's [2]"
    for name in ("a/street.0001.png", "b/street.0001.png"):
        write(odd / name, np.zeros((64, 64, 3), np.uint8))
    save_checkpoint(scenes_task(), odd / "epoch=3.ckpt")
    (odd / "points.csv").write_text("\ufeffimage,x,y\na/street.0001,1,2\nb/street.0001.png,3,4\n")
    words = [
        f"ckpt_path={odd}/epoch=3.ckpt",
        f"image={odd}",
        f"points={odd}/points.csv",
        f"output={odd}/out",
        "formats=png",
    ]
    for _ in range(2):  # What was drawn is not taken for images.
        run("visualize", *words, "what=gradcam", cwd=folder)
    found = sorted(
        path.relative_to(odd / "out").as_posix() for path in (odd / "out").rglob("*.png")
    )
    assert found == ["a/street.0001/gradcam-1-2.png", "b/street.0001/gradcam-3-4.png"]


def test_a_truth_of_other_classes_is_not_used(folder):
    task = task_of()
    task.hparams["cfg"]["dataset"] |= {"scenes_val": 3, "scenes_size": [64, 128]}
    save_checkpoint(task, folder / "four.ckpt")
    output = run(
        "visualize",
        "ckpt_path=four.ckpt",
        "image=val_00001",
        "what=feedback",
        "output=four",
        cwd=folder,
    )
    assert "has other classes than the checkpoint: its masks are not used" in output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["image=nothing.png"],
            "there is no file nothing.png, and no image of that name (scenes val has images such "
            "as val_00000)",
        ),
        (
            ["image=in/a.png", "point=96,3"],
            "The point 96,3 lies outside the image (96 x 72 pixels, counted from 0).",
        ),
        (["image=in/a.png", "point=here"], "point must be x,y in whole pixels"),
        (["image=in/a.png", "what=saliency"], "what must be one of figure4, similarity"),
        (
            ["image=in/a.png", "point=1,2", "points=p.csv"],
            "Give point=x,y or points=FILE, not both.",
        ),
        (["image=in", "points=p.csv"], "points: p.csv cannot be read"),
        (["point=1,2"], "A point belongs to an image"),
        (["what=gradcam"], "what=gradcam is a figure of an image"),
        (["compare=other.ckpt"], "compare= is for what=figure3 of an image"),
        (["image=in/a.png", "formats=gif"], "formats must be one of png, pdf, svg"),
    ],
)
def test_mistakes_get_one_sentence(folder, words, sentence):
    output = run("visualize", CKPT, *words, "output=wrong", cwd=folder, ok=False)
    assert sentence in output and "Traceback" not in output and not (folder / "wrong").exists()


def test_a_context_of_one_size_does_not_explain_smaller_images():
    task = task_of(context="psanet", decoder="none")
    with pytest.raises(ValueError, match="an image of 64 x 96 cannot be explained"):
        Explained(task, np.zeros((64, 96, 3), np.uint8))


def test_offsets_need_adc(folder):
    output = run(
        "visualize", "ckpt_path=other.ckpt", "image=in/a.png", "what=offsets", cwd=folder, ok=False
    )
    assert "has no ADC (model.decoder=none)" in output
    output = run("visualize", "ckpt_path=other.ckpt", "what=offsets", cwd=folder, ok=False)
    assert "this one has none" in output
