import itertools

import pytest
import torch

from cyclenet.config.schema import ProtocolConfig
from cyclenet.models.resize import Grid
from cyclenet.scoring import inference
from cyclenet.scoring.inference import merge, predict, predict_views, windows

IMAGE = torch.randint(0, 256, (1, 3, 50, 70), generator=torch.Generator().manual_seed(0)).float()


def probabilities(network, image, protocol, align_corners=False):
    # The networks here have any size of logits: a grid of single pixels pads nothing.
    grid = Grid(1, align_corners)
    """Join the strips of which `predict` takes the arg-max."""
    scales = predict_views(network, image, protocol, grid)
    rows, parts = zip(*merge(scales, tuple(image.shape[-2:]), protocol, grid), strict=True)
    assert [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])] and rows[
        -1
    ].stop == image.shape[-2]
    joined = torch.cat(parts, 2)
    assert torch.equal(predict(network, image, protocol, grid), joined.argmax(1).byte())
    single = len(scales) == len(scales[0].windows) == len(scales[0].windows[0].logits) == 1
    single = single and scales[0].size == tuple(image.shape[-2:])
    return joined.softmax(1) if single else joined


def pointwise(x):
    """A network without context: what it says of a pixel is the same in any window."""
    return torch.stack([x[:, 0] / 50, x[:, 1] / 70 - x[:, 2] / 90, -x[:, 0] / 60], 1)


def blurring(x):
    return torch.nn.functional.avg_pool2d(pointwise(x), 5, 1, 2)


def skewed(x):
    """Not the same from the left as from the right."""
    logits = blurring(x)
    logits[:, 0] += x[:, 1].roll(3, -1) / 40
    return logits


def sliding(window, stride, **kwargs):
    return ProtocolConfig(name="sliding", window=window, stride=stride, **kwargs)


@pytest.mark.parametrize(
    ("height", "width", "window", "stride"),
    itertools.product([20, 33], [20, 47], [20, 25, 60], [7, 20]),
)
def test_windows_cover_every_pixel_and_stay_inside(height, width, window, stride):
    covered = torch.zeros(height, width)
    for rows, columns in windows(height, width, window, stride):
        assert rows.stop <= height and columns.stop <= width
        assert rows.stop - rows.start == min(
            window, height
        ) and columns.stop - columns.start == min(window, width)
        covered[rows, columns] += 1
    assert covered.min() >= 1


def test_cityscapes_windows_are_the_papers_peers():
    """769 with stride 513 on 1024 x 2048: two rows, four columns, the last shifted back."""
    found = [(rows.start, columns.start) for rows, columns in windows(1024, 2048, 769, 513)]
    assert found == [(r, c) for r in (0, 255) for c in (0, 513, 1026, 1279)]


@pytest.mark.parametrize("average", ["probs", "logits"])
@pytest.mark.parametrize("network", [pointwise, blurring])
def test_one_window_over_all_is_the_whole_image(network, average):
    whole = probabilities(network, IMAGE, ProtocolConfig())
    torch.testing.assert_close(
        probabilities(network, IMAGE, sliding(100, 50, window_average=average)), whole
    )


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("scale", [0.5, 0.75, 1, 1.5, 2])
@pytest.mark.parametrize("stride", [8, 32])
def test_one_scale_alone_lies_over_the_image_as_beside_others(stride, scale, corners):
    grid = Grid(stride, corners)

    def network(x):  # Logits on the grid: where a cell's middle lies, to the right and downwards.
        height, width = grid.padded(x.shape[-2:])
        rows, columns = grid.cells(x.shape[-2:])
        start = 0 if corners else stride / 2
        down = (start + stride * torch.arange(rows)) / x.shape[-2]
        right = (start + stride * torch.arange(columns)) / x.shape[-1]
        assert down[-1] * x.shape[-2] <= height and right[-1] * x.shape[-1] <= width
        lies = torch.stack([down[:, None] - 0.5 + 0 * right, right - 0.5 + 0 * down[:, None]])
        return torch.cat([lies, torch.zeros_like(lies[:1])])[None]

    image = torch.zeros(1, 3, 150, 215)
    found = predict(network, image, ProtocolConfig(scales=[scale]), grid)
    twice = predict(network, image, ProtocolConfig(scales=[scale, scale]), grid)
    assert (found != twice).float().mean() < 0.005  # Ties.
    # The network says where a pixel lies, so the labels are known.
    down = ((torch.arange(150) + 0.5) / 150 - 0.5)[:, None]
    right = (torch.arange(215) + 0.5) / 215 - 0.5
    truth = torch.stack([down + 0 * right, right + 0 * down, 0 * (down + right)]).argmax(0)
    assert (found[0] != truth).float().mean() < 0.05


