"""Reports that would print a wrong number in silence: each is refused, mended or said."""

import json
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import Source
from cyclenet.lab.intervals import NOTHING, HalfWidth, difference, near_minus_far, p_value
from cyclenet.lab.report.arms import group_arms
from cyclenet.lab.report.claims import Claim, Comparison
from cyclenet.lab.report.published import find_published
from cyclenet.lab.report.runs import find_runs
from cyclenet.lab.report.write import write_report
from cyclenet.lab.sweeps.choose import write_chosen
from made import edit_json, make_run, run_config

DENSE = {"context": "denseaspp", "decoder": "none"}
CYCLE = {"context": "cycleaspp", "decoder": "none"}


def fold_config(fold, seed=0, lr=0.01, **model):
    cfg = run_config(seed, lr, **model)
    return replace(cfg, dataset=DatasetConfig(name="camvid", fold=fold))


def make_runs(root, *configs, accuracy=0.7, **options):
    for number, cfg in enumerate(configs):
        make_run(root, cfg, accuracy, number=number, **options)
    return find_runs([root])


def report_of(runs, tmp_path, **options):
    write_report(runs, tmp_path / "out", "x", images=0, **options)
    return (tmp_path / "out/report.md").read_text()


def test_a_stray_prediction_far_from_edges_does_not_move_the_contrast():
    """A class without true pixels far from edges counts in neither arm."""
    near = [[50, 60, 60], [8, 10, 10]]
    without = np.array([near, [[90, 100, 100], [0, 0, 0]]])
    stray = np.array([near, [[90, 100, 100], [0, 0, 1]]])
    assert near_minus_far(without) == near_minus_far(stray) == pytest.approx(50 / 70 - 90 / 110)


def test_p_is_that_of_the_interval_and_knows_the_degrees_of_freedom():
    """By a t distribution with few seeds, by a normal one for images, by both together."""
    assert p_value(1.5, 0.0, HalfWidth(1.0, 2)) == pytest.approx(
        2 * stats.t.sf(1.5 * stats.t.isf(0.025, 2), 2)
    )
    assert p_value(-1.5, 1.0, NOTHING) == pytest.approx(2 * stats.norm.sf(1.5 * 1.959964), rel=1e-5)
    both = HalfWidth(0.6, 4)
    assert p_value(1.0, 0.8, both) == pytest.approx(0.05)
    assert p_value(1.01, 0.8, both) < 0.05 < p_value(0.99, 0.8, both)
    assert p_value(0.0, 1.0, NOTHING) == 1 == p_value(1.0, 0.0, NOTHING)


def test_p_is_below_a_twentieth_where_the_interval_leaves_0_out():
    rng = np.random.default_rng(0)
    sides = set()
    for shift in range(12):
        a, b = (
            [rng.binomial([[[most, 0, 0]]] * 30, 0.9) + np.array([0, 80, 80]) for _ in range(3)]
            for most in (60 + shift, 60)
        )
        found = difference(a, b, draws=200)
        assert (found.p < 0.05) == (found.low * found.high > 0)
        sides.add(found.p < 0.05)
    assert sides == {True, False}


@pytest.mark.parametrize("first", [0, 1])
def test_an_arm_keeps_its_name_while_its_plain_form_has_not_finished(tmp_path, first):
    """Else a claim about DenseASPP would be judged on its twin; the order of ends is chance."""
    root = tmp_path / "runs"
    make_run(root, run_config(**DENSE, growth_channels=40), number=1)
    make_run(root, run_config(**DENSE), number=2, status="failed")
    (twin,) = group_arms(find_runs([root]))
    assert twin.label.endswith("[model.growth_channels=40]")
    make_run(root, run_config(**DENSE), number=3 * first)
    labels = {arm.label for arm in group_arms(find_runs([root]))}
    plain = "DenseASPP(3,6,12,18,24,30)"
    assert labels == {plain, f"{plain} [model.growth_channels=40]"}


