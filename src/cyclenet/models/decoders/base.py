"""What a decoder offers: finer features than the context's, and how it aligns them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn

from cyclenet.models.layers import Classifier

IMAGE = 4  # Number of the level that is the normalised image.


class Alignment(NamedTuple):
    """What an aligning decoder does to context features, at the size (H, W) of the low-level ones.

    Attributes:
        offset: (N, 2 * groups * taps, H, W) displacements in pixels of the low-level features,
            (dy, dx) interleaved tap by tap.
        mask: (N, groups * taps, H, W) factors of the taps, or None.
        groups: groups of channels with offsets of their own.
        upsampled: (N, C, H, W) interpolated context features.
        aligned: (N, C, H, W) the same after the alignment.
    """

    offset: Tensor
    mask: Tensor | None
    groups: int
    upsampled: Tensor
    aligned: Tensor


class Decoder(nn.Module):
    """A module from context features (N, C, h, w) and the backbone's to decoded ones.

    ``forward`` takes the context features, then the levels that it reads, (N, c, H, W) each. Of the
    arguments of a constructor, ``level_channels`` are the channels of the backbone's levels, from
    1/4 on, ``context_channels`` those of the context features, ``head_channels`` those of the
    output, and ``align_corners`` is that of the interpolation.

    Attributes:
        out_channels: channels of the output.
        reads: numbers of the levels: 0 is at 1/4, 1 the next, 2 the third stage, 3 the last; and
            `IMAGE`.
        extra_weights: weight in the loss of each extra output, by its name.
        aligns: whether `alignment` has something to show.
        squares: pixels of a side of the squares of labels that the classifier is fitted to before
            a training (``classifier.fit``); 0 where it is not.
        diagnostics: scalars of the last training step, which are logged with the loss.
    """

    out_channels: int
    reads: tuple[int, ...] = (0,)
    extra_weights: Mapping[str, float] = MappingProxyType({})
    aligns = False
    squares = 0

    def __init__(self) -> None:
        super().__init__()
        self.diagnostics: dict[str, Tensor] = {}

    def with_extras(self, high: Tensor, *levels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what ``forward`` does, and logits that only the loss of a training step reads."""
        return self(high, *levels), {}

    def classifier(self, num_classes: int, dropout: float) -> nn.Module:
        """Return the classifier of the output."""
        return Classifier(self.out_channels, num_classes, dropout)

    def alignment(self, high: Tensor, low: Tensor) -> Alignment:
        """Show the alignment of context features with low-level ones.

        Raises:
            ValueError: the decoder does not align.
        """
        raise ValueError("Only a decoder that aligns, such as model.decoder=adc, has offsets.")


class NoDecoder(Decoder):
    """Leave the context features as they are."""

    reads = ()

    def __init__(self, context_channels: int) -> None:
        super().__init__()
        self.out_channels = context_channels

    def forward(self, high: Tensor) -> Tensor:
        return high
