"""CycleNet: backbone -> context -> decoder -> classifier (Fig. 1)."""

import torch
from torch import Tensor, nn

from cyclenet.config import ModelConfig
from cyclenet.models.backbone import Backbone
from cyclenet.models.context import build_context
from cyclenet.models.decoder import ADC, SkipDecoder
from cyclenet.models.layers import ChannelDropout, ConvNormReLU, normalise


class CycleNet(nn.Module):
    """Every arm of the paper's ablations: each builds only what it uses.

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
        self.align_corners = cfg.align_corners
        self.backbone = Backbone(cfg.backbone, cfg.backbone_weights, cfg.output_stride, cfg.first_block_dilation)
        low, third, last = self.backbone.channels
        self.context = build_context(last, cfg)
        self.decoder: SkipDecoder | None = None
        if cfg.decoder != "none":
            self.decoder = ADC(low, cfg) if cfg.decoder == "adc" else SkipDecoder(low, cfg)
        self.classifier = nn.Sequential(ChannelDropout(cfg.dropout), nn.Conv2d(cfg.head_channels, num_classes, 1))
        self.aux: nn.Module | None = None
        if cfg.aux_head:
            aux = min(256, third)
            self.aux = nn.Sequential(ConvNormReLU(third, aux, 3), ChannelDropout(cfg.dropout), nn.Conv2d(aux, num_classes, 1))
        # Of 0..255 images; kept with the weights, so that a checkpoint knows how its input was normalised.
        self.register_buffer("mean", 255 * torch.tensor(self.backbone.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(self.backbone.std).view(3, 1, 1))
        self._initialise()

    def _initialise(self) -> None:
        # Convolutions before a batch norm: He's rule. Classifiers: near zero, so that all classes start alike. The backbone
        # and the offsets have their own.
        for part in (self.context, self.decoder, self.aux):
            for module in part.modules() if part else ():
                if isinstance(module, nn.Conv2d) and module.bias is None:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for head in (self.classifier, self.aux):
            for name, parameter in head[-1].named_parameters() if isinstance(head, nn.Sequential) else ():
                nn.init.normal_(parameter, std=0.01) if name == "weight" else nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Segment images of any size.

        Args:
            image: (N, 3, H, W), RGB in 0..255, uint8 or float.

        Returns:
            Logits (N, num_classes, h, w) at the resolution of the decoder, 1/4 of the image or of the context features
            (the caller upsamples); and in training the auxiliary head's at the third stage, else None.
        """
        low, third, last = self.features(image)
        logits = self.head(self.context(last), low)
        return logits, self.aux(third) if self.aux and self.training else None

    def features(self, image: Tensor) -> list[Tensor]:
        """Normalise an image and return the backbone's [1/4, third stage, last stage] features."""
        return self.backbone(normalise(image, self.mean, self.std))

    def head(self, context: Tensor, low: Tensor) -> Tensor:
        """Return the logits of context features (N, head_channels, H, W) and the backbone's 1/4 features."""
        return self.classifier(self.decoder(context, low) if self.decoder else context)


def build_model(cfg: ModelConfig, num_classes: int) -> CycleNet:
    """Build the network in channels-last layout, which dilated convolutions need to be fast (up to 3x on CPU)."""
    return CycleNet(cfg, num_classes).to(memory_format=torch.channels_last)
