"""Comparing arms: statistics against direct computation, and reading whatever runs left."""

import shutil

import numpy as np
import pytest

from cyclenet.lab.intervals import difference
from cyclenet.lab.report.arms import group_arms
from cyclenet.lab.report.runs import find_runs, read_run
from cyclenet.scoring.metrics import mean_iou
from made import counts_of, make_run, run_config


def test_difference_equals_a_direct_bootstrap():
    a, b = (counts_of(np.random.default_rng(k), acc)["pixels"] for k, acc in ((0, 0.8), (1, 0.7)))
    found = difference([a], [b], draws=300)
    assert found.value == pytest.approx(mean_iou(a.sum(0)) - mean_iou(b.sum(0)), abs=1e-15)
    draws = []
    for weights in np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=300):
        images = np.repeat(np.arange(40), weights)
        draws.append(mean_iou(a[images].sum(0)) - mean_iou(b[images].sum(0)))
    assert (found.low, found.high) == pytest.approx(
        tuple(np.percentile(draws, [2.5, 97.5])), abs=1e-12
    )


@pytest.mark.parametrize(
    ("seeds", "others", "paired"),
    [(1, 1, True), (3, 3, True), (3, 3, False), (3, 1, False), (5, 3, False)],
)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(seeds, others, paired):
    """Two arms of equal quality, each training of its own quality where there are several: 0 is in
    95 % of the intervals.
    """
    rng, inside, spread = np.random.default_rng(seeds), 0, 0.03 if seeds > 1 else 0
    for _ in range(200):
        a, b = (
            [fast_counts(rng, 0.7 + spread * rng.normal()) for _ in range(n)]
            for n in (seeds, others)
        )
        found = difference(a, b, paired, draws=200)
        inside += found.low <= 0 <= found.high
    assert 0.89 <= inside / 200 <= 0.995


