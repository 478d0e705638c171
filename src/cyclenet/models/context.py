"""Context modules: ASPP, and CycleASPP, which without feedback is DenseASPP.

All map backbone features (N, in_channels, H, W) to context features (N, head_channels, H, W).
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclenet.config import ModelConfig
from cyclenet.models.layers import ConvNormReLU, SumConv2d


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image-level features (https://arxiv.org/abs/1706.05587, section 3.3)."""

    def __init__(self, in_channels: int, head_channels: int, atrous_rates: list[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [ConvNormReLU(in_channels, head_channels, 1)]
            + [ConvNormReLU(in_channels, head_channels, 3, dilation=rate) for rate in atrous_rates]
        )
        # No batch norm here: of one image, one value a channel is left, which has no variance.
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, head_channels, 1), nn.ReLU())
        self.project = ConvNormReLU((len(atrous_rates) + 2) * head_channels, head_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([*(conv(x) for conv in self.convs), pooled], 1))


class CycleASPP(nn.Module):
    """Densely connected atrous layers whose outputs are fed back to the layers before them (section 3.1, eq. 2-3).

    PartI is DenseASPP: layer j sees the input and the layers before it. In each of the ``feedback`` passes of PartII, the
    layers are updated in order, each from the newest outputs of all the *others*; the input is not fed again. The 3x3
    atrous convolution f_r of a layer is one module for both parts; each part has 1x1 projections of its own, PartII's
    being shared by its passes. Batch norm belongs to a pass, unless ``share_norm``. What the paper leaves open follows
    from the GFLOPs of its Table 1.

    Args:
        in_channels: channels of the backbone's features.
        cfg: the model; widths, ``atrous_rates``, ``share_norm``.
        feedback: passes of PartII, the paper's k.
    """

    def __init__(self, in_channels: int, cfg: ModelConfig, feedback: int) -> None:
        super().__init__()
        layers, growth, width = len(cfg.atrous_rates), cfg.growth_channels, cfg.bottleneck_channels
        self.feedback, self.recompute = feedback, cfg.recompute
        self.reduce = ConvNormReLU(in_channels, cfg.reduce_channels, 1)
        self.atrous = nn.ModuleList(
            nn.Conv2d(width, growth, 3, padding=rate, dilation=rate, bias=False) for rate in cfg.atrous_rates
        )
        # 1x1 projections of layer j: [PartI] or [PartI, PartII].
        part1 = [SumConv2d(cfg.reduce_channels + j * growth, width, 1, bias=False) for j in range(layers)]
        self.project = nn.ModuleList([nn.ModuleList(part1)])
        if feedback:
            part2 = [SumConv2d((layers - 1) * growth, width, 1, bias=False) for _ in range(layers)]
            self.project.append(nn.ModuleList(part2))
        # Batch norms of pass k and layer j, after the projection and after the atrous convolution.
        norms = 1 if cfg.share_norm else 1 + feedback
        self.project_norm = nn.ModuleList(_norms(layers, width) for _ in range(norms))
        self.atrous_norm = nn.ModuleList(_norms(layers, growth) for _ in range(norms))
        self.fuse = ConvNormReLU(cfg.reduce_channels + layers * growth, cfg.head_channels, 3, conv=SumConv2d)

    def forward(self, x: Tensor) -> Tensor:
        x0 = self.reduce(x)
        # Of all passes only the newest outputs are kept.
        outputs = deque(self.passes(x0), maxlen=1)[0]
        return self.fuse([x0, *outputs])

    def passes(self, x0: Tensor) -> Iterator[list[Tensor]]:
        """Yield [Y_1^k, ..., Y_J^k], each (N, growth_channels, H, W): PartI (k = 0), then each pass of PartII.

        Args:
            x0: output of `reduce`, the Y_0 of eq. 2, (N, reduce_channels, H, W).
        """
        y = self.part1(x0)
        yield y
        for k in range(1, self.feedback + 1):
            y = self.part2(y, k)
            yield y

    def part1(self, x0: Tensor) -> list[Tensor]:
        """Return PartI's outputs [Y_1^0, ..., Y_J^0] of `reduce`'s output."""
        y: list[Tensor] = []
        for j in range(len(self.atrous)):
            y.append(self._layer(j, 0, [*reversed(y), x0]))  # eq. 2: [Y_{j-1}, ..., Y_1, Y_0]
        return y

    def part2(self, y: list[Tensor], k: int) -> list[Tensor]:
        """Return [Y_1^k, ..., Y_J^k], PartII's k-th pass, from the outputs of the pass before it."""
        y = list(y)
        for j in range(len(self.atrous)):
            # eq. 3: [Y_J^{k-1}, ..., Y_{j+1}^{k-1}, Y_{j-1}^k, ..., Y_1^k]; y holds the newest of each.
            y[j] = self._layer(j, k, [y[i] for i in reversed(range(len(y))) if i != j])
        return y

    def _layer(self, j: int, k: int, sources: list[Tensor]) -> Tensor:
        norm = min(k, len(self.atrous_norm) - 1)
        project = self.project[min(k, 1)][j]  # type: ignore[index]
        norms = self.project_norm[norm][j], self.atrous_norm[norm][j]  # type: ignore[index]

        def layer(*sources: Tensor) -> Tensor:
            hidden = torch.relu(norms[0](project(list(sources))))
            return torch.relu(norms[1](self.atrous[j](hidden)))

        if not (self.recompute and self.training):
            return layer(*sources)
        contexts = lambda: (nullcontext(), _statistics_kept(norms))  # noqa: E731
        return checkpoint(layer, *sources, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def _statistics_kept(norms: tuple[Any, ...]) -> Iterator[None]:
    # A batch that is normalised a second time must not count a second time in the running statistics.
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked -= 1


def _norms(layers: int, channels: int) -> nn.ModuleList:
    return nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(layers))


def build_context(in_channels: int, cfg: ModelConfig) -> nn.Module:
    """Build the context module that ``cfg.context`` names; ``none`` is a 3x3 convolution (Table 2's baseline)."""
    match cfg.context:
        case "aspp":
            return ASPP(in_channels, cfg.head_channels, cfg.atrous_rates)
        case "denseaspp":
            return CycleASPP(in_channels, cfg, feedback=0)
        case "cycleaspp":
            return CycleASPP(in_channels, cfg, feedback=cfg.feedback)
        case _:
            return ConvNormReLU(in_channels, cfg.head_channels, 3)
