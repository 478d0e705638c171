"""Similarity, Grad-CAM, offsets and receptive fields, against definitions written out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyclenet.lab.explain.features import Explained
from cyclenet.lab.explain.geometry import at_cells, components, spread
from cyclenet.lab.explain.image_figures import changes
from cyclenet.models.resize import resize
from made import model_of, task_of


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)


def test_the_last_part_is_the_networks_own_prediction(image):
    task = task_of(feedback=2)
    seen = Explained(task, image)
    assert seen.parts == ["PartI", "PartII, pass 1", "PartII, pass 2"]
    assert seen.layers == ["rate 1", "rate 2", "rate 3", "concatenation"]
    assert np.array_equal(seen.labels[-1], model_of(task).labels(seen.tensor)[0].numpy())
    assert not np.array_equal(seen.labels[0], seen.labels[-1])
    logits = resize(task.net(seen.tensor)[0], seen.size, False)
    np.testing.assert_allclose(
        seen.probabilities(50, 20)[-1], logits[0, :, 20, 50].softmax(0).detach(), atol=1e-6
    )


def test_grad_cam_is_captums(image):
    captum = pytest.importorskip("captum.attr")
    seen = Explained(task_of(context="aspp"), image)

    class Rest(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.context, self.net = seen.net.context, seen.net

        def forward(self, last):
            logits = self.net.head(self.context(last), seen.levels)
            return resize(logits, seen.size, False)[:, :, 20, 50]

    rest = Rest()
    cam = captum.LayerGradCam(rest, rest.context)
    theirs = cam.attribute(seen.levels[3].clone().requires_grad_(), 2, relu_attributions=True)
    np.testing.assert_allclose(seen.grad_cam(50, 20, 2)[0], theirs[0, 0].detach(), atol=1e-6)


@pytest.mark.parametrize("context", ["none", "aspp", "denseaspp"])
def test_other_contexts_have_one_part(image, context):
    seen = Explained(task_of(context=context, decoder="none"), image)
    assert len(seen.parts) == 1 and seen.similarity(5, 5).shape[:2] == (1, len(seen.layers))
    assert seen.grad_cam(5, 5).shape[0] == 1
    with pytest.raises(ValueError, match="adc"):
        _ = seen.offsets


def test_similarity_is_the_cosine(image):
    seen = Explained(task_of(), image)
    maps = seen.similarity(50, 20)
    row, column = 20 * 9 // 72, 50 * 12 // 96
    both = torch.cat(seen.passes[1], 1)[0]
    by_hand = F.cosine_similarity(both[:, row, column], both[:, 4, 7], 0)
    assert abs(maps[1, -1, 4, 7] - by_hand) < 1e-5 and abs(maps[1, -1, row, column] - 1) < 1e-5
    one = seen.passes[0][2][0]
    assert abs(maps[0, 2, 4, 7] - F.cosine_similarity(one[:, row, column], one[:, 4, 7], 0)) < 1e-5


def test_grad_cam_is_its_definition(image):
    task = task_of(feedback=1)
    seen = Explained(task, image)
    x, y, target = 50, 20, 2
    maps = seen.grad_cam(x, y, target)
    context, net = task.net.context, task.net
    x0 = context.reduce(seen.levels[3])
    first = [part.clone().requires_grad_() for part in context.part1(x0)]
    # A part is seen as its concatenation: what a layer gave to later ones of its pass does not
    # count.
    second = context.part2(first, 1)
    joined = torch.cat(second, 1)
    second = joined.split([part.shape[1] for part in second], 1)
    logits = resize(net.head(context.fuse(x0, list(second)), seen.levels), seen.size, False)
    score = logits[0, target, y, x]
    # PartII does not read the first layer of PartI (eq. 3).
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    before = torch.cat(torch.autograd.grad(score, first, **options), 1)
    after = torch.autograd.grad(score, joined, **options)[0]
    for k, (activation, gradient) in enumerate([(torch.cat(first, 1), before), (joined, after)]):
        by_hand = (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu()[0].detach()
        np.testing.assert_allclose(
            maps[k], by_hand, rtol=1e-3, atol=1e-3 * float(by_hand.max()) + 1e-12
        )
    assert maps[1].max() > 0
    own = int(seen.probabilities(x, y)[-1].argmax())
    assert np.array_equal(seen.grad_cam(x, y), seen.grad_cam(x, y, own))


def test_offsets_are_in_pixels_of_the_image(image):
    task = task_of()
    last = task.net.decoder.offset_conv[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():  # Of every tap dy = 2, dx = -3 pixels of the 1/4 features.
        last.bias[:18] = torch.tensor([2.0, -3.0]).repeat(9)
        last.bias[18:] = 0.0
    found = Explained(task, image).offsets
    np.testing.assert_allclose(
        found.shift, np.broadcast_to([-12.0, 8.0], found.shift.shape), atol=1e-5
    )
    np.testing.assert_allclose(found.modulation, 0.5, atol=1e-6)
    # Row 5, column 7: the middle tap of a plain convolution lies at pixels 4 * 7 + 1.5, 4 * 5 +
    # 1.5.
    np.testing.assert_allclose(found.positions[5, 7, 0, 4], [29.5 - 12, 21.5 + 8], atol=1e-4)
    np.testing.assert_allclose(
        found.positions[5, 7, 0, 0], [29.5 - 12 - 4, 21.5 + 8 - 4], atol=1e-4
    )
    assert found.upsampled.shape == found.aligned.shape and not np.allclose(
        found.upsampled, found.aligned
    )


@pytest.mark.parametrize(
    ("align_corners", "left", "right"), [(False, 1.5, 93.5), (True, 0.0, 96.0)]
)
def test_features_lie_where_the_network_puts_them(image, align_corners, left, right):
    """1/4 features of 96 pixels: 24 cells; with aligned corners 25, of which the last lies in the
    padding, at pixel 96.
    """
    task = task_of(align_corners=align_corners, offset_groups=2, mask_scale=0)
    torch.nn.init.zeros_(task.net.decoder.offset_conv[-1].weight)
    seen = Explained(task, image)
    found = seen.offsets
    shape = (18 + align_corners, 24 + align_corners)
    assert found.modulation is None and found.positions.shape == (*shape, 2, 9, 2)
    np.testing.assert_allclose(found.positions[0, [0, -1], 1, 4, 0], [left, right], atol=1e-4)
    for x in range(96):
        row, column = seen.cell(x, 40, shape)
        nearest = np.abs(found.positions[:, :, 0, 4] - [x, 40]).sum(-1)
        assert nearest[row, column] <= nearest.min() + 1e-3
    values = np.arange(72 * 96).reshape(72, 96)
    labels = at_cells(values, shape, task.net.grid)
    assert labels.shape == (18, 24)
    picked = np.stack([labels % 96, labels // 96], -1)
    assert np.abs(picked - found.positions[:18, :24, 0, 4]).max() <= 0.5 + 1e-3


def test_what_changed_between_two_predictions():
    first, last = np.array([[0, 1, 1, 0, 2]]), np.array([[0, 0, 1, 1, 2]])
    truth = np.array([[0, 0, 0, 0, 255]])
    kinds, counted = changes(first, last, truth)
    assert kinds[counted].tolist() == [0, 1, 3, 2] and counted.tolist() == [[True] * 4 + [False]]
    assert changes(first, last, None)[0].tolist() == [[0, 1, 0, 1, 0]]


def test_a_receptive_field_is_the_norm_of_the_jacobian(image):
    task = task_of()
    seen = Explained(task, image[:32, :32])
    fields = seen.receptive_field(20, 12, draws=100)
    row, column = seen.cell(20, 12, seen.levels[3].shape[-2:])

    def feature(picture):
        outputs = task.net.context.part1(task.net.context.reduce(task.net.features(picture)[-1]))
        return torch.cat(outputs, 1)[0, :, row, column]

    jacobian = torch.autograd.functional.jacobian(
        feature, seen.tensor.float()
    )  # (channels, 1, 3, H, W)
    exact = (jacobian**2).sum((0, 1, 2)).sqrt()
    exact = (exact / exact.sum()).numpy()
    assert np.abs(fields[0] - exact).sum() < 0.15
    assert np.array_equal(seen.receptive_field(20, 12, 2), seen.receptive_field(20, 12, 2))


def test_spread_of_a_known_field():
    field = np.zeros((41, 41))
    field[20, 20], field[20, 30], field[20, 40] = 0.5, 0.45, 0.05
    labels = np.zeros((41, 41), np.uint8)
    labels[:, 35:] = 1
    labels[:, 30] = 255
    found = spread(field, 20, 20, labels)
    assert found["radius_50"] == 0 and found["radius_90"] == 10
    assert abs(found["foreign"] - 0.05 / 0.55) < 1e-12


def test_components_are_of_fixed_sign_and_keep_differences():
    features = np.zeros((5, 6, 8), np.float32)
    features[2, :, 4:] = 3
    shown = components(features)
    assert shown.shape == (6, 8, 3) and shown[0, 0, 0] == 0 and shown[0, 7, 0] == 1
    assert components(features[:2]).shape == (6, 8, 3)


def test_a_point_outside_is_refused(image):
    with pytest.raises(ValueError, match=r"96 x 72"):
        Explained(task_of(), image).similarity(96, 3)
