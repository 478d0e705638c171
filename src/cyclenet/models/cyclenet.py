"""CycleNet: backbone -> context -> decoder -> classifier (Fig. 1)."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.config.schema import ModelConfig
from cyclenet.models.backbone import Backbone
from cyclenet.models.contexts.base import Context
from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import (
    Classifier,
    ConvNormReLU,
    be_kind_to_cpu,
    initialise,
    normalise,
)
from cyclenet.models.resize import Grid


def build_context(in_channels: int, cfg: ModelConfig, known: dict[str, Any]) -> Context:
    """Build the context module that ``cfg.context`` names.

    Args:
        in_channels: channels of the backbone's features.
        cfg: the architecture.
        known: what follows from the data, of which the module takes what it wants.
    """
    choice = CONTEXTS[cfg.context]
    wanted = {key: known[key] for key in choice.wants}
    context: Context = choice.load()(in_channels, **choice.arguments(cfg), **wanted)
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
        crop_size: (height, width) of a training crop, pixels; few contexts want it.

    Raises:
        ValueError: timm has no such backbone, or its weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, cfg: ModelConfig, num_classes: int, crop_size: Sequence[int] = (769, 769)
    ) -> None:
        super().__init__()
        # It is drawn before all else, so that arms of one seed have it in common.
        seed = int(torch.randint(2**31, (), device="cpu"))
        self.grid, self.frozen = Grid(cfg.output_stride, cfg.align_corners), cfg.freeze_backbone
        self.backbone = Backbone(
            cfg.backbone, cfg.backbone_weights, cfg.output_stride, cfg.first_block_dilation
        )
        if self.frozen:
            self.backbone.requires_grad_(False)
        low, third, last = self.backbone.channels
        known = {"num_classes": num_classes, "crop_cells": self.grid.cells(crop_size)}
        self.context = build_context(last, cfg, known)
        self.decoder = build_decoder(low, cfg)
        width = self.decoder.out_channels if self.decoder else self.context.out_channels
        self.classifier = Classifier(width, num_classes, cfg.dropout)
        self.aux: nn.Sequential | None = None
        if cfg.aux_head:
            hidden = min(256, third)
            self.aux = nn.Sequential(
                ConvNormReLU(third, hidden, 3), *Classifier(hidden, num_classes, cfg.dropout)
            )
        # They normalise images in 0..255, and are kept with the weights, so that a checkpoint
        # knows how its input was normalised.
        self.register_buffer("mean", 255 * torch.tensor(self.backbone.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(self.backbone.std).view(3, 1, 1))
        for name in ("context", "decoder", "classifier", "aux"):
            if (part := getattr(self, name)) is not None:
                initialise(part, name, seed)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen backbone always keeps its stored statistics."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Segment images of any size.

        Args:
            image: (N, 3, H, W), RGB in 0..255, uint8 or float.

        Returns:
            Logits (N, num_classes, h, w) at 1/4 with a decoder and at ``output_stride`` without,
            which cover the padded image (`cyclenet.models.resize.Grid`); and in training, by name,
            what only the loss reads: ``aux``, logits of the third stage, and the context's own.
        """
        return self.segment(self.features(image))

    def segment(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `forward` does, from the features of an image or of a window of it."""
        low, third, last = features
        if not self.training:
            return self.head(self.context(last), low), {}
        context, extras = self.context.with_extras(last)
        if self.aux is not None:
            extras = {"aux": self.aux(third), **extras}
        return self.head(context, low), extras

    def features(self, image: Tensor) -> list[Tensor]:
        """Normalise and pad an image; return the [1/4, third stage, last stage] features.

        Those of a frozen backbone are rounded to bfloat16, which a cache holds: what is trained on
        cached features then predicts from the same numbers.
        """
        padded = self.grid.pad(normalise(image, self.mean, self.std))
        features: list[Tensor] = self.backbone(padded)
        if self.frozen:
            features = [x.to(torch.bfloat16).to(x.dtype) for x in features]
        return features

    def head(self, context: Tensor, low: Tensor) -> Tensor:
        """Return the logits of context features and the backbone's 1/4 features."""
        decoded = self.decoder(context, low) if self.decoder is not None else context
        logits: Tensor = self.classifier(decoded)
        return logits


def build_model(
    cfg: ModelConfig, num_classes: int, crop_size: Sequence[int] = (769, 769)
) -> CycleNet:
    """Build the network in channels-last layout, in which dilated convolutions are up to 3x faster.

    The factor was measured on a CPU.
    """
    net = CycleNet(cfg, num_classes, crop_size).to(memory_format=torch.channels_last)
    be_kind_to_cpu(net)
    return net