def test_failed_runs_of_a_twin_do_not_rename_the_plain_arm(tmp_path):
    root = tmp_path / "runs"
    make_runs(root, run_config(**DENSE, growth_channels=64), run_config(**CYCLE))
    for number, lr in enumerate((0.05, 0.1, 0.2), 5):
        failed = run_config(0, lr, **DENSE, growth_channels=40)
        make_run(root, failed, number=number, status="failed")
    make_run(root, run_config(**CYCLE, growth_channels=64), number=9)
    labels = [arm.label for arm in group_arms(find_runs([root]))]
    assert labels[0] == "DenseASPP(3,6,12,18,24,30) [model.growth_channels=64]"
    assert labels[1] == "CycleASPP(3,6,12,18,24,30)"  # The default needs no telling.


def test_one_seed_is_said_where_each_arm_has_another(tmp_path):
    runs = make_runs(tmp_path / "runs", run_config(0, **DENSE), run_config(1, **CYCLE))
    assert "**One seed:**" in report_of(runs, tmp_path)


def test_boundary_scores_of_another_ratio_are_left_out(tmp_path):
    root = tmp_path / "runs"
    make_runs(root, *(run_config(seed, **model) for model in (DENSE, CYCLE) for seed in (0, 1)))
    (path,) = (root / "run3").glob("evaluate/*/scores.json")
    boundary = json.loads(path.read_text())["boundary"]
    edit_json(path, boundary=boundary | {"ratio": 0.005})
    text = report_of(find_runs([root]), tmp_path)
    assert "boundary IoU with boundary_ratio=0.005 is left out" in text.split("## Runs")[1]
    section = text.split("## At boundaries")[1].split("\n## ")[0]
    assert "DenseASPP" in section and "CycleASPP" not in section


def test_rules_of_one_name_have_rows_of_their_own(tmp_path):
    """Of two arms, and of one run whose further protocol has the name of its own."""
    runs = make_runs(tmp_path / "runs", run_config(0, **DENSE), run_config(0, **CYCLE))
    own, other = (f"whole (whole image; scale 1; {flip})" for flip in ("no flip", "flip"))
    (path,) = runs[1].folder.glob("evaluate/*/scores.json")
    edit_json(path, protocol=other)
    arms = group_arms(find_runs([tmp_path / "runs"]))
    assert [arm.protocols for arm in arms] == [[own], [other]]
    first = next(runs[0].folder.glob("evaluate/*"))
    second = first.with_name("other")
    second.mkdir()
    for each in first.iterdir():
        (second / each.name).write_bytes(each.read_bytes())
    edit_json(second / "scores.json", protocol=other, mIoU=0.999)
    named = runs[0].result.evaluations | {other: "evaluate/other"}
    edit_json(runs[0].folder / "result.json", evaluations=named)
    arm = group_arms(find_runs([tmp_path / "runs"]))[0]
    assert arm.protocols == [own, other] and arm.evaluations(other)[0].scores.mIoU == 0.999
    assert arm.evaluations(own)[0].scores.mIoU != 0.999


def test_the_keys_of_training_in_which_arms_differ_are_told(tmp_path):
    cycle = run_config(0, 0.5, **CYCLE, backbone="resnet50s", output_stride=16, freeze_norm=True)
    runs = make_runs(tmp_path / "runs", run_config(0, **DENSE), cycle)
    text = report_of(runs, tmp_path)
    assert "model.backbone (resnet101s, resnet50s)" in text and "model.freeze_norm" in text
    assert "optim.lr (0.01, 0.5)" in text
    assert "model.output_stride (8, 16)" in text and "Backbone resnet101s at" not in text


