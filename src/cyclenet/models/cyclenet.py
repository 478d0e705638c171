"""CycleNet: backbone -> context -> decoder -> classifier (Fig. 1)."""

import torch
from torch import Tensor, nn

from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.config.schema import ModelConfig
from cyclenet.models.backbone import Backbone
from cyclenet.models.contexts.base import Context
from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import ChannelDropout, ConvNormReLU, normalise
from cyclenet.models.resize import Grid


def build_context(in_channels: int, cfg: ModelConfig) -> Context:
    """Build the context module that ``cfg.context`` names."""
    choice = CONTEXTS[cfg.context]
    context: Context = choice.load()(in_channels, **choice.arguments(cfg))
    return context


def build_decoder(low_channels: int, cfg: ModelConfig) -> Decoder | None:
    """Build the decoder that ``cfg.decoder`` names; None for ``none``."""
    choice = DECODERS[cfg.decoder]
    if not choice.builder:
        return None
    decoder: Decoder = choice.load()(low_channels, **choice.arguments(cfg))
    return decoder


class CycleNet(nn.Module):
    """Every arm of the paper's ablations. Each builds only what it uses.

    Args:
        cfg: the architecture.
        num_classes: channels of the logits.

    Raises:
        ValueError: timm has no such backbone, or its weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.grid = Grid(cfg.output_stride, cfg.align_corners)
        self.backbone = Backbone(
            cfg.backbone, cfg.backbone_weights, cfg.output_stride, cfg.first_block_dilation
        )
        low, third, last = self.backbone.channels
        self.context = build_context(last, cfg)
        self.decoder = build_decoder(low, cfg)
        width = self.decoder.out_channels if self.decoder else self.context.out_channels
        self.classifier = nn.Sequential(
            ChannelDropout(cfg.dropout), nn.Conv2d(width, num_classes, 1)
        )
        self.aux: nn.Sequential | None = None
        if cfg.aux_head:
            self.aux = nn.Sequential(
                ConvNormReLU(third, min(256, third), 3),
                ChannelDropout(cfg.dropout),
                nn.Conv2d(min(256, third), num_classes, 1),
            )
        # They normalise images in 0..255, and are kept with the weights, so that a checkpoint
        # knows how its input was normalised.
        self.register_buffer("mean", 255 * torch.tensor(self.backbone.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(self.backbone.std).view(3, 1, 1))
        self._initialise()

    def _initialise(self) -> None:
        # Convolutions before a batch norm follow He's rule. The backbone and the offsets have
        # their own initialisation.
        for part in (self.context, self.decoder, self.aux):
            for module in part.modules() if part is not None else ():
                if isinstance(module, nn.Conv2d) and module.bias is None:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # Classifiers start near zero, so that all classes start alike.
        for head in (self.classifier, self.aux):
            if head is not None:
                nn.init.normal_(head[-1].weight, std=0.01)  # type: ignore[arg-type]
                nn.init.zeros_(head[-1].bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Segment images of any size.

        Args:
            image: (N, 3, H, W), RGB in 0..255, uint8 or float.

        Returns:
            Logits (N, num_classes, h, w) at 1/4 with a decoder and at ``output_stride`` without,
            which cover the padded image (`cyclenet.models.resize.Grid`); and in training those of
            the auxiliary head at the third stage, else None.
        """
        low, third, last = self.features(image)
        logits = self.head(self.context(last), low)
        return logits, self.aux(third) if self.aux is not None and self.training else None

    def features(self, image: Tensor) -> list[Tensor]:
        """Normalise and pad an image; return the [1/4, third stage, last stage] features."""
        padded = self.grid.pad(normalise(image, self.mean, self.std))
        features: list[Tensor] = self.backbone(padded)
        return features

    def head(self, context: Tensor, low: Tensor) -> Tensor:
        """Return the logits of context features and the backbone's 1/4 features."""
        decoded = self.decoder(context, low) if self.decoder is not None else context
        logits: Tensor = self.classifier(decoded)
        return logits


def build_model(cfg: ModelConfig, num_classes: int) -> CycleNet:
    """Build the network in channels-last layout, in which dilated convolutions are up to 3x faster.

    The factor was measured on a CPU.
    """
    return CycleNet(cfg, num_classes).to(memory_format=torch.channels_last)
