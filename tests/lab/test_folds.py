"""Cross-validation: folds of data, and what is said of scores that are summed over them."""

import csv
import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest

from conftest import noise_image, write
from cyclenet.config.schema import DatasetConfig
from cyclenet.data.camvid import number_folds
from cyclenet.data.datamodule import SegmentationData
from cyclenet.data.images import DataError
from cyclenet.data.meaning import digest_names, digest_root
from cyclenet.data.open import open_split, open_validation
from cyclenet.lab.intervals import (
    difference,
    fold_deviations,
    fold_half_width,
    holm,
    near_minus_far,
)
from cyclenet.runs.evaluate import trained_on
from cyclenet.scoring.metrics import mean_iou


def test_camvids_folds_are_its_drives():
    drives = {"0001TP": 4, "0006R0": 3, "0016E5": 20, "Seq05VD": 5}
    names = [f"{drive}_{n:03d}" for drive, count in drives.items() for n in range(count)]
    folds, near = number_folds(names)
    assert [list(folds.values()).count(fold) for fold in range(5)] == [4, 3, 10, 10, 5]
    # Half of the twenty frames lie within five of the cut.
    assert near == {f"0016E5_{n:03d}": 3 if n < 10 else 2 for n in range(5, 15)}
    with pytest.raises(DataError, match="0002XX_1 is of none of the drives"):
        number_folds(["0002XX_1"])


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, number in itertools.product(("train", "val"), range(3)):
        write(tmp_path / f"images/{split}/{number}.png", noise_image(rng, 40, 50))
        write(tmp_path / f"masks/{split}/{number}.png", rng.integers(0, 2, (40, 50), np.uint8))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    return tmp_path


def write_folds(folder, rows):
    with (folder / "folds.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "fold"), *rows])


def test_a_folders_folds_cover_splits_and_share_no_image(folder):
    names = [f"{split}/{number}" for split in ("train", "val") for number in range(3)]
    write_folds(folder, [(name, number % 2) for number, name in enumerate(names)])
    cfg = DatasetConfig(name="folder", root=str(folder), fold=1)
    train, held_out = open_split(cfg, cfg.training_split), open_validation(cfg)
    assert [held_out.name(n) for n in range(len(held_out))] == names[1::2]
    assert [train.name(n) for n in range(len(train))] == names[::2]
    assert train.image(0).shape == (40, 50, 3) and train.mask(0).max() == 1


def test_evaluated_images_that_were_trained_on_are_counted(folder):
    names = [f"{split}/{number}" for split in ("train", "val") for number in range(3)]
    write_folds(folder, [(name, min(number, 2)) for number, name in enumerate(names)])
    data = DatasetConfig(name="folder", root=str(folder), fold=2)
    plain = replace(data, fold=None)
    asked = [(data, None, 0), (data, "fold1", 1), (plain, "val", 0), (plain, "train", 2)]
    for cfg, split, count in [*asked, (data, "not-fold1", 1)]:
        assert trained_on(data, cfg, open_validation(cfg, split)) == count, split
    limited = replace(data, train_limit=1)
    assert trained_on(limited, plain, open_validation(plain, "train")) == 1
    # Other images of the same names, a class list that has moved, and no training images.
    moved = folder.with_name("moved")
    shutil.copytree(folder, moved)
    elsewhere = replace(plain, root=str(moved))
    assert trained_on(data, elsewhere, open_validation(elsewhere, "train")) == 2
    source = open_validation(plain, "train")
    assert trained_on(data, elsewhere, source) == 0
    assert trained_on(replace(data, classes="/gone/classes.txt"), plain, source) == 2
    assert trained_on(replace(data, fold=None, train_split="gone"), plain, source) == 0
    # Drawn images have no files.
    scenes = DatasetConfig(name="scenes", scenes_train=5, scenes_val=3, train_limit=4)
    for cfg, split, count in ((scenes, "val", 0), (scenes, "train", 4)):
        assert trained_on(scenes, cfg, open_validation(cfg, split)) == count
    other = replace(scenes, scenes_seed=1)
    assert trained_on(scenes, other, open_validation(other, "train")) == 0


def test_a_run_does_not_go_on_with_other_images_of_the_same_number(folder):
    """A fold or a held-out share that moved would validate on images that were trained on."""
    names = [f"{split}/{number}" for split in ("train", "val") for number in range(3)]
    write_folds(folder, [(name, number % 2) for number, name in enumerate(names)])
    cfg = DatasetConfig(name="folder", root=str(folder), fold=1, batch_size=2)
    data = SegmentationData(cfg, 0)
    state = data.state_dict()
    SegmentationData(cfg, 0).check_same(state)
    before = (digest_names(data.train_source), digest_root(cfg))
    assert state["root"] == before[1]
    write_folds(folder, [(name, (number + 1) % 2) for number, name in enumerate(names)])
    swapped = SegmentationData(cfg, 0)
    with pytest.raises(ValueError, match="the training images have other names, so they are other"):
        swapped.check_same(state)
    SegmentationData(cfg, 0, force=True).check_same(state)
    images = open_validation(cfg)
    assert trained_on(cfg, cfg, images) == 0 and trained_on(cfg, cfg, images, before) is None
    elsewhere = (before[0], before[1] + 1)
    assert trained_on(cfg, cfg, images, elsewhere) == 0
    # Checkpoints from before there were names.
    del state["meaning"]["train_names"]
    with pytest.raises(ValueError, match="the validation images have other names"):
        swapped.check_same(state)
    del state["meaning"]["val_names"]
    swapped.check_same(state)


def test_images_that_folds_csv_does_not_name_are_told_once(folder, capsys):
    write_folds(folder, [("train/0", 0), ("train/1", 1), ("val/0", 0)])
    cfg = DatasetConfig(name="folder", root=str(folder), fold=1)
    for split in (cfg.training_split, cfg.validation_split):
        open_split(cfg, split)
    assert capsys.readouterr().err.count("folds.csv does not name 3 of 6 images") == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("train/0", "x")], "line 2: 'train/0,x' is not an image"),
        ([("train/0", 0), ("train/0", 1)], "line 3"),
        ([("train/9", 0)], "names train/9, but there is no such image"),
        ([("train/0", 2)], "There is no fold 0; there are 2"),
    ],
)
def test_wrong_folds_are_told(folder, rows, message):
    write_folds(folder, rows)
    with pytest.raises(DataError, match=message):
        open_validation(DatasetConfig(name="folder", root=str(folder), fold=0))


