"""Reports of cross-validation: folds are summed, arms are compared on what all of them have."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cyclenet.config.model import ModelConfig
from cyclenet.config.schema import DatasetConfig
from cyclenet.lab.cost.count import count_cost, total
from cyclenet.lab.report.arms import group_arms
from cyclenet.lab.report.claims import find_named, read_plan
from cyclenet.lab.report.evaluations import join_folds
from cyclenet.lab.report.runs import find_runs
from cyclenet.lab.report.write import write_report
from cyclenet.scoring.metrics import mean_iou
from made import make_run, run_config

ARMS = {"DenseASPP": ("denseaspp", 0.6), "CycleASPP": ("cycleaspp", 0.75)}


def make_runs(root, cells):
    for number, (label, seed, fold) in enumerate(cells):
        context, accuracy = ARMS[label]
        cfg = run_config(seed, context=context, decoder="none")
        cfg = replace(cfg, dataset=DatasetConfig(name="camvid", fold=fold))
        make_run(root, cfg, accuracy, number=number)
    return find_runs([root])


def every(seeds, folds):
    return [(label, seed, fold) for seed in seeds for fold in folds for label in ARMS]


def test_scores_are_of_summed_counts_and_claims_are_judged(tmp_path):
    runs = make_runs(tmp_path / "runs", every((0, 1), (0, 1, 2)))
    arm = group_arms(runs)[0]
    parts = [run.evaluations["whole"] for run in arm.runs if run.cfg.seed == 0]
    joined = arm.evaluations("whole")[0]
    total_counts = sum(part.counts["pixels"].sum(0, dtype=np.int64) for part in parts)
    assert len(parts) == 3 and joined.scores.images == 120
    assert joined.scores.mIoU == pytest.approx(float(mean_iou(total_counts)))
    assert joined.scores.mIoU != pytest.approx(np.mean([part.scores.mIoU for part in parts]))
    plan = tmp_path / "plan.yaml"
    names = [f"{label}(3,6,12,18,24,30)" for label in ("CycleASPP", "DenseASPP")]
    need = f"{{arm: '{names[0]}', than: '{names[1]}', score: %s}}"
    back = f"{{arm: '{names[1]}', than: '{names[0]}', score: mIoU}}"
    plan.write_text(
        f"- {{claim: Up, needs: [{need % 'mIoU'}, {need % 'edges'}], holm: true, folds: 3}}\n"
        f"- {{claim: Down, needs: [{back}], holm: true, refuted_below: 0}}\n"
        f"- {{claim: Where, needs: [{need % 'contrast'}], holm: true, seeds: 3, over_folds: 4}}\n"
    )
    write_report(runs, tmp_path / "out", "Folds", images=0, plan=read_plan(plan), block=5)
    text = (tmp_path / "out/report.md").read_text()
    section = text.split("## What was claimed")[1].split("\n## ")[0]
    lines = {line.split("|")[1].strip(): line for line in section.splitlines() if "|" in line}
    assert "**held**: higher by no less than" in lines["Up"]
    assert "**refuted here**: a gain above 0 is ruled out" in lines["Down"]
    assert (
        "so far (3 seeds and 4 folds are planned)" in lines["Where"] and " alone " in lines["Where"]
    )
    assert "p values of 4 comparisons" in section and "within each fold" in section


def test_only_folds_and_seeds_that_all_arms_have_are_compared(tmp_path):
    """Seed 0 has two folds of both arms and a third of one; seed 1 has one fold."""
    cells = [*every((0,), (0, 1)), ("DenseASPP", 0, 2), *every((1,), (0,))]
    arms = group_arms(make_runs(tmp_path, cells))
    assert [[(run.cfg.seed, run.cfg.dataset.fold) for run in arm.runs] for arm in arms] == [
        [(0, 0), (0, 1)]
    ] * 2
    assert arms[0].folds("whole") == [40, 40]


def test_the_same_run_twice_counts_once(tmp_path):
    runs = make_runs(tmp_path, [*every((0,), (0, 1)), ("DenseASPP", 0, 1)])
    arms = group_arms(runs)
    assert [len(arm.runs) for arm in arms] == [2, 2] and arms[0].folds("whole") == [40, 40]
    assert "for it repeats" in runs[-1].problem and "run2" in runs[-1].problem
    write_report(runs, tmp_path / "out", "Twice", images=0)
    text = (tmp_path / "out/report.md").read_text()
    assert "for it repeats" in text and "fold0 + fold1 split, 80 images" in text


def test_arms_without_a_common_fold_are_not_compared(tmp_path):
    runs = make_runs(tmp_path, [("DenseASPP", 0, 0), ("CycleASPP", 0, 1)])
    with pytest.raises(ValueError, match="no fold that all arms have finished"):
        write_report(runs, tmp_path / "out", "None", images=0)


def test_folds_and_splits_are_not_compared(tmp_path):
    make_runs(tmp_path, every((0,), (0,)))
    cfg = run_config(context="none", decoder="none")
    make_run(tmp_path, replace(cfg, dataset=DatasetConfig(name="camvid")), number=9)
    with pytest.raises(ValueError, match="camvid folds, camvid val"):
        group_arms(find_runs([tmp_path]))


def test_the_twins_of_the_heads_cost_what_cycleaspp_does():
    """Parameters to 0.3 %, executed multiply-adds to 0.7 %, with the widths of cyclenet_lite."""

    def cost(**changes):
        widths = {"reduce_channels": 128, "bottleneck_channels": 64, "growth_channels": 32}
        model = ModelConfig(
            backbone="tf_efficientnet_lite0",
            backbone_weights="none",
            freeze_backbone=True,
            atrous_rates=[1, 3, 6, 8, 11, 14],
            decoder="none",
            **(widths | {"head_channels": 64} | changes),
        )
        parts = count_cost(model, 360, 480, 11)
        return total([part for name, part in parts.items() if name.startswith("context")])

    cycle = cost()
    parameters = cost(context="denseaspp", growth_channels=40)
    flops = cost(context="denseaspp", growth_channels=40, bottleneck_channels=96)
    assert parameters.parameters == pytest.approx(cycle.parameters, rel=0.004)
    assert flops.executed == pytest.approx(cycle.executed, rel=0.008)


def named_row(name):
    label, protocol = name.rsplit(", ", 1)
    return SimpleNamespace(name=name, arm=SimpleNamespace(label=label), protocol=protocol)


def test_a_plan_never_means_another_network_than_it_names():
    """The arms that it names may have no finished run."""
    names = ["CycleASPP(3,6) + ADC, whole", "CycleASPP(3,6) k=2, whole", "DenseASPP(3,6), whole"]
    names += ["DenseASPP(3,6) [model.growth_channels=40], whole"]
    names += ["DenseASPP(3,6) [model.growth_channels=400], whole"]
    rows = [named_row(name) for name in names]
    for missing in ("CycleASPP(3,6)", "CycleASPP(3,6), whole", "ASPP(3,6)", "CycleASPP", "ASPP"):
        assert find_named(missing, rows) is None
    assert find_named("CycleASPP + ADC", rows) is rows[0]
    assert find_named("CycleASPP(3,6) k=2", rows) is rows[1]
    assert find_named("DenseASPP(3,6)", rows) is rows[2]
    assert find_named("growth_channels=40", rows) is rows[3]
    assert find_named("[model.growth_channels=400", rows) is rows[4]
    assert find_named("DenseASPP", rows) is rows[2]
    twins = [row for row in rows if row is not rows[2]]
    assert find_named("DenseASPP(3,6)", twins) is None and find_named("DenseASPP", twins) is None
    assert find_named("growth_channels", rows) is None
    others = [*rows, named_row("DenseASPP(6,12), whole")]
    assert find_named("DenseASPP", others) is None


def test_a_plan_means_an_arm_by_its_network():
    names = ["CycleASPP(3,6), whole", "DenseASPP(3,6), whole", "ASPP(6,12), whole"]
    rows = [named_row(name) for name in names]
    assert find_named("DenseASPP", rows).name == "DenseASPP(3,6), whole"
    assert find_named("ASPP", rows).name == "ASPP(6,12), whole"
    assert find_named("Dense", rows) is None
    assert find_named("PSPNet", rows) is None


def test_folds_that_share_an_image_are_not_summed(tmp_path):
    runs = make_runs(tmp_path, [("DenseASPP", 0, 0), ("DenseASPP", 0, 1)])
    parts = [run.evaluations["whole"] for run in runs]
    parts[1].counts["names"][3] = parts[0].counts["names"][0]
    with pytest.raises(ValueError, match="is in two folds"):
        join_folds(parts)


def test_other_masks_of_the_same_names_are_not_compared(tmp_path):
    runs = make_runs(tmp_path, [("DenseASPP", 0, 0), ("CycleASPP", 0, 0)])
    write_report(runs, tmp_path / "same", "Same", images=0)
    assert "**Warning:**" not in (tmp_path / "same/report.md").read_text()
    counts = runs[1].evaluations["whole"].counts
    counts["pixels"] = counts["pixels"][:, [1, 0, 2]]  # Two classes have changed places.
    write_report(runs, tmp_path / "other", "Other", images=0, baseline="DenseASPP")
    text = (tmp_path / "other/report.md").read_text()
    assert "evaluated on other images or masks, so they are not compared" in text
    first = text.split("| arm |")[1].splitlines()
    assert first[2].startswith("| DenseASPP") and "[" not in first[3].split("|")[5]
