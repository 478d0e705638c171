"""What is published of runs, the claims it is judged by, and the arms that are to be compared."""

import json
import re

import numpy as np
import pytest
import yaml

from conftest import ROOT, run
from cyclenet.commands.cli import compose_config
from cyclenet.config.naming import arm_label
from cyclenet.files import write_json
from cyclenet.lab.cost.count import count_cost, total
from cyclenet.lab.explain.results import (
    Alikeness,
    FeedbackFound,
    OffsetsFound,
    Probe,
    SimilarityFound,
    SplitAnalysis,
)
from cyclenet.lab.intervals import Difference
from cyclenet.lab.report.arms import group_arms
from cyclenet.lab.report.claims import Claim, Comparison, read_plan
from cyclenet.lab.report.runs import find_runs
from cyclenet.lab.report.write import write_report
from made import make_run, run_config

PLAN = ROOT / "results/camvid/plan.yaml"


def arm(name: str):
    words = ["experiment=camvid_ablation", f"arm={name}"]
    return compose_config("train", words).model


def test_denseaspps_twins_cost_what_cycleaspp_does():
    cost = {
        name: total(count_cost(arm(name), 360, 480, 11))
        for name in ("cycleaspp", "denseaspp_flops", "denseaspp_params")
    }
    assert cost["denseaspp_flops"].executed == pytest.approx(cost["cycleaspp"].executed, rel=0.002)
    assert cost["denseaspp_params"].parameters == pytest.approx(
        cost["cycleaspp"].parameters, rel=0.002
    )
    assert cost["denseaspp_flops"].parameters > 1.01 * cost["cycleaspp"].parameters


def test_every_claim_names_two_arms_of_the_sweep():
    names = [
        "baseline",
        "aspp",
        "denseaspp",
        "cycleaspp",
        "cycleaspp_k2",
        "cycleaspp_skip",
        "cycleaspp_adc_ms",
    ]
    known = {f"{arm_label(arm(name))}, whole" for name in names} | {
        f"{arm_label(arm('cycleaspp_adc_ms'))}, paper_ms"
    }
    known |= {
        f"bottleneck_channels={arm(name).bottleneck_channels}"
        for name in ("denseaspp_flops", "denseaspp_params")
    }
    plan = read_plan(PLAN)
    assert {need.arm for claim in plan for need in claim.needs} | {
        need.than for claim in plan for need in claim.needs
    } == known


def test_published_runs_are_small_and_make_the_same_report(tmp_path):
    for number, (model, accuracy) in enumerate(
        [({"context": "none", "decoder": "none"}, 0.6), ({"decoder": "none"}, 0.8)]
    ):
        for seed in range(2):
            folder = make_run(
                tmp_path / "runs", run_config(seed, **model), accuracy, number=2 * number + seed
            )
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints/last.ckpt").write_bytes(b"large")
            (folder / "validation.png").write_bytes(b"a picture of the data")
            for path in folder.glob("evaluate/*/scores.json"):
                path.write_text(
                    json.dumps(
                        {**json.loads(path.read_text()), "checkpoint": "/elsewhere/last.ckpt"}
                    )
                )
    make_run(tmp_path / "runs", run_config(2), number=9, status="failed")
    output = run("publish", "runs=runs", "output=out", cwd=tmp_path)
    assert "run9: failed" in output and output.count(": finished") == 4
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"config.yaml", "result.json", "metrics.csv", "scores.json", "images.npz"}
    assert "/elsewhere" not in "".join(
        path.read_text() for path in (tmp_path / "out").rglob("scores.json")
    )
    texts = []
    for source in ("runs", "out"):
        write_report(
            find_runs([tmp_path / source]), tmp_path / f"report-{source}", "title", images=0
        )
        texts.append((tmp_path / f"report-{source}/report.md").read_text())
    assert texts[0] == texts[1] and "bad.png" in texts[1]

    assert "where runs are published" in run(
        "publish", "runs=out/run0", "output=out", cwd=tmp_path, ok=False
    )
    assert (tmp_path / "out/run0/config.yaml").exists()


