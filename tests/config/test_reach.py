"""Atrous filters and the map that they are trained on: which taps a training never reaches."""

from dataclasses import replace

import torch

from cyclenet.config.choices import CONTEXTS
from cyclenet.config.model import ModelConfig
from cyclenet.config.reach import taps_inside, untrained_taps
from cyclenet.config.schema import DatasetConfig, ProtocolConfig, TrainConfig


def config(crop, rates, stride=16, **protocol) -> TrainConfig:
    return TrainConfig(
        model=ModelConfig(output_stride=stride, atrous_rates=rates),
        dataset=DatasetConfig(crop_size=crop),
        protocol=ProtocolConfig(**protocol),
    )


def test_the_first_camvid_ablation_is_warned_of():
    """Crops of 240 x 320 at 1/16 have 15 x 20 features; rate 15 keeps its middle row alone."""
    cfg = config([240, 320], [2, 3, 6, 9, 12, 15])
    text = untrained_taps(cfg, [(360, 480)])
    assert "15 x 20 features" in text and "6 of 9 at rate 15" in text and "rate 12" not in text
    assert "maps of 23 x 30" in text
    windows = replace(cfg, protocol=ProtocolConfig(window=240, stride=160))
    assert "noise" not in untrained_taps(windows, [(360, 480)])


def test_scales_of_the_evaluation_count():
    cfg = config([240, 320], [2, 15], scales=[1.0, 0.5])
    assert "noise" not in untrained_taps(cfg, [(240, 320)])
    assert "maps of 23 x 30" in untrained_taps(
        config([240, 320], [2, 15], scales=[1.5]), [(240, 320)]
    )


def test_rates_inside_the_map_are_not_told():
    cfg = config([360, 480], [1, 3, 6, 8, 11, 14], 8)
    assert untrained_taps(cfg, [(1024, 2048)]) == ""
    none = replace(cfg, model=replace(cfg.model, context="none", atrous_rates=[999]))
    assert untrained_taps(none) == ""


def test_a_tap_is_dead_where_its_gradient_is_zero():
    """The count agrees with a convolution's own gradient."""
    for rate in (2, 4, 5, 7):
        for height, width in ((5, 7), (4, 4), (8, 3)):
            conv = torch.nn.Conv2d(1, 1, 3, padding=rate, dilation=rate, bias=False)
            conv(torch.ones(1, 1, height, width)).sum().backward()
            alive = int((conv.weight.grad != 0).sum()) - 1
            assert alive == taps_inside(rate, height, width), (rate, height, width)


def test_the_rates_of_deeplabv3plus_follow_the_stride_and_are_warned_of():
    model = ModelConfig(output_stride=16, context="deeplabv3plus", decoder="deeplabv3plus")
    cfg = TrainConfig(model=model, dataset=DatasetConfig(crop_size=[256, 256]))
    text = untrained_taps(cfg)
    assert "rate 18" in text and "rate 12" not in text and "rate 24" not in text
    net = CONTEXTS["deeplabv3plus"].build(model, {}, 8)
    assert [conv[0][0].dilation[0] for conv in net.convs[1:]] == [6, 12, 18]
