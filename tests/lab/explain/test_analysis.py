"""The numbers over a split, against pairs that are looked at one by one."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyclenet.files import parse_json
from cyclenet.lab.explain.analysis import TOPICS, _interval, _ratio_interval, analyse
from cyclenet.lab.explain.features import Explained
from cyclenet.lab.explain.geometry import spread
from cyclenet.lab.explain.measure import bin_names, edge_and_middle
from cyclenet.lab.explain.results import SplitAnalysis
from cyclenet.lab.explain.text import _more_alike, describe_analysis
from cyclenet.labels import IGNORE
from cyclenet.scoring.boundary import label_distance
from cyclenet.scoring.metrics import mean_iou
from made import CLASSES, PALETTE, task_of


class Stripes:
    """Two images of three bands, with some pixels ignored."""

    classes, palette = CLASSES, np.array(PALETTE, np.uint8)

    def __len__(self):
        return 2

    def name(self, index):
        return f"image {index}"

    def image(self, index):
        return np.random.default_rng(index).integers(0, 256, (64, 96, 3), dtype=np.uint8)

    def mask(self, index):
        mask = np.zeros((64, 96), np.uint8)
        mask[20:], mask[44:] = 1 + index, 3
        mask[:, 90:] = IGNORE
        return mask


@pytest.fixture(scope="module")
def result():
    return analyse(task_of(), Stripes(), list(TOPICS), fields=2)


def test_similarity_is_the_mean_of_all_pairs(result):
    task, source = task_of(), Stripes()
    means = []
    for index in range(2):
        seen = Explained(task, source.image(index))
        unit = F.normalize(torch.cat(seen.passes[1], 1)[0].flatten(1).T.double(), dim=1)
        height, width = seen.levels[3].shape[-2:]
        labels = source.mask(index)[4::8, 4::8].ravel()
        assert len(labels) == height * width
        cosines = (unit @ unit.T).numpy()
        own = ~np.eye(len(labels), dtype=bool)
        kinds = [c for c in range(4) if (labels == c).any()]
        sets = {
            (a, b): cosines[(labels == a)[:, None] & (labels == b)[None] & own].mean()
            for a in kinds
            for b in kinds
        }
        means.append(
            [np.mean([sets[a, b] for a, b in sets if (a == b) == same]) for same in (True, False)]
        )
    found = result.similarity.raw
    np.testing.assert_allclose([found.within[1], found.between[1]], np.mean(means, 0), rtol=1e-9)
    assert found.change["gap"] is None  # Of two images.
    layers = result.similarity.layers
    assert len(layers) == 2 and len(layers[0]) == 3 and layers[0][0] != layers[1][0]


def test_feedback_counts_the_parts_predictions(result):
    task, source = task_of(), Stripes()
    counts = np.zeros((4, 3), int)
    right = np.zeros(6)
    total = np.zeros(6)
    for index in range(2):
        predicted, truth = Explained(task, source.image(index)).labels[0], source.mask(index)
        for row, column in np.argwhere(truth != IGNORE):
            counts[truth[row, column], 1] += 1
            counts[predicted[row, column], 2] += 1
            counts[truth[row, column], 0] += truth[row, column] == predicted[row, column]
        distance = label_distance(truth)
        for number, (low, high) in enumerate(
            [(0, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, np.inf)]
        ):
            chosen = (distance > low) & (distance <= high) & (truth != IGNORE)
            right[number] += (predicted[chosen] == truth[chosen]).sum()
            total[number] += chosen.sum()
    found = result.feedback
    assert abs(found.mIoU[0] - mean_iou(counts)) < 1e-12
    expected = [r / t if t else None for r, t in zip(right, total, strict=True)]
    assert found.accuracy[0] == pytest.approx(expected)
    assert found.pixels == total.tolist() and len(bin_names()) == 6


def test_offsets_are_averaged_by_distance(result):
    task, source = task_of(), Stripes()
    lengths = [[] for _ in range(6)]
    for index in range(2):
        found, distance = (
            Explained(task, source.image(index)).offsets,
            label_distance(source.mask(index)),
        )
        for row in range(16):
            for column in range(24):
                y, x = 4 * row + 2, 4 * column + 2
                if source.mask(index)[y, x] != IGNORE:
                    b = next(
                        i
                        for i, top in enumerate([2, 4, 8, 16, 32, np.inf])
                        if distance[y, x] <= top
                    )
                    lengths[b].append(np.hypot(*found.shift[row, column, 0].T).mean())
    for value, expected in zip(result.offsets.length, lengths, strict=True):
        assert value == (pytest.approx(np.mean(expected)) if expected else None)


def test_receptive_fields_are_averaged_by_place_and_part(result):
    found = result.receptive_field
    assert len(found.points) == 2 * 2 * 2  # Images, places, parts.
    chosen = [p for p in found.points if p.where == "edge" and p.part == "PartII"]
    assert found.edge[1]["foreign"] == pytest.approx(np.mean([p.foreign for p in chosen]))
    seen = Explained(task_of(), Stripes().image(1))
    field = seen.receptive_field(chosen[1].x, chosen[1].y, draws=4)[1]
    measured = spread(field, chosen[1].x, chosen[1].y, Stripes().mask(1))
    assert measured["radius_50"] == chosen[1].radius_50


def test_an_interval_holds_the_mean_and_is_as_wide_as_the_spread():
    values = np.array([*range(100), np.nan], float)
    value, low, high = _interval(values)
    assert value == 49.5 and abs((high - low) / 2 - 1.96 * values[:100].std() / 10) < 0.6
    assert _interval(values[:4]) is None and _interval(np.full(9, np.nan)) is None
    words = [
        _more_alike(change) for change in ([0.2, 0.1, 0.3], [-0.2, -0.3, -0.1], [0, -0.1, 0.1])
    ]
    assert words == ["more alike", "less alike", "as alike as one can tell"]
    assert "perhaps" in _more_alike(None)


def test_too_few_images_give_no_verdict():
    class One(Stripes):
        def __len__(self):
            return 1

    found = analyse(task_of(), One(), list(TOPICS), fields=1)
    assert found.similarity.probe is None and found.feedback.gain is None
    text = describe_analysis(found)
    assert "perhaps more or less alike" in text and "there is none" in text and "nan" not in text
    json.dumps(asdict(found), allow_nan=False)


def test_the_probe_finds_what_is_there():
    """Features that are the class itself are labelled without an error; features that are noise are
    not.
    """
    from cyclenet.lab.explain import analysis

    class Seen:
        def __init__(self, task, image):
            self.model, self.net = task, task.net
            mask = image[:, :, 0]
            perfect = (
                F.one_hot(torch.from_numpy(mask[4::8, 4::8].astype(int)).clamp(max=4), 5)
                .permute(2, 0, 1)[None]
                .float()
            )
            noise = torch.randn(
                1, 5, *perfect.shape[2:], generator=torch.Generator().manual_seed(0)
            )
            self.levels, self.passes = [perfect] * 4, [[noise], [perfect]]

    class Source(Stripes):
        def image(self, index):
            return np.repeat(self.mask(0)[..., None], 3, 2)

        def mask(self, index):
            return super().mask(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "Explained", Seen)
        found = analyse(task_of(), Source(), ["similarity"]).similarity
    assert found.probe.mIoU[1] == 1 > found.probe.mIoU[0] + 0.3
    assert found.centred.within[1] > 0.99 > found.centred.within[0]


def test_points_for_receptive_fields():
    mask = Stripes().mask(0)
    points = edge_and_middle(mask, label_distance(mask), "a")
    (x, y), (ex, ey) = points["middle"], points["edge"]
    assert mask[y, x] == mask[ey, ex] and label_distance(mask)[ey, ex] <= 2
    inner = label_distance(mask, outside=True)
    assert inner[y, x] == inner[mask != IGNORE].max() and 0 < x < 89 and 0 < y < 63
    assert edge_and_middle(mask, label_distance(mask), "a") == points
    assert (
        edge_and_middle(np.full((8, 8), IGNORE, np.uint8), np.full((8, 8), np.inf, np.float32), "a")
        == {}
    )


def test_a_description_has_every_topic_and_json_keeps_the_rest(result):
    text = describe_analysis(result)
    for heading in (
        "Prediction from each part",
        "Cosine similarity",
        "ADC by distance",
        "Effective receptive field",
    ):
        assert heading in text
    assert (
        "PartII minus PartI" in text
        and parse_json(SplitAnalysis, json.dumps(asdict(result))) == result
    )
    lone, what = (
        task_of(context="none", decoder="none"),
        ["feedback", "similarity", "receptive_field"],
    )
    assert "| context |" in describe_analysis(analyse(lone, Stripes(), what, fields=1))
    with pytest.raises(ValueError, match="adc"):
        analyse(lone, Stripes(), list(TOPICS))


def test_other_classes_are_refused():
    source = Stripes()
    source.classes = ["a", "b"]
    with pytest.raises(ValueError, match="other classes"):
        analyse(task_of(), source, ["feedback"])


def test_a_share_that_one_image_has_gets_no_interval():
    part, whole = np.array([50.0, 0, 0, 0, 0, 0]), np.array([100.0, 0, 0, 0, 0, 0])
    assert _ratio_interval(part, whole) is None
    many = np.full(12, 100.0)
    share, low, high = _ratio_interval(np.append(many / 2, 0), np.append(many, 0))
    assert share == low == high == 0.5  # The last image says nothing.