def test_a_run_is_held_against_what_was_published(tmp_path):
    """Another curve, another score, or another image's counts: each is told, and so is what cannot
    be compared.
    """
    here = make_run(tmp_path / "runs", run_config(0), 0.7, ("whole", "paper_ms"))
    run("publish", "runs=runs/run0", "output=out", cwd=tmp_path)
    command = ("publish", "runs=runs/run0", "output=out", "check=true")
    assert run(*command, cwd=tmp_path).count("the same to the last digit") == 3
    scores, images = (
        next(here.glob("evaluate/*whole*/scores.json")),
        next(here.glob("evaluate/*whole*/images*.npz")),
    )
    for path in (here / "metrics.csv", scores, images):
        before = path.read_bytes()
        if path == scores:
            path.write_text(
                json.dumps(json.loads(before) | {"mIoU": json.loads(before)["mIoU"] + 1e-9})
            )
        elif path == images:
            with np.load(images) as arrays:
                shuffled = {**arrays, "pixels": arrays["pixels"][::-1]}
            np.savez(images, **shuffled)
        else:
            path.write_text(before.decode().replace("1", "2"))
        output = run(*command, cwd=tmp_path, ok=False)
        assert (
            output.count("NOT the same\n") == 1 and output.count("the same to the last digit") == 2
        )
        path.write_bytes(before)
    next(here.glob("evaluate/*paper_ms*/scores.json")).unlink()
    result = here / "result.json"
    result.write_text(
        json.dumps({**json.loads(result.read_text()), "threads": 2, "precision": "32-true"})
    )
    (here / "metrics.csv").write_text("other")
    output = run(*command, cwd=tmp_path, ok=False)
    assert (
        "NOT the same (threads: 1 there, 2 here; precision: not told there, 32-true here)" in output
    )
    assert "not compared, for it was not made here" in output
    scores.unlink()
    assert "has no evaluation that" in run(*command, cwd=tmp_path, ok=False)


def test_a_claim_that_blocks_would_not_decide_says_so(tmp_path, monkeypatch):
    for seed in range(2):
        for number, (model, accuracy) in enumerate([({"decoder": "none"}, 0.6), ({}, 0.7)]):
            make_run(
                tmp_path / "runs", run_config(seed, **model), accuracy, number=2 * seed + number
            )
    runs = find_runs([tmp_path / "runs"])
    names = [each.label for each in group_arms(runs)]
    said = []
    for wider in (Difference(0.02, -0.01, 0.05, 0.2), Difference(0.02, 0.004, 0.04, 0.01)):
        found = {1: Difference(0.02, 0.01, 0.03, 0.001), 20: wider}
        monkeypatch.setattr(
            "cyclenet.lab.report.claims.compare", lambda *_, block=1, found=found: found[block]
        )
        write_report(
            runs,
            tmp_path / "out",
            "title",
            images=0,
            plan=[Claim("a", [Comparison(names[1], names[0], "mIoU")])],
            block=20,
        )
        said.append(
            "by blocks of 20 images it would not be decided"
            in (tmp_path / "out/report.md").read_text()
        )
    assert said == [True, False]


def test_claims_are_judged_by_their_intervals(tmp_path):
    arms = [
        ({"context": "none", "decoder": "none"}, 0.6),
        ({"decoder": "none"}, 0.8),
        ({"decoder": "skip"}, 0.8),
    ]
    for number, (model, accuracy) in enumerate(arms):
        for seed in range(2):
            make_run(
                tmp_path / "runs", run_config(seed, **model), accuracy, number=2 * number + seed
            )
    make_run(tmp_path / "runs", run_config(0), 0.9, number=9)
    runs = find_runs([tmp_path / "runs"])
    first, second, third, single = (each.label for each in group_arms(runs))
    rows = [
        ("better", f"{second}, whole", first),
        ("worse", first, f"{second}, whole"),
        ("alike", third, f"{second}, whole"),
    ]
    rows += [("alone", second, "nothing"), ("once", single, first)]
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        yaml.safe_dump([{"claim": c, "arm": a, "than": t, "score": "mIoU"} for c, a, t in rows])
    )
    write_report(runs, tmp_path / "out", "title", images=0, plan=read_plan(plan))
    text = (tmp_path / "out/report.md").read_text()
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    lines = {
        row[0]: row[4:] for row in cells if row[0] in ("better", "worse", "alike", "alone", "once")
    }
    value, low, high = (
        number.lstrip("+-") for number in re.findall(r"[+-][\d.]+", lines["better"][0])
    )
    assert lines["better"][1] == f"**held**: higher by {value}, by no less than {low}"
    assert (
        lines["worse"][1] == f"**the opposite was seen**: lower by {value}, by no less than {low}"
    )
    value, low, high = (
        number.lstrip("+-") for number in re.findall(r"[+-][\d.]+", lines["alike"][0])
    )
    assert (
        lines["alike"][1]
        == f"**not decided**: a gain above {high} and a loss above {low} are ruled out"
    )
    assert lines["alone"][1] == "**not tested**" and lines["once"][1] == "**not decided**: one seed"
    gap = {row[0]: row[3] for row in cells if row[0] in ("better", "alike")}
    assert gap == {"better": "+2.70", "alike": "–"}  # 78.95 - 76.25; the paper has no skip.
    write_report(runs, tmp_path / "out", "title", images=0, plan=read_plan(plan), block=5)
    text = (tmp_path / "out/report.md").read_text()
    assert (
        "| in blocks of 5 |" in text
        and text.count("**held**") == 1
        and "| – | – | – | **not tested** |" in text
    )
    assert (
        f"Beside {first}, whole, by their intervals, higher: {second}, whole, {third}, whole."
        in text
    )
    plan.write_text(
        yaml.safe_dump([{"claim": "x", "arm": second, "than": first, "score": "mIoU", "seeds": 3}])
    )
    write_report(runs, tmp_path / "out", "title", images=0, plan=read_plan(plan))
    assert "| so far (3 seeds are planned): **held**: " in (tmp_path / "out/report.md").read_text()
    plan.write_text("- claim: a\n")
    with pytest.raises(ValueError, match="keys claim, arm, than and score"):
        read_plan(plan)
    plan.write_text("- {claim: a, arm: b, than: c, score: beauty}\n")
    with pytest.raises(
        ValueError, match="score must be one of mIoU, boundary, edges, contrast; got 'beauty'"
    ):
        read_plan(plan)


