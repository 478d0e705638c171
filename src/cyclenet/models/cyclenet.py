"""CycleNet: backbone -> context -> decoder -> classifier (Fig. 1)."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.config.model import ModelConfig
from cyclenet.models.backbone import Backbone
from cyclenet.models.contexts.base import Context
from cyclenet.models.decoders.base import IMAGE, Decoder
from cyclenet.models.layers import (
    Classifier,
    ConvNormReLU,
    avoid_slow_cpu_kernels,
    initialise,
    normalise,
)
from cyclenet.models.resize import Grid
from cyclenet.models.strip_pooling import pool_strips


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
        # The seed is drawn first, so that networks of one seed initialise common layers alike.
        seed = int(torch.randint(2**31, (), device="cpu"))
        self.grid, self.frozen = Grid(cfg.output_stride, cfg.align_corners), cfg.freeze_backbone
        self.freeze_norm = cfg.freeze_norm
        self.backbone = Backbone(
            cfg.backbone,
            cfg.backbone_weights,
            cfg.output_stride,
            cfg.first_block_dilation,
            cfg.multi_grid,
        )
        if cfg.strip_pooling:
            pool_strips(self.backbone.body, seed)
        if self.frozen:
            self.backbone.requires_grad_(False)
        for norm in _batch_norms(self.backbone) if self.freeze_norm else ():
            norm.requires_grad_(False)
        low, _, third, last = self.backbone.channels
        known = {"num_classes": num_classes, "crop_cells": self.grid.cells(crop_size)}
        self.context: Context = CONTEXTS[cfg.context].build(cfg, known, last)
        self.guided = CONTEXTS[cfg.context].guided
        # A context module that is built for the crop gets smaller images padded to it.
        built_for_crop = "crop_cells" in CONTEXTS[cfg.context].wants
        self.least = self.grid.padded(crop_size) if built_for_crop else (0, 0)
        known |= {"low_channels": low, "level_channels": self.backbone.channels}
        known |= dict.fromkeys(("context_channels", "head_channels"), self.context.out_channels)
        self.decoder: Decoder = DECODERS[cfg.decoder].build(cfg, known)
        self.classifier = self.decoder.classifier(num_classes, cfg.dropout)
        self.aux: nn.Sequential | None = None
        if cfg.aux_head:
            hidden = min(256, third)
            self.aux = nn.Sequential(
                ConvNormReLU(third, hidden, 3), *Classifier(hidden, num_classes, cfg.dropout)
            )
        # Mean and deviation of images in 0..255 are kept with the weights, so that a checkpoint
        # knows how its input was normalised.
        self.register_buffer("mean", 255 * torch.tensor(self.backbone.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(self.backbone.std).view(3, 1, 1))
        for name in ("context", "decoder", "classifier", "aux"):
            if (part := getattr(self, name)) is not None:
                initialise(part, name, seed)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what is frozen of the backbone always keeps its stored statistics."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        if self.freeze_norm:
            for norm in _batch_norms(self.backbone):
                norm.eval()
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Segment images of any size.

        Args:
            image: (N, 3, H, W), RGB in 0..255, uint8 or float.

        Returns:
            Logits (N, num_classes, h, w), mostly at 1/4 with a decoder and at ``output_stride``
            without, which cover the padded image (`cyclenet.models.resize.Grid`); and in training,
            by name, what only the loss reads: ``aux``, logits of the third stage, and those of the
            context module and the decoder.
        """
        logits, extras = self.segment(self.features(image))
        size = self.grid.padded(image.shape[-2:])
        if all(side >= least for side, least in zip(size, self.least, strict=True)):
            return logits, extras
        rows, columns = (
            self.grid.window(length, max(side, least), 0, side)
            for length, side, least in zip(logits.shape[-2:], size, self.least, strict=True)
        )
        return logits[..., rows, columns], extras

    def logits(self, image: Tensor) -> Tensor:
        """Return the logits of `forward`."""
        return self.forward(image)[0]

    def segment(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `forward` does, from the features of an image or of a window of it."""
        x = self.context_input(features)
        if not self.training:
            return self.head(self.context(x), features), {}
        extras: dict[str, Tensor] = {}
        if self.aux is not None:
            extras["aux"] = x[1] if self.guided else self.aux(features[2])
        context, found = self.context.with_extras(x)
        decoded, of_decoder = self.decoder.with_extras(context, *self.levels(features))
        return self.classifier(decoded), extras | found | of_decoder

    def context_input(self, features: list[Tensor]) -> Any:
        """Return the features that the context module takes; a guided one takes ``aux``'s too."""
        if not self.guided:
            return features[3]
        assert self.aux is not None
        return features[3], self.aux(features[2])

    def levels(self, features: list[Tensor]) -> list[Tensor]:
        """Return the levels that the decoder reads."""
        return [features[number] for number in self.decoder.reads]

    def features(self, image: Tensor) -> list[Tensor]:
        """Normalise and pad an image; return the backbone's levels (`Decoder.reads`).

        Those of a frozen backbone are rounded to bfloat16, which a cache holds: what is trained on
        cached features then predicts from the same numbers.
        """
        padded = self.grid.pad(normalise(image, self.mean, self.std), self.least)
        return self.encode(padded)

    def encode(self, padded: Tensor) -> list[Tensor]:
        """Return the backbone's levels of a normalised and padded image."""
        features: list[Tensor] = self.backbone(padded)
        if IMAGE in self.decoder.reads:
            features.append(padded)
        if self.frozen:
            features = [x.to(torch.bfloat16).to(x.dtype) for x in features]
        return features

    def head(self, context: Tensor, features: list[Tensor]) -> Tensor:
        """Return the logits of context features and the backbone's levels."""
        decoded = self.decoder(context, *self.levels(features))
        return self.classifier(decoded)


def _batch_norms(module: nn.Module) -> list[nn.Module]:
    # Synchronised ones have no class in common with the others.
    return [each for each in module.modules() if hasattr(each, "running_mean")]


def build_model(
    cfg: ModelConfig, num_classes: int, crop_size: Sequence[int] = (769, 769)
) -> CycleNet:
    """Build the network in channels-last layout, in which dilated convolutions are up to 3x faster.

    The factor was measured on a CPU.
    """
    net = CycleNet(cfg, num_classes, crop_size).to(memory_format=torch.channels_last)
    avoid_slow_cpu_kernels(net)
    return net
