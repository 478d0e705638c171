"""Every mistake is one sentence, before anything heavy is imported or anything is written."""

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf.errors import OmegaConfBaseException

from conftest import ROOT, run
from cyclenet.commands.cli import store_checkpoint_defaults
from cyclenet.commands.train import _check as check_words
from cyclenet.config.commands import EvaluateConfig
from cyclenet.config.errors import sentence
from cyclenet.config.identity import differences
from cyclenet.config.load import compose_config, register, run_folder_name
from cyclenet.config.reach import untrained_taps
from cyclenet.config.restore import CONF
from cyclenet.config.schema import TrainConfig, TrainerConfig
from cyclenet.runs.results import wanted_protocols
from cyclenet.training.checkpoint import check_resumable
from made import save_checkpoint, task_of


def complaint(*overrides: str) -> str:
    with pytest.raises(Exception) as error:
        wanted_protocols(compose_config("train", list(overrides)))
    text = sentence(error.value)
    assert "\n" not in text and len(text) < 400
    return text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.feedbak=3", "no key model.feedbak (did you mean model.feedback?)"),
        ("modle.feedback=3", "no key modle"),
        ("+model.extra=1", "no key model.extra"),
        (
            "model.feedback=x",
            "model.feedback: Value 'x' of type 'str' could not be converted to Integer",
        ),
        (
            "model.atrous_rates=[12,6]",
            "model.atrous_rates must be increasing positive integers; got [12, 6]",
        ),
        ("model.atrous_rates=[6,6]", "increasing"),
        ("model.atrous_rates=[0,6]", "positive"),
        ("model.atrous_rates=[6]", "at least two rates"),
        ("model.feedback=-1", "model.feedback must be in [0, 16]; got -1"),
        (
            "model.context=fcn",
            "model.context must be one of none, aspp, denseaspp, cycleaspp, pspnet",
        ),
        ("model.offset_groups=7", "model.offset_groups must divide"),
        (
            "model=resnet",
            "Could not find 'model/resnet' Available options in 'model': cyclenet cyclenet_lite",
        ),
        ("experiment=nope", "Could not find 'experiment/nope'"),
        ("model.feedback==", "Error parsing override 'model.feedback=='"),
        ("dataset.crop_size=[769]", "dataset.crop_size must be [height, width]"),
        ("dataset.scale=[2,0.5]", "dataset.scale must be [low, high]"),
        ("optim.lr=0", "optim.lr must be positive; got 0"),
        ("protocol.window=100", "protocol.stride must be between 1 and protocol.window (100)"),
        ("trainer.precision=fp8", "trainer.precision must be one of"),
        ("loss.aux_weight=0", "set model.aux_head=false"),
        (
            "extra_protocols=[ms]",
            "extra_protocols must be one of mmseg_ms_flip, paper_ms, semseg_ss, sliding, whole, "
            "windows240; got 'ms'",
        ),
        ("arm=nope", "Could not find 'arm/nope'"),
        (
            "model.first_block_dilation=2",
            "model.first_block_dilation must be one of previous, stage; got '2'",
        ),
        ("loss.class_weights=[1,-1]", "loss.class_weights must be 0 or more, and finite"),
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
    monkeypatch.setattr("cyclenet.config.load.CONF", tmp_path / "conf")
    assert message in complaint("experiment=mine")


