"""The report: right numbers, nothing hidden, no network."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest

from conftest import TINY, run, write
from cyclenet.lab.cost.count import training_memory
from cyclenet.lab.report.live import watch
from cyclenet.lab.report.published import find_published
from cyclenet.lab.report.runs import find_runs
from cyclenet.lab.report.write import write_report
from made import RUN_CLASSES, make_run, run_config


@pytest.fixture
def runs(tmp_path):
    """Table 2's four rows over two seeds, and a run that failed."""
    arms = [({"context": "none", "decoder": "none"}, 0.6), ({"decoder": "none"}, 0.7), ({}, 0.8)]
    number = 0
    for model, accuracy in arms:
        for seed in range(2):
            protocols = ("whole", "paper_ms") if not model else ("whole",)
            make_run(tmp_path / "runs", run_config(seed, **model), accuracy, protocols, number)
            number += 1
    make_run(tmp_path / "runs", run_config(2), number=number, status="failed")
    return tmp_path / "runs"


def table(text: str, heading: str) -> list[list[str]]:
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ][2:]


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
    assert [row[3] for row in rows] == ["76.25", "78.95", "80.55", "81.26"] and {
        row[1] for row in rows
    } == {"2"}
    scores = [100 * r.evaluations["whole"].scores.mIoU for r in found[:2]]
    mean, spread = sum(scores) / 2, abs(scores[0] - scores[1]) / 2**0.5
    assert rows[0][2] == f"{mean:.2f} ± {spread:.2f}"
    assert rows[0][4] == rows[0][5] == rows[1][5] == "–"
    # Three arms of two seeds; the second evaluation of ADC's runs does not count again.
    pairs = [
        [100 * r.evaluations["whole"].scores.mIoU for r in found[at : at + 2]] for at in (0, 2, 4)
    ]
    pooled = (sum((a - b) ** 2 / 2 for a, b in pairs) / 3) ** 0.5
    assert (
        f"moves mIoU by {pooled:.2f} points (standard deviation, pooled over 3 arms, "
        "3 degrees of freedom)" in text
    )
    value, low, high = map(float, re.findall(r"[+-][\d.]+", rows[1][4]))
    assert low < value < high and value == pytest.approx(
        float(rows[1][2].split()[0]) - mean, abs=0.011
    )
    cost = table(text, "Cost")
    head = text.split("## Cost\n")[1].strip().splitlines()[0]
    assert (
        head.count("|") == len(cost[1]) + 1
        and "| mIoU to Baseline [95 %] |" in head
        and cost[1][-1] == rows[1][4]
    )
    assert [row[4] for row in cost] == ["–", "574.0", "–"]
    assert float(cost[1][2]) < float(cost[1][3])
    assert (
        "All 6 runs together took 0.5 CPU hours." in text
        and "an image, ms" in text
        and "latency.py" not in text
    )
    assert "**One seed:**" not in text and "**6 of 7 runs have finished**" in text
    state = table(text, "Runs")
    assert (
        len(state) == 7
        and state[-1][2] == "**failed**"
        and "bad.png is not a readable image" in state[-1][4]
    )

    html = page.read_text()
    assert "<title>Table 2 &lt;again&gt;</title>" in html
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', html)
    assert len(sources) == 6 and all(source.startswith("data:image/") for source in sources)
    assert (
        not re.search(r"https?://", re.sub(r'src="data:[^"]*"', "", html)) and "<script" not in html
    )
    assert all(row[2] in html for row in rows)

    with (tmp_path / "out/report.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 9 and lines[-1]["status"] == "failed" and lines[-1]["mIoU"] == ""
    assert (
        float(lines[0]["mIoU"]) == found[0].evaluations["whole"].scores.mIoU
        and float(lines[0]["IoU/pole"]) > 0
    )


def test_compared_systems_stand_beside_what_was_published(runs, tmp_path):
    write_report(find_runs([runs]), tmp_path / "plain", "Ours", images=0)
    assert "Beside published numbers" not in (tmp_path / "plain/report.md").read_text()
    make_run(tmp_path / "runs", run_config(0, context="ccnet", decoder="none"), number=8)
    make_run(tmp_path / "runs", run_config(0, context="ocrnet", decoder="none"), number=9)
    write_report(find_runs([runs]), tmp_path / "out", "Table 3", images=0)
    text = (tmp_path / "out/report.md").read_text()
    rows = {row[0]: row[1:] for row in table(text, "Beside published numbers")}
    assert rows["CCNet"][:4] == ["81.40", "45.22", "79.45 / 80.66", "43.71 / 45.04"]
    assert rows["Baseline"][:4] == ["–"] * 4
    assert rows["CycleASPP(3,6,12,18,24,30) + ADC"][:2] == ["82.00", "–"]
    # A step keeps the logits too: here of two classes, not of Cityscapes' 19.
    cfg = run_config(0, context="ccnet", decoder="none")
    kept = sum(training_memory(cfg.model, *cfg.dataset.crop_size, len(RUN_CLASSES)).values())
    assert rows["CCNet"][7] == f"{kept / 1e6:.0f}"
    # OCRNet keeps the attention's maps, and its first guess in evaluation.
    assert all(float(value) > 0 for row in rows.values() for value in row[5:8])
    for changed in ({"feedback": 2}, {"mask_scale": 2.0}, {"share_projections": True}):
        assert find_published(run_config(0, **changed).model) is None
    assert find_published(run_config(0).model).name == "CycleNet"
    assert "CCNet: trained on train + val" in text and "DSSPN has 77.8" in text


def test_the_same_runs_give_the_same_report(runs, tmp_path):
    pages = [
        write_report(find_runs([runs]), tmp_path / name, "report", images=0).read_bytes()
        for name in ("a", "b")
    ]
    assert pages[0] == pages[1]


def test_baseline_can_be_chosen(runs, tmp_path):
    write_report(find_runs([runs]), tmp_path / "out", "x", baseline="+ ADC", images=0)
    rows = table((tmp_path / "out/report.md").read_text(), "Results")
    assert (
        rows[0][0].endswith("+ ADC, whole")
        and rows[2][0] == "Baseline, whole"
        and rows[2][4].startswith("-")
    )
    with pytest.raises(ValueError, match="No arm's name holds 'DenseASPP'; there are: Baseline; "):
        write_report(find_runs([runs]), tmp_path / "out", "x", baseline="DenseASPP")


def test_protocols_can_be_chosen(runs, tmp_path):
    run("report", "runs=runs", "output=out", "images=0", "protocols=paper_ms", cwd=tmp_path)
    text = (tmp_path / "out/report.md").read_text()
    assert [row[0] for row in table(text, "Results")] == [
        "CycleASPP(3,6,12,18,24,30) + ADC, paper_ms"
    ]
    states = table(text, "Runs")
    assert [row[2] for row in states].count("finished") == 2 and [row[2] for row in states].count(
        "**not compared**"
    ) == 4
    assert states[0][4] == "was not evaluated by paper_ms"
    output = run("report", "runs=runs", "protocols=paper", cwd=tmp_path, ok=False)
    assert output == "error: No run was evaluated by 'paper'; there are: whole, paper_ms.\n"


def test_one_seed_other_images_and_missing_checkpoints_are_said(runs, tmp_path):
    for number in (1, 3, 5):
        shutil.rmtree(runs / f"run{number}")
    write_report(find_runs([runs]), tmp_path / "out", "x")
    text = (tmp_path / "out/report.md").read_text()
    assert "**One seed:** an interval between arms with one seed is over images only" in text
    assert (
        "The panel was left out: There is no checkpoint" in text
        and not (tmp_path / "out/panel.png").exists()
    )


def test_a_report_replaces_an_earlier_one_but_no_file_of_the_users(runs, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/report.md").write_text("my thesis")
    with pytest.raises(ValueError, match=r"report\.md was not written by a report: give another"):
        write_report(find_runs([runs]), tmp_path / "notes", "x", images=0)
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["report.md"]
    assert (tmp_path / "notes/report.md").read_text() == "my thesis"
    for title in ("first", "second"):
        page = write_report(find_runs([runs]), tmp_path / "out", title, images=0)
    assert "<title>second</title>" in page.read_text()
    page.unlink()  # Of a published report only the text is kept.
    assert write_report(find_runs([runs]), tmp_path / "out", "third", images=0) == page


def test_nothing_finished_is_a_sentence(tmp_path):
    make_run(tmp_path / "runs", run_config(), number=0, status="failed")
    output = run("report", "runs=runs", cwd=tmp_path, ok=False)
    reason = "(run0: failed, bad.png is not a readable image)"
    assert (
        output
        == f"error: None of the 1 runs has finished with an evaluation that can be read {reason}.\n"
    )


def test_a_sweep_ends_in_its_report_and_in_a_new_one_when_repeated(tmp_path):
    """A wrong job and the arms of Table 2; the panel is drawn from the checkpoints."""
    data = [
        "dataset=scenes",
        "dataset.scenes_train=2",
        "dataset.scenes_val=2",
        "dataset.scenes_size=[64,96]",
    ]
    words = [
        "experiment=ablation_cycle",
        "model=cyclenet_lite",
        *data,
        *TINY[:2],
        *TINY[3:],
        "arm=baseline,cycleaspp_adc_ms",
    ]
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
    assert (
        output.count("Finished before") == 2
        and (folder / "report.html").stat().st_mtime_ns != stamp
    )
    # A finished run whose further evaluation fails has still finished; the sweep has not.
    for path in folder.parent.glob("*/checkpoints/last.ckpt"):
        path.unlink()
    output = run("train", *words, "extra_protocols=[sliding]", cwd=tmp_path, ok=False)
    assert output.count("There is no checkpoint") == 2


def test_watching_follows_a_training_to_its_end(runs, tmp_path):
    """A page that loads itself again while a run is in progress, with nothing finished at first,
    and at last the report.
    """
    lone = tmp_path / "lone"
    make_run(lone, run_config(5), 0.7, number=9)
    (folder,) = lone.iterdir()
    results = {path: path.read_bytes() for path in lone.rglob("result.json")}
    for path in results:
        path.unlink()
    progress = {
        "stage": "training",
        "epoch": 2,
        "epochs": 8,
        "step": 30,
        "steps": 160,
        "mIoU": 0.25,
        "seconds_left": 600,
    }
    (folder / "progress.json").write_text(json.dumps(progress))
    (folder / "metrics.csv").write_text("step,train/loss,val/mIoU\n9,2.5,\n19,1.25,0.25\n")
    write(folder / "validation.png", np.zeros((4, 4, 3), np.uint8))
    pages = []

    def find():
        if len(pages) == 2:
            for path, data in results.items():
                path.write_bytes(data)
        return find_runs([lone])

    def write_page(found, refresh):
        page = write_report(found, tmp_path / "live", "live", images=0, refresh=refresh)
        pages.append(page.read_text())
        return page

    watch(find, write_page, 0.01)
    first, last = pages[0], pages[-1]
    assert (
        len(pages) == 3
        and 'http-equiv="refresh" content="0.01"' in first
        and "refresh" not in last.split("</head>")[0]
    )
    row = table((tmp_path / "live/report.md").read_text(), "Runs")[0]
    assert row[2] == "finished" and "In progress" not in last
    cells = re.findall(r"<td[^>]*>(.*?)</td>", first)[:7]
    assert cells[1:] == ["training", "2 of 8", "30 of 160", "1.250", "25.00", "10"]
    assert (
        first.count("<img ") == 3 and 'src="progress' not in first
    )  # Two curves and the picture, inside the page.
    # A sweep's next job has a log and no more, and what the first one lacks the next may have.
    (lone / "next").mkdir()
    (lone / "next/train.log").touch()
    assert [run.status for run in find_runs([lone])] == ["finished", "unfinished"]
    calls = []

    def nothing_yet(found, refresh):
        calls.append(refresh)
        if refresh:
            os.utime(lone / "next", (0, 0))
        raise ValueError("No run was evaluated by 'paper_ms'")

    with pytest.raises(ValueError, match="No run was evaluated"):
        watch(lambda: find_runs([lone]), nothing_yet, 0.01)
    assert calls == [0.01, 0]
    shutil.rmtree(lone / "next")
    os.utime(folder / "progress.json", (0, 0))
    for path in results:
        path.unlink()
    write_page(find_runs([lone]), 1.0)
    assert re.search(r"training, silent for \d+ min", pages[-1])