def test_a_further_protocol_that_only_some_folds_have_is_left_out(tmp_path):
    root = tmp_path / "runs"
    cells = [(model, fold) for model in (DENSE, CYCLE) for fold in (0, 1)]
    for number, (model, fold) in enumerate(cells):
        protocols = ("whole", "paper_ms") if number == 0 else ("whole",)
        make_run(root, fold_config(fold, **model), protocols=protocols, number=number)
    runs = find_runs([root])
    assert [arm.protocols for arm in group_arms(runs)] == [["whole"], ["whole"]]
    assert "paper_ms left out" in report_of(runs, tmp_path).split("## Runs")[1]


def test_protocols_keep_their_order_and_an_arm_without_a_common_one_is_left_out(tmp_path):
    root, names = tmp_path / "runs", ("whole", "sliding", "paper_ms", "mmseg_ms_flip")
    for fold in (0, 1):
        make_run(root, fold_config(fold, **DENSE), protocols=names[: 4 - fold], number=fold)
        other = fold_config(fold, **CYCLE)
        make_run(root, other, protocols=names[fold : fold + 1], number=5 + fold)
    (arm,) = group_arms(find_runs([root]))
    assert arm.protocols == ["whole", "sliding", "paper_ms"]


def test_the_panel_shows_the_images_of_the_fold_that_was_counted(tmp_path, monkeypatch):
    """The first run that finished is of another fold than the first by seed and fold."""
    root = tmp_path / "runs"
    for number, (model, fold) in enumerate([(DENSE, 3), (DENSE, 0), (CYCLE, 3), (CYCLE, 0)]):
        make_run(root, fold_config(fold, **model), number=number)
    opened = []

    def note(cfg):
        opened.append(cfg.fold)
        raise ValueError("seen")

    monkeypatch.setattr("cyclenet.lab.report.panel.open_validation", note)
    monkeypatch.setattr("cyclenet.lab.report.panel.load", lambda *args, **options: None)
    write_report(find_runs([root]), tmp_path / "out", "x", images=1)
    assert opened == [0]


class Blank(Source):
    classes, palette = ["a", "b", "c"], np.zeros((3, 3), np.uint8)

    def __init__(self, first, length):
        self.names = [f"image {first + index}" for index in range(length)]

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]

    def image(self, index):
        return np.zeros((40, 60, 3), np.uint8)

    def mask(self, index):
        return np.zeros((40, 60), np.uint8)


def test_the_panel_is_of_the_images_that_were_counted_or_of_none(tmp_path, monkeypatch):
    make_runs(tmp_path / "runs", run_config(0, **CYCLE), run_config(0, **DENSE))
    model = SimpleNamespace(predict=lambda image: SimpleNamespace(labels=np.zeros((40, 60), int)))
    monkeypatch.setattr("cyclenet.lab.report.panel.load", lambda *args, **options: model)
    for first, length, same in ((0, 40, True), (1, 40, False), (0, 3, False)):
        opened = partial(Blank, first, length)
        monkeypatch.setattr("cyclenet.lab.report.panel.open_validation", lambda cfg, o=opened: o())
        write_report(find_runs([tmp_path / "runs"]), tmp_path / "out", "x", images=2)
        text = (tmp_path / "out/report.md").read_text()
        assert ("The split has other images now" in text) != same
        assert ("![image, truth" in text) == same


def test_scores_on_trained_images_are_told(tmp_path):
    runs = make_runs(tmp_path / "runs", run_config(0, **CYCLE), run_config(0, **DENSE))
    assert "was trained on some of the images" not in report_of(runs, tmp_path)
    for told in (3, None):
        (path,) = runs[1].folder.glob("evaluate/*/scores.json")
        edit_json(path, trained_on=told)
        text = report_of(find_runs([tmp_path / "runs"]), tmp_path)
        label = group_arms(runs)[1].label
        assert f"**Warning:** {label}: the network was trained on some of the images" in text


