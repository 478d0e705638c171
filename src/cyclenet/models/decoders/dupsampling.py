"""DUpsampling: "Decoders Matter for Semantic Segmentation", arXiv:1903.02120."""

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import ConvNormReLU
from cyclenet.models.resize import resize


class LearnedUpsampling(nn.Module):
    """Predict the classes of all pixels under a feature: (N, C, h, w) -> (N, K, r h, r w).

    A linear map, W, and a temperature that is learned.

    Args:
        channels: C.
        num_classes: K.
        ratio: r, pixels per feature.
    """

    def __init__(self, channels: int, num_classes: int, ratio: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(channels, num_classes * ratio**2, 1, bias=False)
        self.shuffle = nn.PixelShuffle(ratio)
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.conv(x)) / self.temperature

    @torch.no_grad()
    def fit(self, squares: Tensor) -> float:
        """Start W from the linear code of C numbers that reconstructs squares of labels best.

        Such a code, with an orthonormal W, is a principal component analysis of the squares. Where
        they have fewer than C components, the other columns of W stay as they are.

        Args:
            squares: (N, r, r) labels; one that is no class, such as 255, is left out of its square.

        Returns:
            The share of the labelled pixels whose label is the largest in the reconstruction.
        """
        classes = torch.arange(self.num_classes).view(-1, 1, 1)
        truth = (squares[:, None] == classes).flatten(1).float()
        wide = truth.shape[1] > len(truth)  # The smaller product has the same components.
        values, vectors = torch.linalg.eigh((truth @ truth.T if wide else truth.T @ truth).double())
        found = values > 1e-9 * values[-1]
        values, vectors = values[found], vectors[:, found]
        kept = min(len(values), self.conv.in_channels)
        code = vectors[:, -kept:].float()
        if wide:
            code = truth.T @ (vectors[:, -kept:] / values[-kept:].sqrt()).float()
        self.conv.weight[:, :kept, 0, 0] = code
        seen = (truth @ code @ code.T).unflatten(1, (self.num_classes, -1)).argmax(1)
        labels = squares.flatten(1)
        right = (seen == labels)[labels < self.num_classes]
        return right.float().mean().item() if len(right) else 0.0


class DUpsampling(Decoder):
    """Low-level features come down to the context's; a learned map upsamples the prediction.

    A training starts the map from its masks (`LearnedUpsampling.fit`) and trains it with all else.

    Args:
        output_stride: pixels of the image per pixel of the context features.
        align_corners: must be false, for features then cover squares of pixels.
    """

    def __init__(
        self,
        level_channels: list[int],
        context_channels: int,
        output_stride: int,
        head_channels: int = 256,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if align_corners:
            raise ValueError(
                "model.decoder=dupsampling predicts squares of pixels: set "
                "model.align_corners=false."
            )
        self.out_channels, self.squares = head_channels, output_stride
        self.fuse = nn.Sequential(
            ConvNormReLU(level_channels[0] + context_channels, head_channels, 3),
            ConvNormReLU(head_channels, head_channels, 3),
            ConvNormReLU(head_channels, head_channels, 1),
        )

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        low = resize(low, high.shape[-2:], align_corners=False)
        return self.fuse(torch.cat([low, high], 1))

    def classifier(self, num_classes: int, dropout: float) -> nn.Module:
        """Return the map to the logits of all pixels."""
        return LearnedUpsampling(self.out_channels, num_classes, self.squares)