def found_inside(folder, seed, **changes) -> SplitAnalysis:
    """What an analysis of a made run could have found."""
    scores = json.loads(next(folder.glob("evaluate/*/scores.json")).read_text())
    kind = Alikeness([0.5, 0.6 + seed / 10], [0.3, 0.2], [0.2, 0.4], {}, [])
    values = {
        "dataset": "scenes",
        "split": scores["split"],
        "checkpoint": "a/last.ckpt",
        "feedback": FeedbackFound([0.4, 0.5], [], None, [], [], []),
        "similarity": SimilarityFound(kind, kind, [], Probe([0.1, 0.2], None)),
        "offsets": OffsetsFound([6.0 + seed, 1, 1, 1, 1, 5.0], 2.0, None),
    }
    values |= {"images": scores["images"]} | changes
    return SplitAnalysis(parts=["PartI", "PartII"], layers=[], classes=[], bins=[], **values)


def inside(folders, analyses, tmp_path) -> str:
    """The report's section on what was found inside the networks."""
    for folder, analysis in zip(folders, analyses, strict=True):
        write_json(folder / "visualize/analysis.json", analysis)
    write_report(find_runs([tmp_path / "runs"]), tmp_path / "out", "title", images=0)
    return (tmp_path / "out/report.md").read_text().split("## Inside the networks")[1]


def test_what_was_found_inside_the_networks_is_summed_up(tmp_path):
    folders = [make_run(tmp_path / "runs", run_config(s), 0.7, number=s) for s in range(2)]
    whole = [found_inside(folder, seed) for seed, folder in enumerate(folders)]
    text = inside(folders, whole, tmp_path)
    row = next(line for line in text.splitlines() if ", PartII" in line)
    assert "| 2 | 0.650 ± 0.071 | 0.200 ± 0.000 |" in row
    assert row.endswith("| 20.00 ± 0.00 | 50.00 ± 0.00 |")
    assert "| 2 | 6.500 ± 0.707 | 5.000 ± 0.000 |" in text
    # What is not there is not told.
    kind = Alikeness([0.5, 0.6], [None, 0.2], [None, 0.4], {}, [])
    empty = {
        "similarity": SimilarityFound(kind, kind, [], None),
        "offsets": OffsetsFound([6.0, 1, 1, 1, 1, None], 2.0, None),
    }
    analyses = [found_inside(folder, s, **empty) for s, folder in enumerate(folders)]
    row = next(r for r in inside(folders, analyses, tmp_path).splitlines() if ", PartI |" in r)
    assert "| 2 |" in row and "| – |" in row
    # An analysis of something else is left out.
    for changes in (
        {"checkpoint": "a/best.ckpt"},
        {"split": "train"},
        {"images": 1},
        {"feedback": None},
        {"finished_at": 5.0},  # The run was trained anew since.
        {"finished_at": 0.0},  # The run had not ended.
    ):
        analyses = [whole[0], found_inside(folders[1], 1, **changes)]
        row = next(r for r in inside(folders, analyses, tmp_path).splitlines() if ", PartI |" in r)
        assert "| 1 |" in row, changes
