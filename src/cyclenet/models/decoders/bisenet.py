"""BiSeNet: "Bilateral Segmentation Network", arXiv:1808.00897, with the parts of its ResNet-101."""

from types import MappingProxyType

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import Classifier, ConvNormReLU, require_two_images
from cyclenet.models.resize import resize


class AttentionRefinement(nn.Module):
    """ARM: a 3x3 convolution whose channels are weighted by their means over the image."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(channels, out_channels, 3)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.weigh(x)


class BiSeNet(Decoder):
    """A shallow path from the image at 1/8 joins a context path from 1/16 and 1/32.

    Follows the paper. mmsegmentation's fusion differs: its weights pass a ReLU before the sigmoid
    and never fall below 0.5. In training both steps of the context path have classifiers of their
    own.

    Args:
        context_channels: channels of the last level (``model.context=identity``).
        num_classes: channels of the classifiers that only training uses.
        head_channels: channels of the output; each path has half as many. The paper has 256.
        dropout: of channels before the classifiers.
    """

    reads = (2, 4)
    extra_weights = MappingProxyType({"at_16": 1.0, "at_8": 1.0})

    def __init__(
        self,
        level_channels: list[int],
        context_channels: int,
        num_classes: int,
        align_corners: bool = False,
        head_channels: int = 256,
        *,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.out_channels, self.align_corners = head_channels, align_corners
        width, half = head_channels // 2, head_channels // 4
        self.spatial = nn.Sequential(
            ConvNormReLU(3, half, 7, stride=2),
            ConvNormReLU(half, half, 3, stride=2),
            ConvNormReLU(half, half, 3, stride=2),
            ConvNormReLU(half, width, 1),
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormReLU(context_channels, width, 1))
        self.refine = nn.ModuleList(
            [
                AttentionRefinement(context_channels, width),
                AttentionRefinement(level_channels[2], width),
            ]
        )
        self.after = nn.ModuleList(ConvNormReLU(width, width, 3) for _ in range(2))
        self.join = ConvNormReLU(2 * width, 2 * width, 1)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(2 * width, 2 * width, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * width, 2 * width, 1, bias=False),
            nn.Sigmoid(),
        )
        self.head = ConvNormReLU(2 * width, 2 * width, 3)
        self.classifiers = nn.ModuleList(
            nn.Sequential(ConvNormReLU(width, half, 3), *Classifier(half, num_classes, dropout))
            for _ in range(2)
        )

    def context_path(self, high: Tensor, third: Tensor, eighth: torch.Size) -> list[Tensor]:
        """Return the context path's features at 1/16 and at 1/8."""
        require_two_images(self, high)
        found, above = [], self.pool(high)
        sizes = (third.shape[-2:], eighth)
        for refine, conv, x, size in zip(
            self.refine, self.after, (high, third), sizes, strict=True
        ):
            above = conv(resize(refine(x) + above, size, self.align_corners))
            found.append(above)
        return found

    def fuse(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Join both paths (FFM)."""
        joined = self.join(torch.cat([spatial, context], 1))
        return self.head(joined + joined * self.weigh(joined))

    def forward(self, high: Tensor, third: Tensor, image: Tensor) -> Tensor:
        return self.with_extras(high, third, image)[0]

    def with_extras(self, high: Tensor, *levels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        third, image = levels
        spatial = self.spatial(image)
        steps = self.context_path(high, third, spatial.shape[-2:])
        extras = {}
        if self.training:
            named = zip(self.extra_weights, self.classifiers, steps, strict=True)
            extras = {name: classifier(step) for name, classifier, step in named}
        return self.fuse(spatial, steps[1]), extras