def fast_counts(rng, accuracy, images=40, pixels=300):
    """Counts of two classes, each pixel right with the same probability."""
    true = np.full((images, 2), pixels // 2)
    hit = rng.binomial(true, accuracy)
    predicted = hit + (true - hit)[:, ::-1]
    return np.stack([hit, true, predicted], -1)


def test_blocks_widen_the_interval_where_neighbours_are_alike():
    """A video of 20 stretches of 10 equal frames has the interval of 20 images (times a known
    factor), not of 200.
    """
    a, b = (
        fast_counts(np.random.default_rng(k), accuracy, 20) for k, accuracy in ((0, 0.8), (1, 0.75))
    )
    found = [difference([a], [b])]
    video = [np.repeat(counts, 10, 0) for counts in (a, b)]
    found += [difference(video[:1], video[1:], block=block) for block in (1, 10)]
    widths = [each.high - each.low for each in found]
    assert widths[1] == pytest.approx(widths[0] / 10**0.5, rel=0.15)
    # A drawn stretch begins anywhere and is a mean of two images, by w and 1 - w: the mean of w^2 +
    # (1 - w)^2 is 2/3.
    assert widths[2] == pytest.approx(widths[0] * (2 / 3) ** 0.5, rel=0.1)
    a, b = (fast_counts(np.random.default_rng(k), 0.8, 400) for k in (2, 3))
    single, blocks = (difference([a], [b], block=block) for block in (1, 10))
    assert (
        blocks.high - blocks.low == pytest.approx(single.high - single.low, rel=0.2)
        and blocks.value == single.value
    )


def test_seeds_are_paired_by_what_they_share():
    """A quality that both arms have from the same seed does not widen the paired interval."""
    rng = np.random.default_rng(0)
    quality = [0.6, 0.7, 0.8]
    a, b = ([fast_counts(rng, q + step, 400) for q in quality] for step in (0.02, 0))
    paired, unpaired = difference(a, b), difference(a, b, paired=False)
    assert paired.value == unpaired.value and unpaired.high - unpaired.low > 4 * (
        paired.high - paired.low
    )


def test_pairing_makes_the_interval_narrow():
    """Images differ in how hard they are; that they are the same for both arms must not be lost."""
    rng = np.random.default_rng(0)
    a = counts_of(rng, 0.8)["pixels"]
    b = a.copy()
    b[:, 0, 0] -= 1
    found = difference([a], [b])
    assert 0 < found.low < found.value < found.high and found.high - found.low < 0.02
    shuffled = difference([a], [b[rng.permutation(40)]])
    assert shuffled.high - shuffled.low > 4 * (found.high - found.low)
    assert difference([a], [a]) == (0, 0, 0, 1)


def test_runs_are_grouped_by_all_but_the_seed_and_named_by_what_differs(tmp_path):
    plain = {"context": "none", "decoder": "none"}
    made = [
        run_config(0, **plain),
        run_config(1, **plain),
        run_config(1),
        run_config(0),
        run_config(0, lr=0.02),
        run_config(0, feedback=2),
    ]
    for number, cfg in enumerate(made):
        make_run(tmp_path, cfg, number=number)
    arms = group_arms(find_runs([tmp_path]))
    whole = "CycleASPP(3,6,12,18,24,30) + ADC"
    assert [arm.label for arm in arms] == [
        "Baseline",
        whole,
        f"{whole} [optim.lr=0.02]",
        "CycleASPP(3,6,12,18,24,30) k=2 + ADC",
    ]
    assert [[run.cfg.seed for run in arm.runs] for arm in arms] == [[0, 1], [0, 1], [0], [0]]


def test_the_name_of_an_arm_does_not_depend_on_which_ended_first(tmp_path):
    wide = run_config(0, bottleneck_channels=160)
    for number, cfg in enumerate((wide, run_config(0), run_config(0, context="none"))):
        make_run(tmp_path, cfg, number=number)
    labels = [arm.label for arm in group_arms(find_runs([tmp_path]))]
    whole = "CycleASPP(3,6,12,18,24,30) + ADC"
    assert labels == [f"{whole} [model.bottleneck_channels=160]", whole, "Baseline + ADC"]


def test_what_does_not_change_the_result_does_not_tell_arms_apart(tmp_path):
    first, second = run_config(0), run_config(1)
    second.trainer.num_workers, second.trainer.devices, second.extra_protocols = (
        3,
        "4",
        ["paper_ms"],
    )
    for number, cfg in enumerate((first, second)):
        make_run(tmp_path, cfg, number=number)
    assert len(group_arms(find_runs([tmp_path]))) == 1


def test_runs_in_any_state_are_read(tmp_path):
    make_run(tmp_path, run_config(), number=0)
    make_run(tmp_path, run_config(), number=1, status="failed")
    cut = make_run(tmp_path, run_config(), number=2)
    (cut / "result.json").unlink()
    (tmp_path / "run3/.hydra").mkdir(parents=True)
    (tmp_path / "run3/.hydra/config.yaml").write_text("seed: -1\n")  # Refused before it began.
    (tmp_path / "run4").mkdir()
    (tmp_path / "run4/result.json").write_text('{"status": "fini')
    # A logger's own config.yaml is not a run.
    (tmp_path / "run0/wandb/offline-run-1/files").mkdir(parents=True)
    (tmp_path / "run0/wandb/offline-run-1/files/config.yaml").write_text("a: 1")
    runs = find_runs([tmp_path])
    states = {run.folder.name: (run.status, run.finished) for run in runs}
    assert states == {
        "run0": ("finished", True),
        "run1": ("failed", False),
        "run2": ("unfinished", False),
        "run3": ("unfinished", False),
        "run4": ("unfinished", False),
    }
    assert read_run(tmp_path / "run3").cfg is None
    with pytest.raises(ValueError, match=r"There is no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no runs"):
        find_runs([tmp_path / "empty"])


def test_only_the_evaluations_that_the_run_names_count(tmp_path):
    """One by hand, of other rules under the same name, does not replace the run's own."""
    folder = make_run(tmp_path, run_config(), protocols=("paper_ms", "whole"))
    other = folder / "evaluate" / "last-scenes-val-whole-1"
    shutil.copytree(folder / "evaluate/last-scenes-val-whole-0", other)
    text = (other / "scores.json").read_text()
    (other / "scores.json").write_text(text.replace('"images": 40', '"images": 5'))
    run = read_run(folder)
    assert (
        list(run.evaluations) == ["whole", "paper_ms"]
        and run.evaluations["whole"].scores.images == 40
    )


def test_a_run_of_another_version_says_so_and_spares_the_others(tmp_path):
    make_run(tmp_path, run_config(), number=0)
    unknown = make_run(tmp_path, run_config(), number=1) / "config.yaml"
    unknown.write_text(unknown.read_text() + "new_key: 1\n")
    next(make_run(tmp_path, run_config(), number=2).glob("evaluate/*/images*.npz")).unlink()
    older = make_run(tmp_path, run_config(), number=3) / "result.json"
    older.write_text('{"status": "finished"}')
    (make_run(tmp_path, run_config(), number=4) / "result.json").write_text("null")
    runs = {run.folder.name: run for run in find_runs([tmp_path])}
    assert [run.finished for run in runs.values()].count(True) == 1 and runs["run0"].finished
    assert (
        "new_key" in runs["run1"].problem
        and "run the same training command" in runs["run2"].problem
    )
    assert "earlier version" in runs["run3"].problem and runs["run4"].status == "unfinished"
    # The same folder, given twice, is one run.
    assert len(find_runs([tmp_path, tmp_path / "run0", tmp_path / ".." / tmp_path.name])) == 5


def test_runs_of_different_data_are_not_compared(tmp_path):
    make_run(tmp_path, run_config(), number=0)
    cfg = run_config()
    cfg.dataset.name = "camvid"
    make_run(tmp_path, cfg, number=1)
    with pytest.raises(ValueError, match=r"different data \(camvid val, scenes val\)"):
        group_arms(find_runs([tmp_path]))