@pytest.mark.parametrize("average", ["probs", "logits"])
def test_windows_change_nothing_for_a_pointwise_network(average):
    whole = probabilities(pointwise, IMAGE, ProtocolConfig())
    torch.testing.assert_close(
        probabilities(pointwise, IMAGE, sliding(20, 13, window_average=average)), whole
    )
    assert not torch.allclose(
        probabilities(blurring, IMAGE, sliding(20, 13)),
        probabilities(blurring, IMAGE, ProtocolConfig()),
    )


def test_averages_of_windows_differ_where_they_overlap():
    a, b = (
        probabilities(blurring, IMAGE, sliding(20, 7, window_average=average))
        for average in ("probs", "logits")
    )
    assert not torch.allclose(a, b)


def test_flip_of_a_symmetric_network_is_the_identity():
    whole = probabilities(blurring, IMAGE, ProtocolConfig())
    torch.testing.assert_close(probabilities(blurring, IMAGE, ProtocolConfig(flip=True)), whole)


def test_scales_and_flips_average_probabilities():
    def at(scale, flip):
        size = (round(50 * scale), round(70 * scale))
        view = torch.nn.functional.interpolate(IMAGE, size, mode="bilinear")
        out = skewed(view.flip(-1)).softmax(1).flip(-1) if flip else skewed(view).softmax(1)
        return torch.nn.functional.interpolate(out, (50, 70), mode="bilinear")

    by_hand = sum(at(scale, flip) for scale in (0.5, 1.25) for flip in (False, True)) / 4
    found = probabilities(skewed, IMAGE, ProtocolConfig(scales=[0.5, 1.25], flip=True))
    torch.testing.assert_close(found, by_hand)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 50, 70))


def test_flipping_twice_is_the_identity():
    """With flips, the mirrored image gives the mirrored prediction, whatever the network."""

    for changes in ({}, {"scales": [0.5, 1.25]}, {"window": 50, "stride": 20}):
        protocol = ProtocolConfig(flip=True, **changes)
        found, mirrored = (
            probabilities(skewed, IMAGE, protocol),
            probabilities(skewed, IMAGE.flip(-1), protocol),
        )
        torch.testing.assert_close(mirrored.flip(-1), found)
    assert not torch.allclose(
        probabilities(skewed, IMAGE.flip(-1), ProtocolConfig()).flip(-1),
        probabilities(skewed, IMAGE, ProtocolConfig()),
    )


def test_windows_are_mirrored_one_by_one():
    """As semseg does: a network that looks at its window's left edge sees that of the mirrored
    window too.
    """

    def edge(x):
        return pointwise(x) + x[..., :1] / 30

    (rows, _), *_ = windows(50, 70, 50, 20)
    total, count = torch.zeros(1, 3, 50, 70), torch.zeros(50, 70)
    for _, columns in windows(50, 70, 50, 20):
        view = IMAGE[..., rows, columns]
        total[..., rows, columns] += (
            edge(view).softmax(1) + edge(view.flip(-1)).softmax(1).flip(-1)
        ) / 2
        count[rows, columns] += 1
    torch.testing.assert_close(
        probabilities(edge, IMAGE, sliding(50, 20, flip=True)), total / count
    )


