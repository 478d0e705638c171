"""Every mistake is one sentence, before anything heavy is imported and before anything is written."""

import sys
import time

import pytest
from hydra import compose, initialize_config_dir

from conftest import ROOT, run
from cyclenet.cli import CONF, compose_config, sentence
from cyclenet.config import TrainConfig, run_folder


def complaint(*overrides: str) -> str:
    with pytest.raises(Exception) as error:
        compose_config("config", TrainConfig, list(overrides))
    text = sentence(error.value)
    assert "\n" not in text and len(text) < 300
    return text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.feedbak=3", "no key model.feedbak (did you mean feedback?)"),
        ("modle.feedback=3", "no key modle (did you mean model?)"),
        ("+model.extra=1", "no key model.extra"),
        ("model.feedback=x", "model.feedback: Value 'x' of type 'str' could not be converted to Integer"),
        ("model.atrous_rates=[12,6]", "model.atrous_rates must be increasing positive integers; got [12, 6]"),
        ("model.atrous_rates=[6,6]", "increasing"),
        ("model.atrous_rates=[0,6]", "positive"),
        ("model.atrous_rates=[6]", "at least two rates"),
        ("model.feedback=-1", "model.feedback must be 0 or more; got -1"),
        ("model.context=pspnet", "model.context must be one of none, aspp, denseaspp, cycleaspp; got 'pspnet'"),
        ("model.offset_groups=7", "model.offset_groups must divide"),
        ("model=resnet", "Could not find 'model/resnet' Available options in 'model': cyclenet cyclenet_lite"),
        ("experiment=nope", "Could not find 'experiment/nope'"),
        ("model.feedback==", "Error parsing override 'model.feedback=='"),
        ("dataset.crop_size=[769]", "dataset.crop_size must be [height, width]"),
        ("dataset.scale=[2,0.5]", "dataset.scale must be [low, high]"),
        ("optim.lr=0", "optim.lr must be positive; got 0"),
        ("protocol.window=100", "protocol.stride must be between 1 and protocol.window (100)"),
        ("trainer.precision=fp8", "trainer.precision must be one of"),
        ("loss.aux_weight=0", "set model.aux_head=false"),
        ("resume=maybe", "resume must be one of auto, never, must"),
    ],
)
def test_mistakes_on_the_command_line(override, message):
    assert message in complaint(override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  feedbak: 2\n", "no key model.feedbak"),
        ("model:\n  feedback: two\n", "model.feedback: Value 'two'"),
        ("dataset:\n  crop_size: 769\n", "dataset.crop_size: "),
        ("trainer:\n  max_epochs: -3\n", "trainer.max_epochs must be positive"),
    ],
)
def test_mistakes_in_a_file(text, message, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf/experiment/mine.yaml").write_text("# @package _global_\n" + text)
    monkeypatch.setattr("cyclenet.cli.CONF", tmp_path / "conf")
    assert message in complaint("experiment=mine")


def test_a_mistake_ends_the_program_and_writes_nothing(tmp_path):
    output = run("train", "model.feedbak=3", cwd=tmp_path, ok=False)
    assert output == "error: There is no key model.feedbak (did you mean feedback?); --help lists them all.\n"
    output = run("train", "dataset=camvid", "dataset.root=nowhere", cwd=tmp_path, ok=False)
    assert output.startswith("error: There is no folder nowhere: set dataset.root") and output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_heavy_import(tmp_path):
    import subprocess

    heavy = "torch lightning timm cv2 albumentations wandb matplotlib"
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--help']\n"
        "try: runpy.run_path(sys.path[0] + '/train.py', run_name='__main__')\n"
        f"except SystemExit: pass\nprint('LOADED', [m for m in '{heavy}'.split() if m in sys.modules])"
    )
    started = time.time()
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n{code}"],
                          cwd=tmp_path, capture_output=True, text=True, check=True)  # fmt: skip
    assert "LOADED []" in done.stdout and "feedback: 1" in done.stdout
    print(f"--help took {time.time() - started:.2f} s")


def folder(*overrides: str) -> str:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return run_folder(compose("config", list(overrides)))


def test_the_run_folder_is_a_function_of_what_changes_the_result():
    assert folder("experiment=demo") == folder(
        "experiment=demo", "trainer.num_workers=3", "logger=csv", "dataset.download=true"
    )
    others = [
        "seed=1",
        "model.feedback=2",
        "optim.lr=0.3",
        "trainer.max_epochs=3",
        "trainer.precision=bf16-mixed",
        "dataset.root=x",
    ]
    names = {folder("experiment=demo", other) for other in others} | {folder("experiment=demo")}
    assert len(names) == 7
    assert folder("experiment=demo").startswith("demo/scenes-tf_efficientnet_lite0-cycleaspp1-adc-seed0-")


def test_seed_zero_is_a_seed():
    assert "seed0" in folder("seed=0") and folder("seed=0") == folder()


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_composes(path):
    cfg = compose_config("config", TrainConfig, [f"experiment={path.stem}"])
    assert cfg.name == path.stem


def test_the_papers_runs_are_to_the_letter():
    city = compose_config("config", TrainConfig, ["experiment=cityscapes"])
    assert (city.optim.lr, city.optim.momentum, city.optim.weight_decay, city.optim.poly_power) == (1e-2, 0.9, 1e-4, 0.9)
    assert (city.trainer.max_epochs, city.dataset.batch_size, city.dataset.crop_size) == (180, 8, [769, 769])
    assert city.model.atrous_rates == [3, 6, 12, 18, 24, 30] and city.model.feedback == 1 and city.model.decoder == "adc"
    assert (city.model.backbone, city.model.backbone_weights, city.model.output_stride) == ("resnet101s", "timm", 8)
    assert city.model.align_corners  # 769 = 8 * 96 + 1
    assert city.dataset.scale == [0.75, 2.0] and city.loss.aux_weight == 0.4
    ade = compose_config("config", TrainConfig, ["experiment=ade20k"])
    assert (ade.optim.lr, ade.trainer.max_epochs, ade.dataset.batch_size, ade.dataset.crop_size) == (2e-2, 120, 16, [512, 512])
    assert ade.model.atrous_rates == [3, 6, 12, 18, 24]
