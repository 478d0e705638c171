"""A new context module is one class, one row and one YAML; nothing else changes."""

import json
import shutil
import sys

import pytest

from conftest import TINY
from cyclenet.config import choices
from cyclenet.config.load import compose_config
from cyclenet.config.restore import CONF

TOY = '''
from torch import nn

from cyclenet.models.contexts.base import Context


class Toy(Context):
    """Two parts: a 1x1 convolution, and the same filter once more, fed back."""

    part_names = ("first", "second")
    layer_names = ("narrow", "wide")

    def __init__(self, in_channels, head_channels, feedback):
        super().__init__()
        self.out_channels = head_channels + feedback
        self.enter = nn.Conv2d(in_channels, 8, 1)
        self.shared = nn.Conv2d(8, 8, 1)
        self.leave = nn.Conv2d(16, self.out_channels, 1)

    def reduce(self, x):
        return self.enter(x)

    def passes(self, y0, tap=lambda outputs: outputs):
        outputs = tap([self.shared(y0), y0])
        yield outputs
        yield tap([self.shared(outputs[0]), outputs[1]])

    def fuse(self, y0, outputs):
        import torch

        return self.leave(torch.cat(outputs, 1))
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The class, the row and the YAML."""
    (tmp_path / "toy_module.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    row = choices.Choice("toy_module:Toy", "Toy", ("head_channels", "feedback"))
    monkeypatch.setitem(choices.CONTEXTS, "toy", row)
    shutil.copytree(CONF, tmp_path / "conf")
    arm = "# @package _global_\nmodel:\n  context: toy\n  decoder: none\n"
    (tmp_path / "conf/arm/toy.yaml").write_text(arm)
    monkeypatch.setattr("cyclenet.config.load.CONF", tmp_path / "conf")
    yield tmp_path
    sys.modules.pop("toy_module", None)


def test_a_new_context_trains_is_counted_labelled_reported_and_explained(toy, monkeypatch):
    import numpy as np
    from omegaconf import OmegaConf

    from cyclenet.config.load import run_folder_name
    from cyclenet.config.naming import arm_label
    from cyclenet.deploy.load import load
    from cyclenet.lab.cost.count import count_cost, total
    from cyclenet.lab.explain.features import Explained
    from cyclenet.lab.report.runs import find_runs
    from cyclenet.lab.report.write import write_report
    from cyclenet.runs.train import train

    monkeypatch.chdir(toy)
    scenes = ["dataset.scenes_train=2", "dataset.scenes_val=2", "dataset.scenes_size=[64,96]"]
    cfg = compose_config("train", [*TINY, *scenes, "arm=toy"])
    assert arm_label(cfg.model) == "Toy"
    name = run_folder_name(OmegaConf.structured(cfg))
    assert "-toy_k1-none-seed0-" in name
    folder = toy / "runs" / name
    train(cfg, folder, [])
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"

    costs = count_cost(cfg.model, 64, 96, 19)
    parts = ["context, first", "context, second", "context, fuse"]
    assert list(costs)[1:-1] == parts
    # The shared filter is counted once, and executed twice.
    assert costs["context, second"].once == 0 < costs["context, second"].executed
    task = load(folder, device="cpu")
    numel = sum(p.numel() for name, p in task.net.named_parameters() if "aux" not in name)
    assert total(costs).parameters == numel

    seen = Explained(task, np.zeros((64, 96, 3), np.uint8))
    assert seen.parts == ["first", "second"] and seen.similarity(5, 5).shape[:2] == (2, 3)
    assert seen.grad_cam(5, 5).shape[0] == 2
    write_report(find_runs([toy / "runs"]), toy / "report", "Toy", images=1)
    text = (toy / "report/report.md").read_text()
    assert "| Toy, whole |" in text and (toy / "report/panel.png").is_file()


def test_an_unknown_name_is_refused_by_every_table():
    for key in ("model.context", "model.decoder", "dataset.name"):
        with pytest.raises(ValueError, match=f"{key} must be one of .*; got 'nope'"):
            compose_config("train", [f"{key}=nope"])


@pytest.mark.parametrize("table", ["CONTEXTS", "DECODERS", "DATASETS"])
def test_every_row_names_a_class_and_its_arguments(table):
    import inspect

    for name, row in getattr(choices, table).items():
        if name == "none" and table == "DECODERS":
            continue
        arguments = inspect.signature(row.load()).parameters
        assert {*row.keys, *row.fixed} <= arguments.keys(), name
        own = {"in_channels", "split"}
        needed = {k for k, p in arguments.items() if p.default is p.empty}
        assert needed <= {*row.keys, *row.fixed, *row.wants} | own, name