def test_holms_correction_is_of_the_claims_that_ask_for_it(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    for number, (model, right) in enumerate([(CYCLE, 0.9), (DENSE, 0.6)]):
        for seed in (0, 1):
            make_run(root, run_config(seed, **model), right, number=2 * number + seed)
    monkeypatch.setattr("cyclenet.lab.report.claims.holm", lambda p: [1.0] * len(p))
    up, down = (arm.label for arm in group_arms(find_runs([root])))
    need = [Comparison(up, down, "mIoU")]
    plan = [Claim("corrected", need, holm=True), Claim("alone", need, refuted_below=0)]
    text = report_of(find_runs([root]), tmp_path, plan=plan)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert "**held**" in lines["alone"] and "**not decided**" in lines["corrected"]


def test_a_comparison_of_one_seed_has_no_p_value(tmp_path):
    runs = make_runs(tmp_path / "runs", run_config(0, **CYCLE), accuracy=0.9)
    make_run(tmp_path / "runs", run_config(0, **DENSE), 0.6, number=5)
    names = [arm.label for arm in group_arms(find_runs([tmp_path / "runs"]))]
    plan = [Claim("one", [Comparison(*names, "mIoU")], holm=True)]
    text = report_of(find_runs([tmp_path / "runs"]), tmp_path, plan=plan)
    line = next(line for line in text.splitlines() if line.startswith("| one"))
    assert line.split("|")[6].strip() == "–" and "one seed" in line and len(runs) == 1


def test_the_opposite_is_said_and_missing_folds_too(tmp_path):
    root = tmp_path / "runs"
    for number, (model, right) in enumerate([(CYCLE, 0.9), (DENSE, 0.6)]):
        for seed in (0, 1):
            make_run(root, run_config(seed, **model), right, number=2 * number + seed)
    up, down = (arm.label for arm in group_arms(find_runs([root])))
    plan = [
        Claim("back", [Comparison(down, up, "mIoU")], holm=True),
        Claim("folds", [Comparison(up, down, "mIoU")], folds=4, holm=True),
        Claim("plain", [Comparison(up, down, "mIoU")], folds=4),
    ]
    text = report_of(find_runs([root]), tmp_path, plan=plan)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert "**the opposite was seen**: lower by no less than" in lines["back"]
    for name in ("folds", "plain"):
        assert "4 folds of its sign are asked for, and the runs have none" in lines[name]


def test_cross_validation_says_nothing_of_whole_runs_with_other_seeds(tmp_path):
    root = tmp_path / "runs"
    cells = [(m, s, f) for m in (DENSE, CYCLE) for s in (0, 1) for f in (0, 1)]
    for number, (model, seed, fold) in enumerate(cells):
        make_run(root, fold_config(fold, seed, **model), number=number)
    text = report_of(find_runs([root]), tmp_path)
    assert "Training again with another seed moves" not in text


def test_arms_that_count_other_numbers_of_classes_are_told(tmp_path):
    runs = make_runs(tmp_path / "runs", run_config(0, **DENSE), run_config(0, **CYCLE))
    (path,) = runs[1].folder.glob("evaluate/*/scores.json")
    edit_json(path, classes_counted=2)
    assert "mIoU is a mean over 2 or 3 classes" in report_of(
        find_runs([tmp_path / "runs"]), tmp_path
    )


def test_published_numbers_stand_beside_the_published_rates_only():
    cycle = {**CYCLE, "decoder": "adc"}
    assert find_published(run_config(**cycle).model).name == "CycleNet"
    assert find_published(run_config(**cycle, atrous_rates=[6, 12, 18]).model) is None
    assert find_published(run_config(**DENSE, atrous_rates=[3, 6]).model) is None
    # Table 3 has six rates, Table 4 five (section 4.3).
    five = {"atrous_rates": [3, 6, 12, 18, 24]}
    assert find_published(run_config(**DENSE).model) is None
    assert find_published(run_config(**DENSE, **five).model).table4 == 43.03
    six, of_ade = (find_published(run_config(**cycle, **keys).model) for keys in ({}, five))
    assert (six.table3, six.table4) == (82.0, None) and (of_ade.table3, of_ade.table4) == (
        None,
        46.14,
    )
    assert find_published(run_config(**cycle, feedback=2).model) is None
    at_16 = [2, 3, 6, 9, 12, 15]
    model = run_config(**cycle, output_stride=16, atrous_rates=at_16).model
    assert find_published(model) == six


def test_a_damaged_evaluation_is_not_replaced_by_another_protocols(tmp_path):
    root = tmp_path / "runs"
    for number, (model, lr) in enumerate([(DENSE, 0.1), (CYCLE, 0.1), (DENSE, 0.2)]):
        for seed in (0, 1):
            cfg, number_of = run_config(seed, lr, **model), 2 * number + seed
            make_run(root, cfg, 0.6, ("whole", "paper_ms"), number_of)
    for number in (0, 1):
        (path,) = (root / f"run{number}").glob("evaluate/*-whole-*/images*.npz")
        path.write_bytes(path.read_bytes()[:-100])
    runs = find_runs([root])
    broken, cycle, dense = group_arms(runs)
    assert broken.protocols == ["paper_ms"] and cycle.protocols == ["whole", "paper_ms"]
    plain = [Comparison(cycle.label, broken.label, "mIoU")]
    told = [Comparison(f"{cycle.label}, whole", f"{broken.label}, paper_ms", "mIoU")]
    text = report_of(runs, tmp_path, plan=[Claim("plain", plain), Claim("told", told)])
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert "**not tested**" in lines["plain"] and "**not tested**" not in lines["told"]
    write_chosen(runs, "optim.lr", tmp_path / "chosen.yaml")
    chosen = (tmp_path / "chosen.yaml").read_text()
    assert "0.1:" in chosen and "paper_ms" not in chosen and len(dense.runs) == 2


def test_stretches_of_images_must_be_many():
    arm = [np.ones((24, 2, 3), np.int64)]
    with pytest.raises(ValueError, match=r"fewer than 5 stretches of 24 images: give block=4"):
        difference(arm, arm, block=20)
    assert difference(arm, arm, block=4).value == 0


def test_a_seed_that_was_continued_elsewhere_is_of_the_same_arm(tmp_path):
    seeds = [run_config(seed, **DENSE) for seed in range(3)]
    seeds[2] = replace(seeds[2], ckpt_path="elsewhere/last.ckpt")
    (arm,) = group_arms(make_runs(tmp_path / "runs", *seeds))
    assert len(arm.runs) == 3


def test_a_choice_says_by_which_splits_and_by_how_few_of_them(tmp_path):
    root = tmp_path / "runs"
    made = [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1), (0.4, 0)]
    for number, (lr, fold) in enumerate(made):
        make_run(root, fold_config(fold, lr=lr, **DENSE), number=number)
        (path,) = (root / f"run{number}").glob("evaluate/*/scores.json")
        edit_json(path, split=f"fold{fold}")
    write_chosen(find_runs([root]), "optim.lr", tmp_path / "chosen.yaml")
    text = (tmp_path / "chosen.yaml").read_text()
    assert "fold0" in text.splitlines()[0] and "fold1" in text.splitlines()[0]
    assert "by 1 of 2 seeds and folds" in text


def test_a_measured_time_is_of_the_network_it_was_measured_with(tmp_path):
    """A label may be another arm's where the folder holds others."""
    from cyclenet.config.identity import network_name

    root = tmp_path / "runs"
    runs = make_runs(root, run_config(0, **DENSE), run_config(0, **CYCLE))
    names = [f"{arm.label}, whole" for arm in group_arms(runs)]
    networks = [network_name(asdict(run.cfg.model)) for run in runs]
    arms = {
        names[0]: {"s": 0.111, "network": networks[0]},
        names[1]: {"s": 0.222, "network": networks[0]},
    }
    latency = {"image": "1x1", "threads": 1, "rounds": 1, "arms": arms}
    (root / "latency.json").write_text(json.dumps(latency))
    text = report_of(find_runs([root]), tmp_path).split("## Cost")[1]
    assert "| 111 |" in text and "| 222 |" not in text