def test_a_mistake_ends_the_program_and_writes_nothing(tmp_path):
    output = run("train", "model.feedbak=3", cwd=tmp_path, ok=False)
    assert output.startswith("error: There is no key model.feedbak (did you mean model.feedback?)")
    assert output.count("\n") == 1
    output = run("train", "optim.lr=0.1,0.2", cwd=tmp_path, ok=False)
    assert (
        output
        == "error: optim.lr=0.1,0.2 lists several values: add -m to sweep over them, or give one.\n"
    )
    output = run("train", "experiment=ablation_cycle", "arm=baseline,nope", cwd=tmp_path, ok=False)
    assert (
        output.startswith("error: ")
        and "Could not find 'arm/nope'" in output
        and output.count("\n") == 1
    )
    # A sweep, here one that needs no -m, is checked before its first job too.
    words = ["experiment=ablation_cycle", "arm=baseline,cycleaspp"]
    output = run("train", *words, "optim.lr=-1", cwd=tmp_path, ok=False)
    assert output == "error: optim.lr must be positive; got -1.0.\n"
    words = [*words[:1], "arm=glob(cycleaspp_a*)"]
    output = run("train", *words, "dataset=camvid", "dataset.root=nowhere", cwd=tmp_path, ok=False)
    assert (
        output.startswith("error: There is no folder nowhere: set dataset.root")
        and output.count("\n") == 1
    )
    output = run("train", "dataset=camvid", "dataset.root=nowhere", cwd=tmp_path, ok=False)
    assert (
        output.startswith("error: There is no folder nowhere: set dataset.root")
        and output.count("\n") == 1
    )
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_heavy_import(tmp_path):
    import subprocess

    heavy = "torch lightning timm cv2 albumentations wandb matplotlib"
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--help']\n"
        "try: runpy.run_path(sys.path[0] + '/train.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print('LOADED', [m for m in '{heavy}'.split() if m in sys.modules])"
    )
    started = time.time()
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n{code}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout and "model.feedback=1\n" in done.stdout
    print(f"--help took {time.time() - started:.2f} s")


def folder(*overrides: str) -> str:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return run_folder_name(compose("train", list(overrides)))


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
    assert folder("experiment=demo").startswith(
        "demo/scenes-tf_efficientnet_lite0-cycleaspp_2.3.6.9.12_k1-adc-seed0-"
    )


def test_a_key_that_a_later_version_adds_keeps_the_names_of_old_run_folders(monkeypatch):
    from dataclasses import field, make_dataclass

    from cyclenet.config import load as config

    before = folder("experiment=camvid")
    later = make_dataclass(
        "TrainConfig", [("new_key", int, field(default=3))], bases=(TrainConfig,)
    )
    plain = config.plain_values
    monkeypatch.setattr(config, "TrainConfig", later)
    for value, same in ((3, True), (4, False)):
        monkeypatch.setattr(
            config, "plain_values", lambda cfg, value=value: plain(cfg) | {"new_key": value}
        )
        assert (folder("experiment=camvid") == before) == same


def test_seed_zero_is_a_seed():
    assert "seed0" in folder("seed=0") and folder("seed=0") == folder()


