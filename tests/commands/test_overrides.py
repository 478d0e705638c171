"""One grammar: paths with any sign need no quotes, in every command."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, TINY, noise_image, run, write
from cyclenet.commands.overrides import list_keys, quote
from cyclenet.config.commands import ReportConfig, VisualizeConfig
from cyclenet.config.help import explain_keys, field_comments, nearest_key
from cyclenet.config.load import SCHEMAS, compose_config
from cyclenet.config.schema import TrainConfig

STRANGE = "a=b, [c] {d} (e) ~f 'g \\ h"
SCENES = ["dataset.scenes_train=2", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]", *TINY]


@pytest.mark.parametrize("value", [STRANGE, "x'", "x\\", "a,b", "1", "true", "[x]", "é/日本"])
def test_a_path_is_taken_as_it_stands(value):
    cfg = compose_config("train", [quote(f"dataset.root={value}", set())])
    assert cfg.dataset.root == value
    cfg = compose_config("report", ["runs=[a]", quote(f"title={value}", set())])
    assert cfg.title == value


def test_the_home_folder_and_lists(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (cfg,) = [compose_config("train", [quote("dataset.root=~/data", set())])]
    assert cfg.dataset.root == f"{tmp_path}/data"
    assert list_keys(ReportConfig) == {"runs", "protocols"}
    assert "what" in list_keys(VisualizeConfig) and "compare" in list_keys(VisualizeConfig)
    (tmp_path / "a,b").mkdir()
    monkeypatch.chdir(tmp_path)
    words = [quote(word, list_keys(ReportConfig)) for word in ("runs=a,b", "protocols=x,y")]
    cfg = compose_config("report", words)
    # A path that exists is one path; other commas separate.
    assert (list(cfg.runs), list(cfg.protocols)) == (["a,b"], ["x", "y"])
    assert list(compose_config("report", [quote("runs=c,d", {"runs"})]).runs) == ["c", "d"]


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("[0:Straße, 1:b (c)]", "['0:Straße','1:b (c)']"),
        ("[a,b]", "[a,b]"),
        *((value, value) for value in ("[]", "[ ]", "[null]", "['a b',c]", "[a\\,b]", "[a],[b]")),
    ],
)
def test_a_list_in_brackets_needs_no_quotes(value, quoted, sweep):
    keys = list_keys(TrainConfig)
    assert quote(f"dataset.ids={value}", keys, sweep) == f"dataset.ids={quoted}"


def test_a_sweep_lists_values_unless_they_are_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = "model.backbone_weights=none,package"
    assert quote(word, set(), sweep=True) == word
    Path("none,package").touch()
    assert quote(word, set(), sweep=True) == "model.backbone_weights='none,package'"


def test_strange_folders_work_in_every_command(tmp_path, camvid):
    """Training, evaluation, prediction, report and check_data, in a folder with a strange name."""
    root = tmp_path / STRANGE
    camvid.rename(root)
    data = ["dataset=camvid", f"dataset.root={root}"]
    folder = tmp_path / f"runs {STRANGE}" / "run"
    run("train", *data, *TINY, f"hydra.run.dir={folder}", cwd=tmp_path)
    last = f"ckpt_path={folder}/checkpoints/last.ckpt"
    run("evaluate", last, data[1], f"output={folder}/scores", cwd=tmp_path)
    assert (folder / "scores/scores.json").is_file()
    write(root / "in/x.png", noise_image(np.random.default_rng(0), 40, 50))
    output = run("predict", last, f"input={root}/in", f"output={root}/out", cwd=tmp_path)
    assert "1 predicted" in output and (root / "out/label/x.png").is_file()
    assert "0 bad files" in run("check_data", *data, cwd=tmp_path)
    run("report", f"runs={folder.parent}", f"output={root}/report", cwd=tmp_path)
    assert (root / "report/report.html").is_file()


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_explains_every_key(command):
    for key in explain_keys(SCHEMAS[command]):
        assert key.text.endswith("."), key.name
        assert len(key.text) > 15 and key.default, key.name
    text = run(command, "--help", cwd=Path.cwd())
    assert f"python src/{command}.py" in text
    for key in explain_keys(SCHEMAS[command]):
        assert f"  {key.name}={key.default}\n" in text
    assert max(len(line) for line in text.splitlines()) <= 110


def test_comments_belong_to_the_field_below():
    assert field_comments(TrainConfig)["seed"].startswith("Seed of the weights")


@pytest.mark.parametrize(
    ("typo", "right"),
    [
        ("model.feedbak", "model.feedback"),
        ("dataset.rot", "dataset.root"),
        ("optim.batch_size", "dataset.batch_size"),
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("protocl", "protocols"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_key(typo, right):
    assert nearest_key(typo) == right


def test_a_typo_in_any_command(tmp_path):
    for command in ("check_data", "complexity", "report", "publish"):
        output = run(command, "model.feedbak=1", cwd=tmp_path, ok=False)
        assert output.startswith("error: ") and "--help lists them all" in output, output
    words = shlex.split("dataset=camvid dataset.rot=x")
    assert "(did you mean dataset.root?)" in run("check_data", *words, cwd=tmp_path, ok=False)


def test_help_may_be_cut_off():
    words = f"{sys.executable} {ROOT}/src/report.py --help | head -1"
    done = subprocess.run(words, shell=True, text=True, capture_output=True)
    assert done.stdout.startswith("Compare runs") and not done.stderr


def test_a_missing_key_is_told_with_its_explanation(tmp_path):
    said = run("report", "title=a", cwd=tmp_path, ok=False)
    assert "error: runs is missing: give runs=VALUE. Run folders, or folders that hold them" in said
