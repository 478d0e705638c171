"""What a decoder offers: features at the low-level resolution, and how it aligns them."""

from typing import NamedTuple

from torch import Tensor, nn


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
    """A module from context features (N, C, h, w) and low-level ones (N, c, H, W) to decoded ones.

    The low-level features are the backbone's at 1/4; context features are coarser.

    Attributes:
        out_channels: channels of the output (N, out_channels, H, W).
        aligns: whether `alignment` has something to show.
        diagnostics: scalars of the last training step, which are logged with the loss.
    """

    out_channels: int
    aligns = False

    def __init__(self) -> None:
        super().__init__()
        self.diagnostics: dict[str, Tensor] = {}

    def alignment(self, high: Tensor, low: Tensor) -> Alignment:
        """Show the alignment of context features with low-level ones.

        Raises:
            ValueError: the decoder does not align.
        """
        raise ValueError("Only a decoder that aligns, such as model.decoder=adc, has offsets.")