def test_a_single_fold_can_be_evaluated_and_not_trained(folder):
    write_folds(folder, [("train/0", 0), ("train/1", 0)])
    cfg = DatasetConfig(name="folder", root=str(folder), fold=0)
    assert len(open_validation(cfg)) == 2
    with pytest.raises(DataError, match="none is left to train on"):
        open_split(cfg, cfg.training_split)


def test_folds_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match="is for camvid and folder, not for scenes"):
        DatasetConfig(fold=0)


def counts(accuracy, images, seed, classes=3):
    rng = np.random.default_rng(seed)
    right = rng.binomial(100, np.clip(accuracy, 0, 1), (images, classes))
    wrong = 100 - right
    return np.stack([right, np.full_like(right, 100), right + np.roll(wrong, 1, 1)], 2)


def test_the_spread_of_trainings_is_pooled_over_folds():
    """Trainings move folds by 4 points, and images hardly matter: over many experiments, the
    interval of a true difference of 0 holds it about as often as it says.
    """
    rng, folds, held = np.random.default_rng(1), [30, 30, 30], 0
    for number in range(120):
        arms = []
        for _ in "ab":
            moves = rng.normal(0, 0.04, (3, 3))
            parts = [
                [counts(0.7 + move, 30, [number, 7, n]) for n, move in enumerate(row)]
                for row in moves
            ]
            arms.append([np.concatenate(row) for row in parts])
        found = difference(*arms, folds=folds, draws=100)
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 120 <= 0.99


@pytest.mark.parametrize("spread", [[1, 1, 1, 1, 1], [4, 0.5, 0.5, 0.5, 1.5]])
def test_the_interval_holds_where_folds_vary_unequally(spread):
    """With the degrees of freedom of equal folds, the second would hold 89 times in 100."""
    held, rng = 0, np.random.default_rng(0)
    for _ in range(2000):
        trainings = rng.normal(0, spread, (3, 5))
        moved = trainings - trainings.mean(0)
        width = fold_half_width(moved, np.zeros_like(moved), True).width
        held += abs(trainings.mean(0).sum()) <= width
    assert 0.93 <= held / 2000 <= 0.98


def test_deviations_of_a_fold_are_its_own():
    """Only the second fold's trainings differ: the others deviate by 0."""
    same, other = counts(0.7, 20, 0), counts(0.5, 10, 1)
    arm = [np.concatenate([same, counts(0.8, 10, 2)]), np.concatenate([same, other])]
    moved = fold_deviations(arm, [20, 10], mean_iou)
    assert moved.shape == (2, 2)
    assert np.allclose(moved[:, 0], 0) and moved[0, 1] > 0.01
    assert np.isclose(moved[:, 1].sum(), 0)


def test_holm_adjusts_as_r_does():
    # p.adjust(c(0.01, 0.04, 0.03, 0.5), "holm") of R.
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_near_minus_far_is_the_difference_of_two_scores():
    near, far = counts(0.6, 5, 0).sum(0), counts(0.9, 5, 1).sum(0)
    both = np.stack([near, far])
    assert near_minus_far(both) == pytest.approx(mean_iou(near) - mean_iou(far))
    assert near_minus_far(both) < 0
