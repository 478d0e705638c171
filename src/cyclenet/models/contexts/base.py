"""What a context module offers: features, and the parts that they can be looked at in."""

from collections.abc import Callable, Iterator

from torch import Tensor, nn

Tap = Callable[[list[Tensor]], list[Tensor]]


def unchanged(outputs: list[Tensor]) -> list[Tensor]:
    """Return a part's outputs as they are."""
    return outputs


class Context(nn.Module):
    """A module from backbone features (N, in_channels, H, W) to (N, out_channels, H, W).

    A context module with inner parts overrides `reduce`, `passes` and `fuse`, and its forward pass
    is their composition. Cost tables and figures are made from these; any other context module has
    a single part, its output.

    Attributes:
        out_channels: channels of the output.
        part_names: names of the parts, in order.
        layer_names: names of the outputs in one part.
    """

    out_channels: int
    part_names: tuple[str, ...] = ("context",)
    layer_names: tuple[str, ...] = ("output",)

    def reduce(self, x: Tensor) -> Tensor:
        """Return the input of the parts."""
        return x

    def passes(self, x0: Tensor, tap: Tap = unchanged) -> Iterator[list[Tensor]]:
        """Yield the outputs of each part's layers.

        Args:
            x0: output of `reduce`.
            tap: is given each part's outputs, and returns those that are read after it.
        """
        yield tap([self(x0)])

    def fuse(self, x0: Tensor, outputs: list[Tensor]) -> Tensor:
        """Return the context features that follow from one part's outputs."""
        return outputs[0]
