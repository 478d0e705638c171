"""The benchmark compares like with like: its straightforward build is the same function as the
model.
"""

import json
import sys
from dataclasses import asdict

import pytest
import torch

from conftest import ROOT, tiny_model
from cyclenet.config.schema import LossConfig
from cyclenet.lab.report.runs import find_runs
from cyclenet.lab.report.write import write_report
from cyclenet.models.cyclenet import build_model
from cyclenet.models.resize import Grid
from cyclenet.training.losses import SegmentationLoss
from made import make_run, run_config

sys.path.insert(0, str(ROOT / "bench"))
import latency
import run
import straightforward


@pytest.mark.parametrize("feedback", [0, 1, 2])
def test_the_straightforward_build_is_the_model_in_value_and_gradient(feedback):
    mask = torch.randint(0, 5, (2, 64, 96), dtype=torch.uint8)
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    criterion, results = SegmentationLoss(LossConfig(), 5, Grid(8, False)), []
    for plain in (False, True):
        torch.manual_seed(0)
        net = build_model(tiny_model(feedback=feedback, dropout=0.0), 5).double().train()
        generator = torch.Generator().manual_seed(1)
        for parameter in net.decoder.offset_conv[
            -1
        ].parameters():  # They start at zero, where nothing is displaced.
            parameter.data.normal_(0, 0.05, generator=generator)
        # Its predicted offsets are float32, as bfloat16's are; in float64 the comparison is sharp.
        monkey = pytest.MonkeyPatch()
        monkey.setattr(torch.Tensor, "float", lambda tensor: tensor)
        logits, extras = (straightforward.Straightforward(net) if plain else net)(image)
        loss = straightforward.loss if plain else criterion
        losses = [loss(each, mask) for each in (logits, extras["aux"])]
        monkey.undo()
        (losses[0] + 0.4 * losses[1]).backward()
        results.append([logits, *losses, *(p.grad for p in net.parameters()), *net.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_moved_bytes_are_those_that_operations_read_and_write():
    x = torch.ones(10)  # 40 bytes.
    assert run.moved(lambda: x[:4] + 1)["bytes"] == 2 * 16
    assert run.moved(lambda: x.add_(x))["bytes"] == 3 * 40
    assert run.moved(lambda: x.view(2, 5).T)["bytes"] == 0


def test_a_row_runs_both_sides_in_turns_and_says_how_far_they_agree(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    result = run.compare(
        "metric", run.Row("torchmetrics", run.rows()["metric"].side, 3, 5, rounds=2)
    )
    assert result["agreement"] == "equal" and result["ours"] > 0 and result["ratio"] > 0
    assert result["memory_mib"]["peer"] > result["memory_mib"]["ours"] > 0
    keys = {"name", "ours", "peer", "unit", "ratio", "target", "peer_name", "spread"}
    assert keys <= result.keys() and "torchmetrics" in run.table([result])
    monkeypatch.setattr(sys, "argv", ["run.py", "--rows", "adc,nope"])
    with pytest.raises(SystemExit, match="there is no row nope; there are adc_fp32"):
        run.main()


def test_growth_measures_what_a_work_adds():
    from growth import measured

    result, seconds, peak = measured(lambda: torch.ones(2**24).sum().item())
    assert result == 2**24 and seconds > 0 and 60 < peak < 100  # MiB


def test_latency_of_every_arm_and_protocol_is_in_the_report(tmp_path, monkeypatch):
    """A turn more than are counted; the report takes what was measured, by the arm's name."""
    values = {**asdict(tiny_model()), "decoder": "none"}
    make_run(tmp_path / "runs", run_config(0, **values), 0.6, ("whole", "paper_ms"))
    make_run(tmp_path / "runs", run_config(0, **{**values, "context": "none"}), 0.8, number=1)
    monkeypatch.setattr(
        sys, "argv", ["latency.py", str(tmp_path / "runs"), "--size", "64x96", "--rounds", "2"]
    )
    latency.main()
    found = json.loads((tmp_path / "runs/latency.json").read_text())
    names = ["CycleASPP(1,2,3), whole", "CycleASPP(1,2,3), paper_ms", "Baseline, whole"]
    assert list(found["arms"]) == names and found["image"] == "64x96" and found["rounds"] == 2
    assert found["arms"][names[1]]["s"] > found["arms"][names[0]]["s"] > 0
    write_report(find_runs([tmp_path / "runs"]), tmp_path / "out", "title", images=0)
    text = (tmp_path / "out/report.md").read_text()
    assert (
        f"| {1000 * found['arms'][names[2]]['s']:.0f} |" in text
        and "is that of one of 64x96, in float32" in text
    )
