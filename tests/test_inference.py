import itertools

import pytest
import torch

from cyclenet.config import ProtocolConfig
from cyclenet.inference import predict, windows

IMAGE = torch.randint(0, 256, (1, 3, 50, 70), generator=torch.Generator().manual_seed(0)).float()


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


@pytest.mark.parametrize(("height", "width", "window", "stride"), itertools.product([20, 33], [20, 47], [20, 25, 60], [7, 20]))
def test_windows_cover_every_pixel_and_stay_inside(height, width, window, stride):
    covered = torch.zeros(height, width)
    for rows, columns in windows(height, width, window, stride):
        assert rows.stop <= height and columns.stop <= width
        assert rows.stop - rows.start == min(window, height) and columns.stop - columns.start == min(window, width)
        covered[rows, columns] += 1
    assert covered.min() >= 1


def test_cityscapes_windows_are_the_papers_peers():
    """769 with stride 513 on 1024 x 2048: two rows, four columns, the last shifted back."""
    found = [(rows.start, columns.start) for rows, columns in windows(1024, 2048, 769, 513)]
    assert found == [(r, c) for r in (0, 255) for c in (0, 513, 1026, 1279)]


@pytest.mark.parametrize("average", ["probs", "logits"])
@pytest.mark.parametrize("network", [pointwise, blurring])
def test_one_window_over_all_is_the_whole_image(network, average):
    whole = predict(network, IMAGE, ProtocolConfig())
    torch.testing.assert_close(predict(network, IMAGE, sliding(100, 50, window_average=average)), whole)


@pytest.mark.parametrize("average", ["probs", "logits"])
def test_windows_change_nothing_for_a_pointwise_network(average):
    whole = predict(pointwise, IMAGE, ProtocolConfig())
    torch.testing.assert_close(predict(pointwise, IMAGE, sliding(20, 13, window_average=average)), whole)
    assert not torch.allclose(predict(blurring, IMAGE, sliding(20, 13)), predict(blurring, IMAGE, ProtocolConfig()))


def test_averages_of_windows_differ_where_they_overlap():
    a, b = (predict(blurring, IMAGE, sliding(20, 7, window_average=average)) for average in ("probs", "logits"))
    assert not torch.allclose(a, b)


def test_flip_of_a_symmetric_network_is_the_identity():
    whole = predict(blurring, IMAGE, ProtocolConfig())
    torch.testing.assert_close(predict(blurring, IMAGE, ProtocolConfig(flip=True)), whole)


def test_scales_and_flips_average_probabilities():
    def at(scale, flip):
        size = (round(50 * scale), round(70 * scale))
        view = torch.nn.functional.interpolate(IMAGE, size, mode="bilinear")
        out = skewed(view.flip(-1)).softmax(1).flip(-1) if flip else skewed(view).softmax(1)
        return torch.nn.functional.interpolate(out, (50, 70), mode="bilinear")

    by_hand = sum(at(scale, flip) for scale in (0.5, 1.25) for flip in (False, True)) / 4
    found = predict(skewed, IMAGE, ProtocolConfig(scales=[0.5, 1.25], flip=True))
    torch.testing.assert_close(found, by_hand)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 50, 70))


def test_flipping_twice_is_the_identity():
    """With flips averaged, the mirrored image gives the mirrored prediction, whatever the network."""

    for changes in ({}, {"scales": [0.5, 1.25]}, {"window": 50, "stride": 20}):
        protocol = ProtocolConfig(flip=True, **changes)
        found, mirrored = predict(skewed, IMAGE, protocol), predict(skewed, IMAGE.flip(-1), protocol)
        torch.testing.assert_close(mirrored.flip(-1), found)
    assert not torch.allclose(
        predict(skewed, IMAGE.flip(-1), ProtocolConfig()).flip(-1), predict(skewed, IMAGE, ProtocolConfig())
    )


def test_windows_are_mirrored_one_by_one():
    """As semseg does: a network that looks at its window's left edge sees that of the mirrored window too."""

    def edge(x):
        return pointwise(x) + x[..., :1] / 30

    (rows, _), *_ = windows(50, 70, 50, 20)
    total, count = torch.zeros(1, 3, 50, 70), torch.zeros(50, 70)
    for _, columns in windows(50, 70, 50, 20):
        view = IMAGE[..., rows, columns]
        total[..., rows, columns] += (edge(view).softmax(1) + edge(view.flip(-1)).softmax(1).flip(-1)) / 2
        count[rows, columns] += 1
    torch.testing.assert_close(predict(edge, IMAGE, sliding(50, 20, flip=True)), total / count)


def test_the_network_sees_one_view_at_a_time():
    """Memory does not grow with scales, flips or windows: no view is larger than the largest scale's window, nor batched."""
    sizes = []

    def spy(x):
        sizes.append(tuple(x.shape))
        return pointwise(x)

    predict(spy, IMAGE, ProtocolConfig(scales=[0.5, 1, 1.5], flip=True, window=32, stride=32))
    assert {size[0] for size in sizes} == {1} and max(size[2] * size[3] for size in sizes) == 32 * 32
    assert len(sizes) == 2 * (2 * 1 * 2 // 2 + 2 * 3 + 3 * 4)


def test_the_description_tells_what_was_done():
    assert ProtocolConfig().describe() == "whole (whole image; scale 1; no flip)"
    changed = ProtocolConfig(name="whole", window=64, stride=32, scales=[0.5, 1], flip=True)
    assert changed.describe() == "whole (windows 64/32, probs; scale 0.5/1; flip)"
    assert ProtocolConfig(flip=True, window_average="logits").describe() == "whole (whole image, logits; scale 1; flip)"


@pytest.mark.parametrize("stored", ["whole", "sliding", "paper_ms", "semseg_ss", "mmseg_ms_flip"])
@pytest.mark.parametrize("chosen", ["whole", "sliding", "paper_ms", "semseg_ss", "mmseg_ms_flip"])
def test_a_preset_replaces_the_protocol_that_a_checkpoint_knows(stored, chosen):
    from hydra.core.config_store import ConfigStore

    from cyclenet.cli import compose_config
    from cyclenet.config import PredictConfig, TrainConfig

    words = ["ckpt_path=a", "input=b", "output=c", f"protocol={chosen}"]
    known = compose_config("config", TrainConfig, [f"protocol={stored}"]).protocol
    ConfigStore.instance().store(name="checkpoint", node={"protocol": vars(known)})
    assert (
        compose_config("predict", PredictConfig, words).protocol
        == compose_config("config", TrainConfig, [f"protocol={chosen}"]).protocol
    )
    assert compose_config("predict", PredictConfig, words[:3]).protocol == known
