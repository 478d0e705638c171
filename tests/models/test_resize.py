"""The one geometry: features cover the padded image, whatever its size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import tiny_model
from cyclenet.config.schema import LossConfig, ProtocolConfig
from cyclenet.models.cyclenet import build_model
from cyclenet.models.resize import Grid, resize, resize_rows
from cyclenet.scoring.inference import predict
from cyclenet.training.losses import SegmentationLoss

GRIDS = st.builds(Grid, st.sampled_from([4, 8, 16, 32]), st.booleans())


@given(GRIDS, st.integers(1, 3000))
@settings(deadline=None)
def test_the_padded_side_is_the_next_of_the_grid(grid, side):
    padded = grid.padded_side(side)
    assert side <= padded < side + grid.stride
    assert (padded - grid.align_corners) % grid.stride == 0
    assert grid.padded_side(padded) == padded


@given(GRIDS, st.integers(1, 70), st.integers(1, 70), st.integers(0, 40))
@settings(deadline=None, max_examples=60)
def test_a_pixel_does_not_move_when_rows_and_columns_are_cut_off(grid, height, width, more):
    """Features that hold their own position give it back at every pixel, in any cut."""
    tall, wide = grid.padded((height + more, width + more))
    cells = [-(-side // grid.stride) for side in (tall, wide)]
    offset = 0 if grid.align_corners else (grid.stride - 1) / 2
    places = [grid.stride * torch.arange(n, dtype=torch.float64) + offset for n in cells]
    features = torch.stack(torch.meshgrid(*places, indexing="ij"))[None]
    whole = resize_rows(features, (height + more, width + more), slice(0, height + more), grid)
    small = [-(-side // grid.stride) for side in grid.padded((height, width))]
    part = features[..., : small[0], : small[1]]
    cut = resize_rows(part, (height, width), slice(0, height), grid)
    assert cut.shape[-2:] == (height, width)
    # Where the cut's last feature ends, only the border differs: there positions are clamped.
    inner = slice(0, max(height - grid.stride, 0)), slice(0, max(width - grid.stride, 0))
    torch.testing.assert_close(cut[..., *inner], whole[..., *inner])


def test_rows_are_those_of_the_whole_padded_map():
    x, grid = torch.randn(2, 3, 7, 9), Grid(8, False)
    whole = resize(x, grid.padded((50, 66)), False)[..., :50, :66]
    for rows in (slice(0, 50), slice(0, 1), slice(17, 42), slice(49, 50)):
        torch.testing.assert_close(resize_rows(x, (50, 66), rows, grid), whole[..., rows, :])


def test_training_can_use_what_inference_kept():
    size = (51, 67)  # Of no other test, so that the weights are first made here.
    with torch.inference_mode():
        resize_rows(torch.zeros(1, 1, 9, 10), size, slice(0, 24), Grid(1, False))
    x = torch.zeros(1, 1, 9, 10, requires_grad=True)
    resize_rows(x, size, slice(0, 24), Grid(1, False)).sum().backward()
    assert x.grad is not None and x.grad.sum() == pytest.approx(24 * 67)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("stride", [8, 16])
def test_the_network_predicts_a_cut_as_it_predicts_the_padded_cut(stride, align_corners):
    torch.manual_seed(0)
    cfg = tiny_model(output_stride=stride, align_corners=align_corners)
    net = build_model(cfg, 5).eval()
    torch.nn.init.normal_(net.classifier[-1].weight)
    image = torch.randint(0, 256, (1, 3, 97, 131)).float()
    height, width = net.grid.padded((97, 131))
    padded = net.mean[None].expand(1, 3, height, width).clone()
    padded[..., :97, :131] = image
    labels = [
        predict(lambda view: net(view)[0], each, ProtocolConfig(), net.grid)
        for each in (image, padded)
    ]
    assert torch.equal(labels[0], labels[1][:, :97, :131])
    assert len(labels[0].unique()) > 1
    mask = torch.randint(0, 5, (1, 97, 131), dtype=torch.uint8)
    wide = torch.full((1, height, width), 255, dtype=torch.uint8)
    wide[:, :97, :131] = mask
    loss = SegmentationLoss(LossConfig(), 5, net.grid)
    torch.testing.assert_close(loss(net(image)[0], mask), loss(net(padded)[0], wide))


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_mirrored_image_of_an_odd_width_has_the_mirrored_labels(align_corners):
    """A network of single pixels says the same of a pixel in any view."""
    grid = Grid(8, align_corners)
    image = torch.rand(1, 3, 40, 61) * 255

    def network(view):
        return grid.pad(torch.stack([view[:, 0], view[:, 1], view[:, 2]], 1))

    plain, flipped = (
        predict(network, image, ProtocolConfig(flip=flip), grid) for flip in (False, True)
    )
    assert torch.equal(plain, flipped) and torch.equal(plain, image.argmax(1).byte())


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 300), (33, 7)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_any_size_is_predicted(size, align_corners):
    torch.manual_seed(0)
    net = build_model(tiny_model(align_corners=align_corners), 4).eval()
    protocol = ProtocolConfig(scales=[0.25, 1, 1.5], flip=True)
    image = torch.rand(1, 3, *size) * 255
    labels = predict(lambda view: net(view)[0], image, protocol, net.grid)
    assert labels.shape == (1, *size)
