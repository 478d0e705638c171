"""The blocks that every part of the network is made of."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cyclenet.seeding import derive


def initialise(part: nn.Module, prefix: str, seed: int) -> None:
    """Initialise the weights of a part of the network, each by (seed, its name).

    Networks that differ in some layers start alike in all others. Convolutions without a bias,
    which come before a batch norm, follow He's rule. A class that overrides ``reset_parameters``
    has an initialisation of its own.

    Args:
        part: the part.
        prefix: its name in the network.
        seed: seed of the network.
    """
    for name, module in part.named_modules(prefix=prefix):
        reset = getattr(module, "reset_parameters", None)
        if reset is None:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, name))
            own = not isinstance(module, nn.Conv2d) or type(module).reset_parameters != _USUAL
            if own or module.bias is not None:
                reset()
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


_USUAL = nn.Conv2d.reset_parameters


class ZeroConv2d(nn.Conv2d):
    """A convolution that starts at zero."""

    def reset_parameters(self) -> None:
        """Set weights and biases to 0."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class Classifier(nn.Sequential):
    """Dropout of channels and a 1x1 convolution to logits, which start near zero.

    All classes then start alike.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__(ChannelDropout(dropout), SmallConv2d(in_channels, num_classes, 1))


class SmallConv2d(nn.Conv2d):
    """A convolution whose weights start from N(0, 0.01), and its bias at 0."""

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.normal_(self.weight, std=0.01)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class SumConv2d(nn.Conv2d):
    """The convolution of a concatenation, as the sum of a convolution of each part.

    No copy of the concatenation is made or kept. The filter is one parameter, as in `nn.Conv2d`.
    Takes [(N, c_1, H, W), (N, c_2, H, W), ...] whose channels add up to ``in_channels``.
    """

    def forward(  # type: ignore[override]
        self, parts: list[Tensor], weight: Tensor | None = None
    ) -> Tensor:
        """Convolve the parts, in the order that they would be concatenated in.

        Args:
            parts: what would be concatenated.
            weight: a part of the filter, where only some of its channels are read.
        """
        weight = self.weight if weight is None else weight
        filters = weight.split([part.shape[1] for part in parts], 1)
        first, *others = (
            F.conv2d(part, each, None, self.stride, self.padding, self.dilation)
            for part, each in zip(parts, filters, strict=True)
        )
        return sum(others, first)


class ConvNormReLU(nn.Sequential):
    """Convolution that keeps the size, batch norm, ReLU: (N, in, H, W) -> (N, out, H, W).

    With ``conv=SumConv2d`` the input is a list of tensors; with a ``slope`` the ReLU is leaky; a
    ``stride`` makes the output smaller.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        conv: type[nn.Conv2d] = nn.Conv2d,
        slope: float = 0.0,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            conv(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True),
        )


class SeparableConv(nn.Sequential):
    """A 3x3 convolution of each channel, then a 1x1 one, both with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__(
            ConvNormReLU(in_channels, in_channels, 3, dilation, groups=in_channels),
            ConvNormReLU(in_channels, out_channels, 1),
        )


def conv_norm(in_channels: int, out_channels: int, kernel: tuple[int, int]) -> nn.Sequential:
    """Return a convolution that keeps the size, and its batch norm, without activation."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def require_two_images(part: nn.Module, x: Tensor) -> None:
    """Raise `ValueError` where a batch norm of a single cell would have a single value."""
    if part.training and len(x) == 1 and not is_parallel():
        raise ValueError(
            f"{type(part).__name__} pools to a single cell, whose batch norm needs 2 images in a "
            "training step: raise dataset.batch_size."
        )


def is_parallel() -> bool:
    """Tell whether this process is one of several of a training."""
    return dist.is_available() and dist.is_initialized()


def exact(x: Tensor) -> Tensor:
    """Return a tensor in float32, or in float64 where it is: sums and positions need as much."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Compute in the dtype of the operands, whatever the caller's autocast says."""
    if x.is_meta:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def normalise(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (image - mean) / std of (N, C, H, W), in channels-last layout.

    The dtype is that of ``mean`` and ``std`` (C, 1, 1).
    """
    count, channels, height, width = image.shape
    # Whole rows of pixels are normalised at once: with the channels of one pixel side by side, a
    # CPU would take them three at a time.
    rows = image.permute(0, 2, 3, 1).reshape(count, height, width * channels)
    rows = (rows - mean.flatten().repeat(width)).div_(std.flatten().repeat(width)).to(mean.dtype)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


class ChannelDropout(nn.Module):
    """`nn.Dropout2d` whose processes draw the mask of the joined batch and take their own part.

    With the same random state on all processes (`cyclenet.training.callbacks.SeedPerBatch`) and
    equal shares of the batch, the channels that a sample loses do not depend on the number of
    processes. In one process it is `nn.Dropout2d`, bit by bit.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole channels of (N, C, H, W), in training only."""
        if not self.training or not self.p:
            return x
        rank, world_size = 0, 1
        if is_parallel():
            rank, world_size = dist.get_rank(), dist.get_world_size()
        count = len(x)
        kept = x.new_empty(world_size * count, *self._mask_shape(x))
        kept = kept.bernoulli_(1 - self.p).div_(1 - self.p)
        return x * kept[rank * count : (rank + 1) * count]

    def _mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[1], 1, 1)


class ElementDropout(ChannelDropout):
    """The same for single values, as `nn.Dropout`."""

    def _mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape[1:])


class _SafeOnCpu(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        if _far_apart(self):
            x = x.contiguous()
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


def _far_apart(conv: nn.Conv2d) -> bool:
    return conv.groups > 1 and conv.dilation[0] * (conv.kernel_size[0] - 1) >= 16


def avoid_slow_cpu_kernels(network: nn.Module) -> None:
    """Let convolutions that are slow or wrong in bfloat16 or channels-last on a CPU avoid these.

    The backward pass of depthwise ones is slower in bfloat16 than in float32. In channels-last
    layout, depthwise ones whose taps lie far apart (5x5 at rate 4) take 3 times as long. The
    backward pass of dilated ones gives NaN in bfloat16 and channels-last where the input channels
    are no multiple of 16 (torch 2.14.1 with bfloat16 in hardware; 87 channels at 23 x 30 pixels,
    for instance).
    """
    for conv in [module for module in network.modules() if isinstance(module, nn.Conv2d)]:
        depthwise = conv.groups == conv.in_channels > 1
        dilated = max(conv.dilation) > 1 and conv.in_channels % 16 != 0
        if depthwise or dilated:
            # timm's own subclasses (Conv2dSame) stay base classes, so that their padding is kept.
            if _far_apart(conv):  # Strides of the filter choose the layout too.
                conv.weight.data = conv.weight.data.flatten().view(conv.weight.shape)
            own = type(conv)
            conv.__class__ = type(f"Kind{own.__name__}", (_SafeOnCpu, own), {})
