"""PSANet: "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018."""

import torch
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU
from cyclenet.models.resize import resize


class PointwiseAttention(nn.Module):
    """Attention that each pixel predicts over a mask around itself.

    (N, C, H, W) -> (N, head_channels, h, w), at half the size.

    Args:
        in_channels: C.
        side: h = w, pixels of a side of the features that attend, which is fixed.
        collect: each pixel predicts where it collects from; otherwise where it distributes to.
    """

    def __init__(self, in_channels: int, head_channels: int, side: int, collect: bool) -> None:
        super().__init__()
        self.side, self.collect = side, collect
        self.reduce_conv = ConvNormReLU(in_channels, head_channels, 1)
        self.predict = nn.Sequential(
            ConvNormReLU(head_channels, head_channels, 1),
            nn.Conv2d(head_channels, (2 * side - 1) ** 2, 1, bias=False),
        )
        # The channel of the mask around pixel p that says something of pixel q, (q, p).
        place = torch.arange(side)
        offset = place[:, None] - place + side - 1  # q - p + half, along one axis.
        channel = offset[:, None, :, None] * (2 * side - 1) + offset[None, :, None, :]
        self.register_buffer("channel", channel.reshape(side**2, side**2), persistent=False)

    def forward(self, x: Tensor, align_corners: bool) -> Tensor:
        x = resize(self.reduce_conv(x), (self.side, self.side), align_corners)
        masks = self.predict(x).flatten(2)
        index: Tensor = self.channel  # type: ignore[assignment]
        weights = masks.gather(1, index.expand(len(x), -1, -1))
        # The authors take the softmax over the same axis in both, after the transposition.
        weights = (weights if self.collect else weights.transpose(1, 2)).softmax(1)
        attended = x.flatten(2) @ weights
        return attended.reshape(x.shape)


class PSANet(Context):
    """Pixels collect from all others and distribute to all others, by masks that they predict.

    Matches mmsegmentation's ``PSAHead`` where its projection has no padding and its mask covers the
    features, as the paper's does (2 side - 1). Masks of a smaller side would leave cells outside
    with logit 0 in the softmax. The number of channels of a mask fixes the size of the features: an
    image or window that is larger than the training crop is refused, a smaller one is padded to it.

    Args:
        crop_cells: (height, width) of the features of a training crop; a square.
        head_channels: channels of the attention and of the output; the paper has 512.

    Raises:
        ValueError: on building, where the crop is no square; on a forward pass, where the features
            are not of the crop.
    """

    def __init__(
        self,
        in_channels: int,
        crop_cells: tuple[int, int],
        head_channels: int = 512,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        height, width = crop_cells
        if height != width:
            raise ValueError(
                f"model.context=psanet needs square crops; dataset.crop_size has {height} x "
                f"{width} features."
            )
        self.out_channels, self.align_corners, self.cells = head_channels, align_corners, height
        side = (height - 1) // 2 + 1
        self.attentions = nn.ModuleList(
            PointwiseAttention(in_channels, head_channels, side, collect)
            for collect in (True, False)
        )
        self.project = ConvNormReLU(2 * head_channels, in_channels, 1)
        self.fuse_conv = ConvNormReLU(2 * in_channels, head_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) != (self.cells, self.cells):
            raise ValueError(
                f"model.context=psanet was built for {self.cells} x {self.cells} features and got "
                f"{x.shape[-2]} x {x.shape[-1]}: evaluate by windows of dataset.crop_size "
                "(protocol=sliding protocol.window=...)."
            )
        attended = torch.cat([each(x, self.align_corners) for each in self.attentions], 1)
        attended = resize(self.project(attended), x.shape[-2:], self.align_corners)
        return self.fuse_conv(torch.cat([x, attended], 1))
