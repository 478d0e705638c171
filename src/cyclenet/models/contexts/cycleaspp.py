"""CycleASPP, the paper's context module. Without feedback it is DenseASPP (arXiv:1810.10143)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclenet.models.contexts.base import Context, Tap, unchanged
from cyclenet.models.layers import ConvNormReLU, SumConv2d


class AtrousLayer(nn.Module):
    """Layer j of CycleASPP: 1x1 projections, the 3x3 atrous filter f_r, and their batch norms.

    The filter is one for both parts. Each part has a projection of its own; PartII's is shared by
    its passes. Each pass has batch norms of its own, unless there is one set for all.

    Args:
        part1_channels: channels that PartI's projection reads.
        part2_channels: channels that PartII's projection reads; 0 where there is no PartII.
        bottleneck_channels: m, channels between projection and filter.
        growth_channels: g, output channels.
        rate: r_j, dilation of the filter.
        norms: sets of batch norms; a pass beyond them uses the last set.
        recompute: keep only the output for the backward pass.
        shared_channels: the last so many of ``part2_channels``, which PartI's filter projects.
    """

    def __init__(
        self,
        part1_channels: int,
        part2_channels: int,
        bottleneck_channels: int,
        growth_channels: int,
        rate: int,
        norms: int,
        recompute: bool,
        shared_channels: int = 0,
    ) -> None:
        super().__init__()
        self.recompute, self.shared_channels = recompute, shared_channels
        own = part2_channels - shared_channels
        widths = [part1_channels, own] if own else [part1_channels]
        self.project = nn.ModuleList(
            SumConv2d(width, bottleneck_channels, 1, bias=False) for width in widths
        )
        self.project_norm = nn.ModuleList(nn.BatchNorm2d(bottleneck_channels) for _ in range(norms))
        self.atrous = nn.Conv2d(
            bottleneck_channels, growth_channels, 3, padding=rate, dilation=rate, bias=False
        )
        self.atrous_norm = nn.ModuleList(nn.BatchNorm2d(growth_channels) for _ in range(norms))

    def forward(self, sources: list[Tensor], k: int) -> Tensor:
        """Return Y_j^k (N, g, H, W) from the features that pass k shows this layer."""
        norm = min(k, len(self.project_norm) - 1)
        project_norm = cast(nn.BatchNorm2d, self.project_norm[norm])
        atrous_norm = cast(nn.BatchNorm2d, self.atrous_norm[norm])

        def project_and_filter(*sources: Tensor) -> Tensor:
            hidden = torch.relu(project_norm(self._project(list(sources), k)))
            return torch.relu(atrous_norm(self.atrous(hidden)))

        if not (self.recompute and self.training):
            return project_and_filter(*sources)

        def while_running() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_kept(project_norm, atrous_norm)

        return checkpoint(
            project_and_filter,
            *sources,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=while_running,
        )

    def _project(self, sources: list[Tensor], k: int) -> Tensor:
        first = cast(SumConv2d, self.project[0])
        if k == 0:
            return first(sources)
        if not self.shared_channels:
            return self.project[1](sources)
        # The last sources are the earlier layers, which PartI's filter projects too.
        later = len(sources) - self.shared_channels // self.atrous.out_channels
        shared: Tensor = first(sources[later:], weight=first.weight[:, : self.shared_channels])
        return self.project[1](sources[:later]) + shared if later else shared


@contextmanager
def _statistics_kept(*norms: nn.BatchNorm2d) -> Iterator[None]:
    # A batch that is normalised again must not count again in the running statistics.
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1


class CycleASPP(Context):
    """Densely connected atrous layers whose outputs are fed back (section 3.1, eq. 2-3).

    PartI is DenseASPP: layer j sees the input and the layers before it. In each of the
    ``feedback`` passes of PartII, the layers are updated in order, each from the newest outputs of
    all the *others*; the input is not fed again. What the paper leaves open follows from the
    GFLOPs of its Table 1 (docs/design.md).

    Args:
        in_channels: channels of the backbone's features.
        atrous_rates: r_1, ..., r_J.
        feedback: passes of PartII, the paper's k.
        reduce_channels: C0, channels of the input Y_0.
        bottleneck_channels: m.
        growth_channels: g.
        head_channels: channels of the output.
        share_norm: all passes share one set of batch norms.
        share_projections: what layer i gives to a later layer j is projected by the same weights in
            both parts, as in CliqueNet (arXiv:1802.10419); PartII's own are those from later layers
            to earlier ones. The paper counts all pairs, and so does not share.
        recompute: layers keep only their outputs for the backward pass.
    """

    def __init__(
        self,
        in_channels: int,
        atrous_rates: Sequence[int] = (3, 6, 12, 18, 24, 30),
        feedback: int = 1,
        *,
        reduce_channels: int = 1024,
        bottleneck_channels: int = 512,
        growth_channels: int = 128,
        head_channels: int = 256,
        share_norm: bool = False,
        share_projections: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        count = len(atrous_rates)
        self.feedback, self.out_channels = feedback, head_channels
        self.reduce_conv = ConvNormReLU(in_channels, reduce_channels, 1)
        self.layers = nn.ModuleList(
            AtrousLayer(
                reduce_channels + j * growth_channels,
                (count - 1) * growth_channels if feedback else 0,
                bottleneck_channels,
                growth_channels,
                rate,
                norms=1 if share_norm else 1 + feedback,
                recompute=recompute,
                shared_channels=j * growth_channels if share_projections and feedback else 0,
            )
            for j, rate in enumerate(atrous_rates)
        )
        self.fuse_conv = ConvNormReLU(
            reduce_channels + count * growth_channels, head_channels, 3, conv=SumConv2d
        )
        part2 = [f"PartII, pass {k}" for k in range(1, feedback + 1)]
        self.part_names = ("PartI", *(["PartII"] if feedback == 1 else part2))
        self.layer_names = tuple(f"rate {rate}" for rate in atrous_rates)

    def reduce(self, x: Tensor) -> Tensor:
        """Return Y_0 of eq. 2, (N, reduce_channels, H, W)."""
        return self.reduce_conv(x)

    def passes(self, y0: Tensor, tap: Tap = unchanged) -> Iterator[list[Tensor]]:
        """Yield [Y_1^k, ..., Y_J^k], each (N, g, H, W): PartI (k = 0), then PartII's passes."""
        y = tap(self.part1(y0))
        yield y
        for k in range(1, self.feedback + 1):
            y = tap(self.part2(y, k))
            yield y

    def fuse(self, y0: Tensor, outputs: list[Tensor]) -> Tensor:
        """Convolve the concatenation of Y_0 and a part's outputs."""
        return self.fuse_conv([y0, *outputs])

    def part1(self, y0: Tensor) -> list[Tensor]:
        """Return PartI's outputs [Y_1^0, ..., Y_J^0]."""
        y: list[Tensor] = []
        for layer in self.layers:
            y.append(layer([*reversed(y), y0], 0))  # eq. 2: [Y_{j-1}, ..., Y_1, Y_0]
        return y

    def part2(self, y: list[Tensor], k: int) -> list[Tensor]:
        """Return [Y_1^k, ..., Y_J^k], PartII's k-th pass, from the outputs of the pass before."""
        y = list(y)
        for j, layer in enumerate(self.layers):
            # eq. 3: [Y_J^{k-1}, ..., Y_{j+1}^{k-1}, Y_{j-1}^k, ..., Y_1^k]. y holds the newest.
            others = [y[i] for i in reversed(range(len(y))) if i != j]
            y[j] = layer(others, k)
        return y
