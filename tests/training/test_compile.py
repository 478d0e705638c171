"""Training through torch.compile. It compiles for a minute, so it has a marker of its own (`make
test-slow`).
"""

import subprocess
import sys

import pytest
import torch

from conftest import ROOT, TINY, run, tiny_model
from cyclenet.models.cyclenet import build_model

pytestmark = pytest.mark.slow


def test_the_compiled_model_is_the_model():
    results = []
    image = torch.randint(
        0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    for compiled in (False, True):
        torch.manual_seed(0)
        net = build_model(tiny_model(dropout=0.0), 5).train()
        if compiled:
            net.compile()
        logits, extras = net(image)
        (logits.square().mean() + extras["aux"].square().mean()).backward()
        results.append((logits, extras["aux"], net))
    (a, b, plain), (c, d, compiled) = results
    torch.testing.assert_close((a, b), (c, d), rtol=1e-3, atol=1e-4)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for one, two in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-2, atol=1e-4)


def test_a_run_trains_and_is_evaluated(tmp_path):
    words = [
        *TINY,
        "model.compile=true",
        "dataset.scenes_train=8",
        "dataset.scenes_val=3",
        "dataset.scenes_size=[64,128]",
    ]
    # A process of its own: the compiler's do not start in a fork of one that has threads.
    command = [sys.executable, ROOT / "src" / "train.py", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "val mIoU" in done.stdout, done.stdout + done.stderr
    checkpoint = next(tmp_path.glob("runs/*/*/checkpoints/last.ckpt"))
    assert "Protocol: whole" in run("evaluate", f"ckpt_path={checkpoint}", cwd=tmp_path)
