"""What must hold on a GPU (``make gpu-check``). Without one, SMALL=1 runs the same on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision.ops

from conftest import ROOT, TINY, tiny_model
from cyclenet.config.schema import LossConfig, ProtocolConfig
from cyclenet.lab.sweeps.launcher import visible_gpus
from cyclenet.models.cyclenet import build_model
from cyclenet.models.deform import deform_conv2d, gather_conv
from cyclenet.models.resize import Grid
from cyclenet.models.stored import load_checkpoint
from cyclenet.scoring.inference import predict
from cyclenet.training.losses import SegmentationLoss
from cyclenet.training.sync_batchnorm import SyncBatchNorm

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA and os.environ.get("SMALL") != "1", reason="there is no GPU"),
]
ON_GPU = pytest.mark.skipif(not CUDA, reason="it is about CUDA itself")


def example(size, groups, spread):
    generator = torch.Generator().manual_seed(0)
    height, width = size

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight = draw(2, 8, height, width), 0.2 * draw(6, 8, 3, 3)
    offset = spread * draw(2, 18 * groups, height, width)
    mask = draw(2, 9 * groups, height, width).sigmoid()
    return [x, offset, mask, weight]


def with_gradients(operator, values, dtype, device):
    x, offset, mask, weight = (v.to(device, dtype).requires_grad_() for v in values)
    out = operator(x, offset, mask, weight)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    gradients = torch.autograd.grad(out, (x, offset, mask, weight), direction)
    return [each.detach().double().cpu() for each in (out, *gradients)]


@pytest.mark.parametrize("low", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(12, 16), (7, 1), (33, 5)])
@pytest.mark.parametrize("spread", [0.5, 40.0])
@pytest.mark.parametrize("operator", ["ours", "gather"])
def test_adc_equals_float64_in_value_and_all_gradients(operator, spread, size, low):
    def ours(x, offset, mask, weight):
        call = deform_conv2d if operator == "ours" else gather_conv
        if low is None or operator == "gather":
            return call(x, offset, mask, weight, 2)
        with torch.autocast(DEVICE, low):
            return call(x, offset, mask, weight, 2)

    def exact(x, offset, mask, weight):
        return torchvision.ops.deform_conv2d(x, offset, weight, padding=1, mask=mask)

    values = example(size, 2, spread)
    wanted = with_gradients(exact, values, torch.float64, "cpu")
    found = with_gradients(ours, values, torch.float32, DEVICE)
    tolerance = 1e-4 if low is None else 6e-2
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-6)


def test_the_loss_in_strips_equals_the_whole():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 19, 33, 47, generator=generator).to(DEVICE).requires_grad_()
    mask = torch.randint(0, 20, (2, 257, 371), generator=generator)
    mask[mask == 19] = 255
    mask, grid = mask.byte().to(DEVICE), Grid(8, False)
    value = SegmentationLoss(LossConfig(), 19, grid)(logits, mask)
    height, width = grid.padded(mask.shape[-2:])
    whole = F.interpolate(logits, (height, width), mode="bilinear")[..., :257, :371]
    wanted = F.cross_entropy(whole, mask.long(), ignore_index=255)
    torch.testing.assert_close(value, wanted)
    (a,), (b,) = (torch.autograd.grad(v, logits) for v in (value, wanted))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_labels_equal_the_cpus_but_for_ties():
    torch.manual_seed(0)
    net = build_model(tiny_model(), 7).eval()
    torch.nn.init.normal_(net.classifier[-1].weight, std=0.5)
    image = torch.randint(0, 256, (1, 3, 131, 197), dtype=torch.uint8)
    rule = ProtocolConfig(scales=[1.0, 1.5], window=96, stride=64, flip=True)
    on_cpu = predict(lambda view: net(view)[0], image, rule, net.grid)
    there = net.to(DEVICE)
    found = predict(lambda view: there(view)[0], image.to(DEVICE), rule, net.grid).cpu()
    assert (found == on_cpu).double().mean() > 0.999


def test_synchronised_batch_norm_keeps_the_activations_of_efficientnet():
    """One process on NCCL (on the CPU: gloo), with DDP: a step is that without."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    dist.init_process_group("nccl" if CUDA else "gloo", rank=0, world_size=1)
    try:
        image = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8).to(DEVICE)
        losses = []
        for parallel in (False, True):
            torch.manual_seed(0)
            cfg = tiny_model(backbone="tf_efficientnet_lite0", dropout=0.0, aux_head=False)
            net = build_model(cfg, 5).to(DEVICE).train()
            if parallel:
                net = SyncBatchNorm(cuda=CUDA).apply(net)
                net = torch.nn.parallel.DistributedDataParallel(net, broadcast_buffers=False)
            optimizer = torch.optim.SGD(net.parameters(), 0.01)
            for _ in range(3):
                loss = net(image)[0].square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    finally:
        dist.destroy_process_group()


SCENES = ["dataset.scenes_train=24", "dataset.scenes_val=2", "dataset.scenes_size=[64,96]"]


def train(folder, *words, wait=True):
    words = [word for word in TINY if not word.startswith("trainer=")] + [*SCENES, *words]
    command = [sys.executable, str(ROOT / "src/train.py"), "dataset=scenes", *words]
    command += ["trainer.devices=1", f"hydra.run.dir={folder / 'run'}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    )
    return process.communicate()[0] if wait else process


def test_half_precision_with_a_scaler_trains(tmp_path):
    precision = "16-mixed" if CUDA else "bf16-mixed"
    said = train(tmp_path, f"trainer.precision={precision}")
    assert '"finished"' in (tmp_path / "run/result.json").read_text(), said


def test_a_killed_training_continues_at_its_position(tmp_path):
    words = ("trainer.max_epochs=4", "trainer.checkpoint_every_steps=1")
    process = train(tmp_path, *words, wait=False)
    progress, deadline = tmp_path / "run/progress.json", time.monotonic() + 120
    while not progress.exists() or json.loads(progress.read_text())["step"] < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = train(tmp_path, *words)
    assert "Continuing from" in said and "step 0" not in said
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["status"] == "finished" and result["epochs"] == 4


def test_a_diverged_training_stops_and_saves_no_broken_weights(tmp_path):
    said = train(tmp_path, "optim.lr=1e30", "trainer.checkpoint_every_steps=1")
    assert "error: The " in said and "at step" in said and "Traceback" not in said
    kept = load_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["state_dict"]
    assert all(value.isfinite().all() for value in kept.values())


@ON_GPU
def test_jobs_get_the_gpus_that_are_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == [str(n) for n in range(torch.cuda.device_count())]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert visible_gpus() == ["0"]


@ON_GPU
def test_too_little_memory_is_told_with_the_keys_to_lower(tmp_path):
    words = ["dataset.batch_size=24", "dataset.crop_size=[8192,8192]", "model.head_channels=2048"]
    said = train(tmp_path, *words)
    assert "error: " in said and "dataset.batch_size" in said and "Traceback" not in said
