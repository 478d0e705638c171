"""The package that pip installs: it needs no folder of the repository."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT, TINY, noise_image, write

SCENES = ["dataset.scenes_train=2", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the wheel's files, as `pip install --target` lays them out."""
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(place)]
    subprocess.run([*pip, "wheel", str(ROOT), *options], check=True, cwd=place)
    (wheel,) = place.glob("cyclenet-*.whl")
    options = ["--no-deps", "--no-index", "--target", str(place / "packages")]
    subprocess.run([*pip, "install", str(wheel), *options], check=True, cwd=place)
    return place / "packages"


def cyclenet(installed, *words, cwd) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "cyclenet", *words]
    return subprocess.run(
        command, check=True, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE
    ).stdout


def test_the_wheel_trains_and_evaluates_in_any_folder(installed, tmp_path):
    where = "import cyclenet; print(cyclenet.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(
        [sys.executable, "-c", where], env=environment, text=True, capture_output=True, cwd=tmp_path
    )
    assert found.stdout.startswith(str(installed))
    assert "experiment" in cyclenet(installed, "train", "--help", cwd=tmp_path)
    cyclenet(installed, "train", *SCENES, *TINY, "hydra.run.dir=run", cwd=tmp_path)
    assert json.loads((tmp_path / "run/result.json").read_text())["status"] == "finished"
    output = cyclenet(installed, "evaluate", "ckpt_path=run/checkpoints/last.ckpt", cwd=tmp_path)
    assert "mIoU" in output


OUTSIDE = """
import sys

import cyclenet, numpy as np, onnxruntime

result = cyclenet.load("run").predict("photo.jpg")
result.save("out.png")
shared = cyclenet.load("shared").predict("photo.jpg")
image = result.image.transpose(2, 0, 1)[None].astype(np.float32)
(labels,) = onnxruntime.InferenceSession("m.onnx").run(None, {"image": image})
assert (shared.labels == result.labels).all()
assert (labels[0] == result.labels).mean() > 0.999, (labels[0] == result.labels).mean()
assert not {"hydra", "lightning"} & sys.modules.keys()
print(cyclenet.__file__)
"""


@pytest.mark.slow
def test_three_lines_of_python_and_a_file_to_deploy(installed, tmp_path):
    """As a new user outside of the repository: a trained run, its export, its shared folder."""
    cyclenet(installed, "train", *SCENES, *TINY, "hydra.run.dir=run", cwd=tmp_path)
    cyclenet(installed, "export", "ckpt_path=run", "output=m.onnx", "gives=labels", cwd=tmp_path)
    words = ("repo=me/mine", "output=shared", "dry_run=true")
    cyclenet(installed, "push", "ckpt_path=run", *words, cwd=tmp_path)
    write(tmp_path / "photo.jpg", noise_image(np.random.default_rng(0), 241, 497))
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE],
        env=environment,
        text=True,
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed)) and (tmp_path / "out.png").is_file()
