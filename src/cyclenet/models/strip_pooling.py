"""SPNet's backbone: "Strip Pooling: Rethinking Spatial Pooling", arXiv:2003.13328."""

from typing import cast

import torch
from torch import Tensor, nn

from cyclenet.models.layers import conv_norm, initialise


class StripPooling(nn.Module):
    """SPM: features (N, C, H, W) weighted by what is in their row and column."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.column = conv_norm(channels, channels, (3, 1))
        self.row = conv_norm(channels, channels, (1, 3))
        self.weigh = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        column, row = self.column(x.mean(3, keepdim=True)), self.row(x.mean(2, keepdim=True))
        return x * self.weigh(torch.relu(column + row)).sigmoid()


def pool_strips(body: nn.Module, seed: int) -> None:
    """Add strip pooling after the 3x3 convolutions of a ResNet's bottlenecks, as SPNet has it.

    It comes in the last block of the first three stages and in all of the fourth.

    Raises:
        ValueError: the backbone is no ResNet of bottlenecks.
    """
    stages = [getattr(body, f"layer{n}", None) for n in range(1, 5)]
    if any(stage is None or not hasattr(stage[-1], "act3") for stage in stages):
        raise ValueError("model.strip_pooling is for ResNets of bottlenecks, such as resnet50s.")
    for number, stage in enumerate(stages, 1):
        assert isinstance(stage, nn.Sequential)
        for place, block in enumerate(stage):
            if number == 4 or place == len(stage) - 1:
                pooling = StripPooling(cast(nn.Conv2d, block.conv2).out_channels)
                block.act2 = nn.Sequential(cast(nn.Module, block.act2), pooling)
                initialise(pooling, f"backbone.layer{number}.{place}.strips", seed)
