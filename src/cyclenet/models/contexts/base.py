"""What a context module offers: features, and the parts that they can be looked at in.

The two simplest ones stand here too.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from cyclenet.models.layers import ConvNormReLU

Tap = Callable[[list[Tensor]], list[Tensor]]


def unchanged(outputs: list[Tensor]) -> list[Tensor]:
    """Return a part's outputs as they are."""
    return outputs


class Context(nn.Module):
    """A module from backbone features (N, in_channels, H, W) to (N, out_channels, H, W).

    A context module with inner parts overrides `reduce`, `passes` and `fuse`. Any other overrides
    `forward`, and has a single part, its output. Cost tables and figures are made from the parts:
    operations are counted by hooks, so call modules rather than use their weights.

    Of the arguments of a constructor, ``in_channels`` are the channels of the backbone's features,
    ``head_channels`` those of the output, and ``align_corners`` is that of the interpolation.

    Attributes:
        out_channels: channels of the output.
        part_names: names of the parts, in order.
        layer_names: names of the outputs of one part, in order.
        extra_weights: weight in the loss of each extra output, by its name.
    """

    out_channels: int
    part_names: tuple[str, ...] = ("context",)
    layer_names: tuple[str, ...] = ("output",)
    extra_weights: Mapping[str, float] = MappingProxyType({})

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        y0 = self.reduce(x)
        outputs: list[Tensor] = []
        for found in self.passes(y0):
            outputs = found
        return self.fuse(y0, outputs)

    def with_extras(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `forward` does, and what only the loss of a training step reads.

        An extra output is logits (N, num_classes, H, W), or (N, num_classes) for which classes
        occur in the image.
        """
        return self(x), {}

    def reduce(self, x: Tensor) -> Tensor:
        """Return the input of the parts."""
        return x

    def passes(self, y0: Tensor, tap: Tap = unchanged) -> Iterator[list[Tensor]]:
        """Yield, for each of `part_names`, the outputs of its layers (`layer_names`), of one size.

        Args:
            y0: output of `reduce`.
            tap: a hook of Grad-CAM: each part's outputs are handed to it, and what it returns is
                yielded and read by the next part.
        """
        yield tap([self(y0)])

    def fuse(self, y0: Tensor, outputs: list[Tensor]) -> Tensor:
        """Return the context features that follow from one part's outputs."""
        return outputs[0]


class Baseline(Context):
    """Table 2's baseline: a 3x3 convolution to (N, head_channels, H, W)."""

    def __init__(self, in_channels: int, head_channels: int) -> None:
        super().__init__()
        self.out_channels = head_channels
        self.conv = ConvNormReLU(in_channels, head_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Identity(Context):
    """No context module: decoders that read the backbone's features themselves stand on it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        return x
