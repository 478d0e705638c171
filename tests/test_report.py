"""The report: right numbers, nothing hidden, no network."""

import csv
import re
import shutil

import pytest

from conftest import TINY, run
from cyclenet.comparison import find_runs
from cyclenet.report import write_report
from test_comparison import config, make_run


@pytest.fixture
def runs(tmp_path):
    """Table 2's four rows over two seeds, and a run that failed."""
    arms = [({"context": "none", "decoder": "none"}, 0.6), ({"decoder": "none"}, 0.7), ({}, 0.8)]
    number = 0
    for model, accuracy in arms:
        for seed in range(2):
            protocols = ("whole", "paper_ms") if not model else ("whole",)
            make_run(tmp_path / "runs", config(seed, **model), accuracy, protocols, number)
            number += 1
    make_run(tmp_path / "runs", config(2), number=number, status="failed")
    return tmp_path / "runs"


def table(text: str, heading: str) -> list[list[str]]:
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]


def test_report_holds_the_numbers_beside_the_papers(runs, tmp_path):
    found = find_runs([runs])
    page = write_report(found, tmp_path / "out", "Table 2 <again>", images=0)
    text = (tmp_path / "out/report.md").read_text()
    rows = table(text, "Results")
    whole = "CycleASPP(3,6,12,18,24,30)"
    assert [row[0] for row in rows] == [
        "Baseline, whole",
        f"{whole}, whole",
        f"{whole} + ADC, whole",
        f"{whole} + ADC, paper_ms",
    ]
    assert [row[3] for row in rows] == ["76.25", "78.95", "80.55", "81.26"] and {row[1] for row in rows} == {"2"}
    scores = [100 * r.evaluations["whole"].scores["mIoU"] for r in found[:2]]
    mean, spread = sum(scores) / 2, abs(scores[0] - scores[1]) / 2**0.5
    assert rows[0][2] == f"{mean:.2f} ± {spread:.2f}"
    assert rows[0][4] == rows[0][5] == rows[1][5] == "–"
    value, low, high = map(float, re.findall(r"[+-][\d.]+", rows[1][4]))
    assert low < value < high and value == pytest.approx(float(rows[1][2].split()[0]) - mean, abs=0.011)
    cost = table(text, "Cost")
    assert [row[4] for row in cost] == ["–", "574.0", "–"] and float(cost[1][2]) < float(cost[1][3])
    assert "One seed" not in text and "**1 not finished**" in text
    state = table(text, "Runs")
    assert len(state) == 7 and state[-1][2] == "**failed**" and "bad.png is not a readable image" in state[-1][4]

    html = page.read_text()
    assert "<title>Table 2 &lt;again&gt;</title>" in html
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', html)
    assert len(sources) == 5 and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://", re.sub(r'src="data:[^"]*"', "", html)) and "<script" not in html
    assert all(row[2] in html for row in rows)

    with (tmp_path / "out/report.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 9 and lines[-1]["status"] == "failed" and lines[-1]["mIoU"] == ""
    assert float(lines[0]["mIoU"]) == found[0].evaluations["whole"].scores["mIoU"] and float(lines[0]["IoU/pole"]) > 0


def test_the_same_runs_give_the_same_report(runs, tmp_path):
    pages = [write_report(find_runs([runs]), tmp_path / name, "report", images=0).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_baseline_can_be_chosen(runs, tmp_path):
    write_report(find_runs([runs]), tmp_path / "out", "x", baseline="+ ADC", images=0)
    rows = table((tmp_path / "out/report.md").read_text(), "Results")
    assert rows[0][0].endswith("+ ADC, whole") and rows[2][0] == "Baseline, whole" and rows[2][4].startswith("-")
    with pytest.raises(ValueError, match="No arm's name holds 'DenseASPP'; there are: Baseline; "):
        write_report(find_runs([runs]), tmp_path / "out", "x", baseline="DenseASPP")


def test_one_seed_other_images_and_missing_checkpoints_are_said(runs, tmp_path):
    for number in (1, 3, 5):
        shutil.rmtree(runs / f"run{number}")
    write_report(find_runs([runs]), tmp_path / "out", "x")
    text = (tmp_path / "out/report.md").read_text()
    assert "**One seed:** the intervals are over images only" in text
    assert "Left out: There is no checkpoint" in text and not (tmp_path / "out/panel.png").exists()


def test_nothing_finished_is_a_sentence(tmp_path):
    make_run(tmp_path / "runs", config(), number=0, status="failed")
    output = run("report", "runs", cwd=tmp_path, ok=False)
    reason = "(run0: failed, bad.png is not a readable image)"
    assert output == f"error: None of the 1 runs has finished with an evaluation that can be read {reason}.\n"


def test_a_sweep_ends_in_its_report_and_is_at_once_when_repeated(tmp_path):
    """A wrong job and the arms of Table 2; the panel is drawn from the checkpoints."""
    data = ["dataset=scenes", "dataset.scenes_train=2", "dataset.scenes_val=2", "dataset.scenes_size=[64,96]"]
    words = ["experiment=ablation_cycle", "model=cyclenet_lite", *data, *TINY[:2], *TINY[3:], "arm=baseline,cycleaspp_adc_ms"]
    words += ["hydra/launcher=basic", "trainer.accumulate_grad_batches=1,0"]
    output = run("train", *words, cwd=tmp_path, ok=False)
    message = "trainer.accumulate_grad_batches must be positive; got 0."
    assert output.count(message) == 2 and "Traceback" not in output
    folder = tmp_path / "runs/ablation/report-ablation_cycle-scenes"
    assert f"Report: {folder.relative_to(tmp_path)}/report.html" in output
    text = (folder / "report.md").read_text()
    rows = table(text, "Results")
    assert [row[3] for row in rows] == ["76.25", "80.55", "81.26"]
    assert [row[2] for row in table(text, "Runs")] == ["finished", "**failed**"] * 2
    assert table(text, "Runs")[1][4] == message
    assert (folder / "panel.png").stat().st_size > 10_000 and "![image, truth" in text
    stamp = (folder / "report.html").stat().st_mtime_ns
    words = [*words[:-1], "-m", "trainer.accumulate_grad_batches=1"]
    output = run("train", *words, cwd=tmp_path)
    assert output.count("Finished before") == 2 and (folder / "report.html").stat().st_mtime_ns != stamp
    stamp = (folder / "report.html").stat().st_mtime_ns
    run("train", *words, cwd=tmp_path)
    assert (folder / "report.html").stat().st_mtime_ns == stamp
    # A finished run whose further evaluation fails has still finished; the sweep has not.
    for path in folder.parent.glob("*/checkpoints/last.ckpt"):
        path.unlink()
    output = run("train", *words, "extra_protocols=[sliding]", cwd=tmp_path, ok=False)
    assert output.count("There is no checkpoint") == 2
