"""DANet: "Dual Attention Network for Scene Segmentation", arXiv:1809.02983."""

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import Classifier, ConvNormReLU, exact, without_autocast


class PositionAttention(nn.Module):
    """PAM: each pixel attends to all pixels, without a scale: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            conv(x).flatten(2).transpose(1, 2) for conv in (self.query, self.key, self.value)
        )
        # The fused kernel holds no map of all pairs of pixels (354 MB an image at 769).
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.gamma * attended.transpose(1, 2).reshape(x.shape) + x


class ChannelAttention(nn.Module):
    """CAM: each channel attends to those that it is *least* like: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        # Sums over all pixels overflow float16.
        with without_autocast(x):
            wide = exact(flat)
            energy = wide @ wide.transpose(1, 2)
            weights = (energy.amax(-1, keepdim=True) - energy).softmax(-1)
        return self.gamma * (weights.to(x.dtype) @ flat).reshape(x.shape) + x


class DANet(Context):
    """Position attention and channel attention side by side; their sum is classified.

    Matches mmsegmentation's ``DAHead``. In training each has a classifier of its own beside that of
    the sum, with weight 1. The authors dilate the last stage by 4, 8 and 16
    (``model.multi_grid=[1,2,4]``) and have no auxiliary head (``model.aux_head=false``).

    Args:
        num_classes: channels of the two classifiers.
        head_channels: channels of the attentions and of the output; the paper has 512.
        dropout: of channels before the two classifiers.
    """

    extra_weights = MappingProxyType({"position": 1.0, "channel": 1.0})

    def __init__(
        self, in_channels: int, num_classes: int, head_channels: int = 512, *, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.out_channels = width = head_channels
        attentions = {"position": PositionAttention(width), "channel": ChannelAttention()}
        self.branches = nn.ModuleDict(
            {
                name: nn.Sequential(
                    ConvNormReLU(in_channels, width, 3), attention, ConvNormReLU(width, width, 3)
                )
                for name, attention in attentions.items()
            }
        )
        self.classifiers = nn.ModuleDict(
            {name: Classifier(width, num_classes, dropout) for name in attentions}
        )

    def forward(self, x: Tensor) -> Tensor:
        position, channel = (branch(x) for branch in self.branches.values())
        return position + channel

    def with_extras(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        outputs = {name: branch(x) for name, branch in self.branches.items()}
        logits = {name: self.classifiers[name](output) for name, output in outputs.items()}
        return outputs["position"] + outputs["channel"], logits