@pytest.mark.parametrize(
    "path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_experiment_composes(path):
    # Rates that another sweep chose are there for its arms alone.
    rate = ["optim.lr=0.1"] if "${chosen:" in path.read_text() else []
    cfg = compose_config("train", [f"experiment={path.stem}", *rate])
    assert cfg.name == ("ablation" if path.stem.startswith("ablation_") else path.stem)


@pytest.mark.parametrize("model", ["cyclenet", "cyclenet_lite"])
@pytest.mark.parametrize("path", sorted((CONF / "arm").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_arm_composes_with_every_model_and_keeps_the_rest(path, model):
    chosen = [f"model={model}", "dataset=camvid", "trainer=cpu"]
    plain, arm = (compose_config("train", [*chosen, *word]) for word in ([], [f"arm={path.stem}"]))
    assert (arm.dataset, arm.trainer, arm.protocol) == (
        plain.dataset,
        plain.trainer,
        plain.protocol,
    )
    assert (arm.model.reduce_channels, arm.model.output_stride) == (
        plain.model.reduce_channels,
        plain.model.output_stride,
    )
    assert arm.model.head_channels == plain.model.head_channels


def grid(experiment: str) -> dict[str, str]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"experiment={experiment}"], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    return dict(cfg.hydra.sweeper.params)


def arms(experiment: str) -> list:
    axes = grid(experiment)
    return [
        compose_config("train", [f"experiment={experiment}", f"arm={arm}"]).model
        for arm in axes["arm"].split(",")
    ]


def test_the_grids_are_the_papers_tables():
    from cyclenet.lab.paper import TABLE1, TABLE2, find_row

    assert [find_row(model, "whole") for model in arms("ablation_rates")] == list(TABLE1)
    assert [find_row(model, "whole") for model in arms("ablation_cycle")] == list(TABLE2[:3])
    ms = compose_config("train", ["experiment=ablation_cycle", "arm=cycleaspp_adc_ms"])
    assert ms.extra_protocols == ["paper_ms"] and find_row(ms.model, "paper_ms") == TABLE2[3]
    decoders = [(model.decoder, model.mask_scale > 0) for model in arms("ablation_adc")]
    assert decoders == [("none", True), ("skip", True), ("adc", True), ("adc", False)]
    assert grid("ablation_feedback") == {"arm": "cycleaspp", "model.feedback": "0,1,2,3"}
    assert all(m.context == "cycleaspp" and len(m.atrous_rates) == 6 for m in arms("ablation_adc"))


def test_each_option_of_the_options_ablation_changes_one_key():
    from dataclasses import asdict

    base = asdict(compose_config("train", ["experiment=ablation_options", "arm=cycleaspp_adc"]))
    changed = []
    for arm in grid("ablation_options")["arm"].split(",")[1:]:
        cfg = asdict(compose_config("train", ["experiment=ablation_options", f"arm={arm}"]))
        keys = [
            f"{g}.{k}"
            for g in ("model", "optim", "loss", "trainer")
            for k in cfg[g]
            if cfg[g][k] != base[g][k]
        ]
        assert len(keys) == 1, arm
        changed += keys
    assert changed == [
        "optim.head_lr_scale",
        "model.share_norm",
        "model.share_projections",
        "model.mask_scale",
        "model.backbone",
        "model.first_block_dilation",
        "loss.ohem_threshold",
    ]
    page = (ROOT / "docs/design.md").read_text()
    assert all(f"`{key}`" in page for key in changed)


def test_rates_keep_their_reach_at_another_stride():
    lite = compose_config("train", ["model=cyclenet_lite", "arm=cycleaspp"]).model
    assert lite.output_stride == 16 and lite.atrous_rates == [2, 3, 6, 9, 12, 15]
    assert compose_config("train", ["model=cyclenet", "arm=aspp"]).model.atrous_rates == [6, 12, 18]


def test_ablations_share_the_runs_they_have_in_common():
    words = ["dataset=camvid", "model=cyclenet_lite"]
    same = [
        folder("experiment=ablation_cycle", "arm=cycleaspp", *words),
        folder("experiment=ablation_rates", "arm=cycleaspp", *words),
        folder("experiment=ablation_feedback", "arm=cycleaspp", "model.feedback=1", *words),
        folder("experiment=ablation_adc", "arm=cycleaspp", *words),
    ]
    assert len(set(same)) == 1
    # More evaluations of the same training are in the same folder.
    assert folder("arm=cycleaspp_adc", *words) == folder("arm=cycleaspp_adc_ms", *words)


def test_the_papers_runs_are_to_the_letter():
    city = compose_config("train", ["experiment=cityscapes"])
    assert (city.optim.lr, city.optim.momentum, city.optim.weight_decay, city.optim.poly_power) == (
        1e-2,
        0.9,
        1e-4,
        0.9,
    )
    assert (city.trainer.max_epochs, city.dataset.batch_size, city.dataset.crop_size) == (
        180,
        8,
        [769, 769],
    )
    assert (
        city.model.atrous_rates == [3, 6, 12, 18, 24, 30]
        and city.model.feedback == 1
        and city.model.decoder == "adc"
    )
    assert (city.model.backbone, city.model.backbone_weights, city.model.output_stride) == (
        "resnet101s",
        "timm",
        8,
    )
    assert city.model.align_corners  # 769 = 8 * 96 + 1
    assert city.dataset.scale == [0.75, 2.0] and city.loss.aux_weight == 0.4
    ade = compose_config("train", ["experiment=ade20k"])
    assert (
        ade.optim.lr,
        ade.trainer.max_epochs,
        ade.dataset.batch_size,
        ade.dataset.crop_size,
    ) == (2e-2, 120, 16, [512, 512])
    assert ade.model.atrous_rates == [3, 6, 12, 18, 24]


def test_the_heads_have_the_papers_rates_for_their_map():
    """Maps of 45 x 60 features: rates keep the share of the map that they have of 97 x 97."""
    rates = {
        arm: compose_config("train", ["experiment=heads_rates", f"arm=heads/{arm}", "optim.lr=0.1"])
        for arm in ("baseline", "aspp", "denseaspp_flops", "cycleaspp_wide")
    }
    assert rates["aspp"].model.atrous_rates == [3, 6, 8]
    flops, wide = rates["denseaspp_flops"].model, rates["cycleaspp_wide"].model
    assert flops.atrous_rates == wide.atrous_rates == [1, 3, 6, 8, 11, 14]
    assert (flops.context, flops.bottleneck_channels) == ("denseaspp", 96)
    assert (wide.context, wide.decoder, wide.bottleneck_channels) == ("cycleaspp", "wide_skip", 64)
    for cfg in rates.values():
        assert cfg.model.freeze_backbone and not cfg.model.aux_head
        assert untrained_taps(cfg, [(360, 480)]) == ""
    falling = ["model=cyclenet", "model.atrous_rates='${rates_at_97:[30,24]}'"]
    with pytest.raises(ValueError, match="increasing"):
        compose_config("train", falling)
    for name, wanted in (("scenes", [1, 2, 4, 6, 8, 10]), ("unfrozen", [1, 2, 3, 4, 6, 7])):
        cfg = compose_config("train", [f"experiment=heads_{name}", "arm=heads/cycleaspp"])
        assert cfg.model.atrous_rates == wanted


def test_an_experiments_own_axes_are_checked_as_its_jobs_are(tmp_path):
    """Rates that were chosen for the arms of a sweep say nothing of the default arm."""
    register()
    words = ["experiment=zoo_heads", f"dataset.root={tmp_path}"]
    check_words(words, sweep=False)
    for axis in ("{arm:'glob(*)'}", "{optim.lr:'interval(0,1)'}"):
        axes = [f"hydra.sweeper.params={axis}", f"dataset.root={tmp_path}"]
        check_words(["experiment=heads_rates", *axes], sweep=False)
    (tmp_path / "chosen.yaml").write_text("Other: 1\n")
    rate = f"optim.lr='${{chosen:{tmp_path / 'chosen.yaml'}}}'"
    with pytest.raises(OmegaConfBaseException, match="has no number for Baseline"):
        check_words([*words, rate], sweep=False)


def test_devices_are_of_the_result_where_batch_norm_is_not_joined():
    joined, apart = TrainerConfig(), TrainerConfig(sync_batchnorm=False)
    for trainer, differ in ((joined, False), (apart, True)):
        a, b = (TrainConfig(trainer=replace(trainer, devices=n)) for n in ("1", "2"))
        assert bool(differences(a, b)) == differ
    told = differences(TrainConfig(trainer=joined), TrainConfig(trainer=apart))
    assert told == ["trainer.sync_batchnorm (True there, False here)"]
    # What `auto` stands for is known when the checkpoint is read.
    apart = TrainerConfig(sync_batchnorm=False, accelerator="cpu")
    cfg = TrainConfig(trainer=apart)
    stored = {"cfg": asdict(cfg), "classes": [], "palette": []}
    checkpoint = {"hyper_parameters": stored, "run": {"layout": 3, "processes": 1}}
    check_resumable(checkpoint, Path("last.ckpt"), cfg)
    check_resumable(checkpoint, Path("last.ckpt"), TrainConfig(trainer=replace(apart, devices="1")))
    checkpoint["run"]["processes"] = 4
    with pytest.raises(ValueError, match=r"another number of processes \(4 there, 1 here\)"):
        check_resumable(checkpoint, Path("last.ckpt"), cfg)
    check_resumable(checkpoint, Path("last.ckpt"), TrainConfig(trainer=apart, force=True))
    stored["cfg"]["trainer"]["sync_batchnorm"] = True
    check_resumable(checkpoint, Path("last.ckpt"), TrainConfig(trainer=joined))


def test_another_data_set_gets_none_of_the_checkpoints_keys(tmp_path):
    task = task_of()
    task.hparams["cfg"]["dataset"] |= {"val_limit": 20, "boundary_ratio": 0.005, "name": "camvid"}
    path = save_checkpoint(task, tmp_path / "last.ckpt")
    for words, expected in ((["dataset=scenes"], (0, 0.02)), ([], (20, 0.005))):
        words = ["ckpt_path=gone.ckpt", f"ckpt_path={path}", *words]  # The last counts.
        store_checkpoint_defaults(EvaluateConfig, words)
        dataset = compose_config("evaluate", words).dataset
        assert (dataset.val_limit, dataset.boundary_ratio) == expected
