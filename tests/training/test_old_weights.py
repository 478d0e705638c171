"""Weights of version 0.1 load under their present names and give the same outputs."""

import re

import pytest
import torch

from conftest import TINY, run
from cyclenet.config.load import compose_config
from cyclenet.deploy.load import rebuild
from cyclenet.models.stored import is_old_layout, rename_old_weights
from cyclenet.training.checkpoint import check_resumable
from made import scenes_task

# How the present names were called in version 0.1: the inverse of `OLD_NAMES`.
OLD = (
    (r"context\.reduce_conv\.", r"context.reduce."),
    (r"context\.fuse_conv\.", r"context.fuse."),
    (r"context\.layers\.(\d+)\.project\.(\d+)\.", r"context.project.\2.\1."),
    (r"context\.layers\.(\d+)\.atrous\.", r"context.atrous.\1."),
    (r"context\.layers\.(\d+)\.(project|atrous)_norm\.(\d+)\.", r"context.\2_norm.\3.\1."),
    (r"context\.conv\.", r"context."),
)


def as_version_01(weights):
    renamed = {}
    for name, value in weights.items():
        for new, old in OLD:
            name = re.sub(new, old, name)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize(
    "changes",
    [
        {"feedback": 2},
        {"feedback": 1, "share_norm": True, "decoder": "skip"},
        {"context": "denseaspp", "decoder": "none"},
        {"context": "aspp"},
        {"context": "none", "decoder": "none"},
    ],
)
def test_old_names_map_to_the_new_and_outputs_are_equal(changes):
    task = scenes_task(**changes)
    new = task.state_dict()
    old = as_version_01(new)
    if changes.get("context") != "aspp":  # Its names have not changed.
        assert is_old_layout({"state_dict": old}) and old.keys() != new.keys()
    assert not is_old_layout({"state_dict": new})
    # A module of one's own may have such names: what a checkpoint says of itself counts.
    assert not is_old_layout({"state_dict": old, "run": {"layout": 2}})
    assert rename_old_weights(old).keys() == new.keys()
    hyper = {key: task.hparams[key] for key in ("cfg", "classes", "palette")}
    net = rebuild({"hyper_parameters": hyper, "state_dict": old})
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(net(image)[0], task.eval().net(image)[0])


def test_known_old_names():
    """Names as version 0.1 wrote them."""
    old = [
        "net.context.reduce.0.weight",
        "net.context.project.1.2.weight",
        "net.context.project_norm.0.2.bias",
        "net.context.atrous.2.weight",
        "net.context.atrous_norm.1.0.running_mean",
        "net.context.fuse.1.weight",
        "net.decoder.offset_conv.1.bias",
    ]
    assert list(rename_old_weights(dict.fromkeys(old))) == [
        "net.context.reduce_conv.0.weight",
        "net.context.layers.2.project.1.weight",
        "net.context.layers.2.project_norm.0.bias",
        "net.context.layers.2.atrous.weight",
        "net.context.layers.0.atrous_norm.1.running_mean",
        "net.context.fuse_conv.1.weight",
        "net.decoder.offset_conv.1.bias",
    ]


def test_a_training_of_version_01_cannot_be_continued_in_silence(tmp_path):
    """The order of its parameters was another, so its optimizer's state would be mixed up."""
    cfg = compose_config("train", TINY)
    old = {"state_dict": as_version_01(scenes_task().state_dict())}
    with pytest.raises(ValueError, match=r"is from version 0\.1.*resume=never"):
        check_resumable(old, tmp_path / "last.ckpt", cfg)


def test_a_removed_key_of_a_stored_configuration_is_passed_over(tmp_path):
    from dataclasses import asdict

    from cyclenet.config.restore import restore

    stored = asdict(compose_config("train", TINY))
    stored["trainer"]["strategy"] = "ddp"
    assert restore(stored) == compose_config("train", TINY)
    message = "There is no key trainer.strategy"
    assert message in run("train", "trainer.strategy=ddp", cwd=tmp_path, ok=False)