@pytest.mark.parametrize(("pixels", "most"), [(0, 1), (3 * 32 * 32, 3)])
def test_the_network_sees_no_more_than_so_many_pixels_at_a_time(pixels, most, monkeypatch):
    """Memory does not grow with scales, flips or windows; together they are predicted as one by
    one.
    """
    sizes = []

    def spy(x):
        sizes.append(tuple(x.shape))
        return blurring(x)

    protocol = ProtocolConfig(scales=[0.5, 1, 1.5], flip=True, window=32, stride=32)
    alone = probabilities(blurring, IMAGE, protocol)
    monkeypatch.setitem(inference.PIXELS_AT_ONCE, "cpu", pixels)
    assert torch.equal(probabilities(spy, IMAGE, protocol), alone)
    counts = [size[0] for size in sizes[: len(sizes) // 2]]  # `probabilities` runs it twice.
    assert max(counts) == most and sum(counts) == 2 * (1 * 2 + 2 * 3 + 3 * 4)
    assert max(size[0] * size[2] * size[3] for size in sizes) <= max(pixels, 32 * 32)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("average", ["probs", "logits"])
@pytest.mark.parametrize(("window", "stride"), [(0, 0), (40, 24)])
def test_strips_are_the_full_size_maps_and_their_labels(window, stride, average, align_corners):
    """Logits at 1/4, two steps of resizing, three scales, mirrored: as written down with whole
    maps.
    """

    def quarter(x):
        return 3 * torch.nn.functional.avg_pool2d(skewed(x), 4, ceil_mode=True)

    def resized(x, size):
        return torch.nn.functional.interpolate(
            x, size, mode="bilinear", align_corners=align_corners
        )

    image = torch.rand(2, 3, 75, 90, generator=torch.Generator().manual_seed(1)) * 255
    protocol = ProtocolConfig(
        scales=[0.5, 1, 1.25], flip=True, window=window, stride=stride, window_average=average
    )
    total = torch.zeros(2, 3, 75, 90)
    for scale in protocol.scales:
        size = (round(75 * scale), round(90 * scale))
        view = resized(image, size)
        sums, count = torch.zeros(2, 3, *size), torch.zeros(size)
        for rows, columns in windows(*size, window or 200, stride or 1):
            crop = view[..., rows, columns]
            logits = [resized(quarter(c), crop.shape[-2:]) for c in (crop, crop.flip(-1))]
            parts = logits if average == "logits" else [part.softmax(1) for part in logits]
            sums[..., rows, columns] += (parts[0] + parts[1].flip(-1)) / 2
            count[rows, columns] += 1
        mean = sums / count
        total += resized(mean.softmax(1) if average == "logits" else mean, (75, 90)) / 3
    found = probabilities(quarter, image, protocol, align_corners)
    torch.testing.assert_close(found, total, rtol=1e-5, atol=1e-6)
    top = total.topk(2, 1).values
    clear = (top[:, 0] - top[:, 1]) > 1e-5
    assert clear.float().mean() > 0.99
    assert torch.equal(
        predict(quarter, image, protocol, Grid(1, align_corners))[clear],
        total.argmax(1).byte()[clear],
    )


def test_the_description_tells_what_was_done():
    assert ProtocolConfig().describe() == "whole (whole image; scale 1; no flip)"
    changed = ProtocolConfig(name="whole", window=64, stride=32, scales=[0.5, 1], flip=True)
    assert changed.describe() == "whole (windows 64/32, probs; scale 0.5/1; flip)"
    assert (
        ProtocolConfig(flip=True, window_average="logits").describe()
        == "whole (whole image, logits; scale 1; flip)"
    )


@pytest.mark.parametrize("stored", ["whole", "sliding", "paper_ms", "semseg_ss", "mmseg_ms_flip"])
@pytest.mark.parametrize("chosen", ["whole", "sliding", "paper_ms", "semseg_ss", "mmseg_ms_flip"])
def test_a_preset_replaces_the_protocol_that_a_checkpoint_knows(stored, chosen):
    from hydra.core.config_store import ConfigStore

    from cyclenet.commands.cli import compose_config

    words = ["ckpt_path=a", "input=b", "output=c", f"protocol={chosen}"]
    known = compose_config("train", [f"protocol={stored}"]).protocol
    ConfigStore.instance().store(name="checkpoint", node={"protocol": vars(known)})
    assert (
        compose_config("predict", words).protocol
        == compose_config("train", [f"protocol={chosen}"]).protocol
    )
    assert compose_config("predict", words[:3]).protocol == known
