"""A training that begins from a trained network."""

import re
from dataclasses import replace

import pytest
import torch

from conftest import TINY, run, tiny_model
from cyclenet.config.schema import TrainConfig
from cyclenet.models.cyclenet import build_model
from cyclenet.training.initial import begin_from, class_axes
from made import CLASSES, save_checkpoint, task_of

OTHER = ["bench", "tree", "road", "lamp", "sky"]


def task_with(classes, **model):
    torch.manual_seed(9)
    task = task_of(**model)
    cfg = replace(task.cfg)
    return type(task)(cfg, classes, [[number, 0, 0] for number, _ in enumerate(classes)])


def saved(tmp_path, **model):
    task = task_with(CLASSES, **model)
    with torch.no_grad():
        for value in task.net.state_dict().values():
            value.add_(1)
    return task.net.state_dict(), str(save_checkpoint(task, tmp_path / "last.ckpt"))


def test_equal_networks_become_equal(tmp_path):
    there, path = saved(tmp_path)
    task = task_with(CLASSES)
    said = begin_from(task, path)
    assert f"{len(there)} of {len(there)} tensors fit." in said
    assert all(torch.equal(task.net.state_dict()[name], there[name]) for name in there)


@pytest.mark.parametrize("decoder", ["adc", "alignseg", "bisenet"])
def test_classes_keep_their_rows_by_name(decoder, tmp_path):
    model = {"decoder": decoder, "context": "identity" if decoder == "bisenet" else "cycleaspp"}
    model |= {"output_stride": 32} if decoder != "adc" else {}
    there, path = saved(tmp_path, **model)
    task = task_with(OTHER, **model)
    before = {name: value.clone() for name, value in task.net.state_dict().items()}
    said = begin_from(task, path)
    assert "2 of 5 classes were known" in said
    axes = class_axes(task.cfg.model, task.cfg.dataset.crop_size)
    assert any(name.startswith("classifier") for name in axes)
    for name, value in task.net.state_dict().items():
        if name not in axes:
            assert torch.equal(value, there[name]), name
            continue
        for number, label in enumerate(OTHER):
            kept = label in CLASSES
            old = there[name][CLASSES.index(label)] if kept else before[name][number]
            assert torch.equal(value[number], old), (name, label)


def test_as_many_classes_of_other_names_are_not_taken_for_the_same(tmp_path):
    there, path = saved(tmp_path)
    task = task_with(["tree", "building", "car", "road"])
    begin_from(task, path)
    name = "classifier.1.weight" if "classifier.1.weight" in there else "classifier.0.weight"
    assert torch.equal(task.net.state_dict()[name], there[name].flip(0))


def test_what_does_not_fit_is_told_and_another_backbone_refused(tmp_path):
    _, path = saved(tmp_path)
    said = begin_from(task_with(CLASSES, growth_channels=12), path)
    assert "begin anew (context." in said
    with pytest.raises(ValueError, match=r"give model.backbone=resnet10t"):
        begin_from(task_with(CLASSES, backbone="resnet18"), path)


def test_a_backbone_with_parts_that_this_one_lacks_is_refused(tmp_path):
    _, path = saved(tmp_path, backbone="resnet50", strip_pooling=True)
    with pytest.raises(ValueError, match="does not fit resnet50"):
        begin_from(task_with(CLASSES, backbone="resnet50"), path)
    cfg = TrainConfig(model=tiny_model(backbone="resnet50", strip_pooling=True, freeze_norm=True))
    with pytest.raises(ValueError, match="freeze_norm would leave untrained"):
        cfg.require_trainable()


def test_the_norms_of_a_backbone_may_stay(tmp_path):
    net = build_model(tiny_model(freeze_norm=True), 4).train()
    net(torch.randint(0, 256, (2, 3, 64, 64)))[0].sum().backward()
    for name, module in net.backbone.named_modules():
        if hasattr(module, "running_mean"):
            assert module.num_batches_tracked == 0 and module.weight.grad is None, name
    assert net.backbone.body.conv1[0].weight.grad is not None
    assert net.classifier[-1].weight.grad is not None


def test_a_training_begins_where_another_ended(tmp_path):
    first = ["dataset.scenes_train=4", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]"]
    run("train", *TINY, *first, "hydra.run.dir=first", cwd=tmp_path)
    words = [*TINY, *first, "hydra.run.dir=second", "optim.lr=1e-9", "init_from=first"]
    said = run("train", *words, cwd=tmp_path)
    assert "Began from first/checkpoints/last.ckpt" in said
    a, b = (
        torch.load(tmp_path / f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    )
    learnt = [name for name in a if name.endswith("weight")]
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in learnt)
    assert "finished before" in run("train", *words, cwd=tmp_path).lower()
    said = run("train", *words[:-3], "init_from=nothing", "seed=3", cwd=tmp_path, ok=False)
    assert "There is no checkpoint nothing" in said


def test_dupsampling_is_fitted_to_the_training_masks_first(tmp_path):
    words = [*TINY, "model.decoder=dupsampling", "model.context=none", "optim.lr=1e-9"]
    words += ["dataset.scenes_train=4", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]"]
    said = run("train", *words, "hydra.run.dir=run", cwd=tmp_path)
    share = re.search(r"64 squares of \d+ x \d+ labels, and reconstructs (\d+\.\d) %", said)
    assert share and float(share[1]) > 70, said
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    code = state["net.classifier.conv.weight"][:, :, 0, 0]
    torch.testing.assert_close(code.T @ code, torch.eye(16), atol=1e-3, rtol=0)
