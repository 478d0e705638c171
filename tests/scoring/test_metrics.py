from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclenet.data.cityscapes import CLASSES, Cityscapes
from cyclenet.scoring.metrics import ConfusionMatrix, scores

REAL = Path(__file__).parents[3] / "shared/data/cityscapes"


def official(
    truth: list[np.ndarray], prediction: list[np.ndarray], folder: Path
) -> tuple[dict[str, float], np.ndarray]:
    """Score label-id images with Cityscapes' own evaluation; return IoUs by class and its matrix of
    train classes.
    """
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script
    from cityscapesscripts.helpers.labels import trainId2label

    files = {"truth": [], "prediction": []}
    for kind, images in (("truth", truth), ("prediction", prediction)):
        for i, image in enumerate(images):
            path = (
                folder
                / f"aachen_{i:06d}_000019_{'gtFine_labelIds' if kind == 'truth' else 'pred'}.png"
            )
            Image.fromarray(image).save(path)
            files[kind].append(str(path))
    args = script.args
    args.evalInstLevelScore, args.quiet, args.JSONOutput = False, True, False
    result = script.evaluateImgLists(files["prediction"], files["truth"], args)
    ids = [trainId2label[i].id for i in range(19)]
    return result["classScores"], np.asarray(result["confMatrix"])[np.ix_(ids, ids)]


def ours(truth: list[np.ndarray], prediction: list[np.ndarray]) -> tuple[dict, np.ndarray]:
    metric = ConfusionMatrix(19)
    to_train = np.full(256, 255, np.uint8)
    to_train[Cityscapes.server_ids] = np.arange(19)
    for t, p in zip(truth, prediction, strict=True):
        metric.update(
            torch.from_numpy(to_train[p]), torch.from_numpy(Cityscapes.ids[t].astype(np.uint8))
        )
    counts = metric.compute().numpy()
    return scores(counts, CLASSES), counts


def compare(truth, prediction, folder):
    classes, matrix = official(truth, prediction, folder)
    result, counts = ours(truth, prediction)
    assert np.array_equal(matrix, counts)
    for name, value in result.IoU.items():
        assert value is None if np.isnan(classes[name]) else abs(value - classes[name]) < 1e-12
    valid = [value for value in classes.values() if not np.isnan(value)]
    assert abs(result.mIoU - sum(valid) / len(valid)) < 1e-12


def test_equals_cityscapes_own_script_on_random_labels(tmp_path):
    rng = np.random.default_rng(0)
    truth = [rng.integers(0, 34, (40, 60), dtype=np.uint8) for _ in range(3)]
    prediction = [
        np.where(rng.random((40, 60)) < 0.6, t, rng.choice(Cityscapes.server_ids, (40, 60))).astype(
            np.uint8
        )
        for t in truth
    ]
    prediction = [
        np.where(np.isin(p, Cityscapes.server_ids), p, 7).astype(np.uint8) for p in prediction
    ]
    compare(truth, prediction, tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real Cityscapes masks")
def test_equals_cityscapes_own_script_on_real_labels(tmp_path):
    paths = sorted(REAL.glob("gtFine/train/*/*_labelIds.png"))[:3]
    truth = [np.asarray(Image.open(path)) for path in paths]
    # A prediction as a network makes them: the truth moved a little, void filled with road.
    prediction = [
        np.where(np.isin(p, Cityscapes.server_ids), p, 7).astype(np.uint8)
        for p in (np.roll(t, (5, 9), (0, 1)) for t in truth)
    ]
    compare(truth, prediction, tmp_path)


def test_absent_classes_do_not_count_and_predicted_ones_do():
    counts = np.zeros((4, 4), int)
    counts[0, 0], counts[0, 1], counts[1, 1] = 6, 2, 2
    result = scores(counts, list("abcd"))
    assert result.IoU == {"a": 0.75, "b": 0.5, "c": None, "d": None}
    assert result.mIoU == 0.625 and result.classes_counted == 2 and result.pixel_accuracy == 0.8
    counts[0, 2] = 8  # Predicted, never true: IoU 0, and it counts.
    assert (
        scores(counts, list("abcd")).IoU["c"] == 0
        and scores(counts, list("abcd")).classes_counted == 3
    )
    assert scores(np.zeros((2, 2), int), ["a", "b"]).mIoU == 0


def test_ignored_pixels_and_order_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 6, (5, 8, 9), generator=generator)
    masks[masks == 5] = 255
    predictions = torch.randint(0, 5, (5, 8, 9), generator=generator)
    one, many = ConfusionMatrix(5), ConfusionMatrix(5)
    one.update(predictions, masks)
    for i in reversed(range(5)):
        many.update(predictions[i], masks[i].byte())
    assert torch.equal(one.compute(), many.compute())
    assert one.compute().sum() == (masks != 255).sum()
    for t in range(5):
        for p in range(5):
            assert one.compute()[t, p] == ((masks == t) & (predictions == p)).sum()
