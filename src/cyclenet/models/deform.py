"""Modulated deformable convolution (DCNv2, arXiv:1811.11168; eq. 4) in every precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor

_standard = ContextVar("standard", default=False)


def deform_conv2d(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, groups: int
) -> Tensor:
    """Convolve ``x`` at displaced positions: stride 1, the size is kept.

    Equal to `torchvision.ops.deform_conv2d` in value and gradients. On CPU, and where torchvision
    was built without a kernel for the device, the four bilinear neighbours of each tap are gathered
    as one weighted embedding bag, and the gathered taps pass one 1x1 convolution: this is several
    times faster than torchvision's kernel and takes bfloat16. On GPUs, and in a graph that is
    recorded to be exported (but see `standard_operators`), torchvision's kernel runs; it has no
    bfloat16, so under autocast it runs in float32. Sampling positions are float32 (or float64) in
    any precision: bfloat16 cannot tell pixel 257 from 258.

    Args:
        x: (N, C, H, W) features.
        offset: (N, 2 * groups * K * K, H, W) displacements in pixels, (dy, dx) interleaved tap by
            tap.
        mask: (N, groups * K * K, H, W) factors of the taps, or None for 1.
        weight: (C_out, C, K, K), K odd.
        groups: number of channel groups with offsets of their own.

    Returns:
        (N, C_out, H, W) in the dtype that a convolution of ``x`` would have.
    """
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    # Autocast does not know the meta device, on which costs are counted.
    kind = "cpu" if x.device.type == "meta" else x.device.type
    autocast = torch.is_autocast_enabled(kind) and exact == torch.float32
    dtype = torch.get_autocast_dtype(kind) if autocast else x.dtype
    with torch.autocast(kind, enabled=False):
        offset, mask = offset.to(exact), None if mask is None else mask.to(exact)
        recorded = torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting()
        if recorded and _standard.get():
            return grid_sample_conv(x.to(dtype), offset, mask, weight.to(dtype), groups)
        if not recorded and (x.device.type == "cpu" or not has_kernel(x.device.type)):
            return gather_conv(x.to(dtype), offset, mask, weight.to(dtype), groups)
        out: Tensor = torchvision.ops.deform_conv2d(
            x.to(exact), offset, weight.to(exact), padding=int(weight.shape[-1]) // 2, mask=mask
        )
        return out.to(dtype)


def has_kernel(device: str) -> bool:
    """Tell whether torchvision was built with its deformable convolution for a device.

    A CPU build of torchvision beside a CUDA build of PyTorch has none for CUDA.
    """
    key = {"meta": "Meta"}.get(device, device.upper())  # The dispatcher's name of the device.
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::deform_conv2d", key)
    except RuntimeError:  # It has another name.
        return False


@contextmanager
def standard_operators() -> Iterator[None]:
    """Let graphs that are recorded within be of operators that every runtime has."""
    token = _standard.set(True)
    try:
        yield
    finally:
        _standard.reset(token)


def grid_sample_conv(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, groups: int
) -> Tensor:
    """Do what `deform_conv2d` does by one ``grid_sample`` a tap, in the precision of ``x``."""
    n, channels, height, width = x.shape
    kernel, per_group = int(weight.shape[-1]), channels // groups
    rows = torch.arange(height, device=x.device).view(1, 1, height, 1) - kernel // 2
    columns = torch.arange(width, device=x.device) - kernel // 2
    # Images and groups lie on one axis, because they are sampled alike.
    apart = x.reshape(n * groups, per_group, height, width)
    displaced = offset.reshape(n * groups, kernel * kernel, 2, height, width)
    y, x_ = displaced[:, :, 0] + rows, displaced[:, :, 1] + columns
    taps = []
    for tap in range(kernel * kernel):
        # Pixel 0 is centred at -1 + 1 / side.
        down = (2 * (y[:, tap] + tap // kernel) + 1) / height - 1
        right = (2 * (x_[:, tap] + tap % kernel) + 1) / width - 1
        grid = torch.stack([right, down], -1).to(x.dtype)
        sampled = F.grid_sample(apart, grid, align_corners=False)
        if mask is not None:
            factor = mask.reshape(n * groups, kernel * kernel, 1, height, width)[:, tap]
            sampled = sampled * factor.to(x.dtype)
        taps.append(sampled.reshape(n, channels, height, width))
    # The exporter to ONNX knows the sides of no computed filter, so it is no convolution.
    out = weight.permute(0, 2, 3, 1).flatten(1) @ torch.cat(taps, 1).flatten(2)
    return out.reshape(n, -1, height, width)


def gather_conv(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, groups: int
) -> Tensor:
    """Do what `deform_conv2d` does, in the precision of ``x``, on any device."""
    n, channels, height, width = x.shape
    taps = weight.shape[-1] ** 2
    y, x_ = _positions(offset, groups, weight.shape[-1])
    index, bilinear = _neighbours(y, x_, height, width)
    if mask is not None:
        factors = mask.view(n, groups, taps, height * width).permute(0, 3, 2, 1)
        bilinear = bilinear * factors.unsqueeze(-1)

    # One row of the table holds the channels of one group at one pixel of one image.
    table = x.permute(0, 2, 3, 1).reshape(n * height * width * groups, channels // groups)
    image = torch.arange(n, device=x.device).view(n, 1, 1, 1, 1) * (height * width)
    group = torch.arange(groups, device=x.device).view(groups, 1)
    index = (index + image) * groups + group
    if len(table) < 2**31:  # Half the bytes to move and to sort.
        index = index.int()
    # (N * pixels, taps * C): the columns of a convolution, tap by tap.
    sampled = F.embedding_bag(
        index.view(-1, 4), table, per_sample_weights=bilinear.reshape(-1, 4).to(x.dtype), mode="sum"
    )
    columns = sampled.view(n, height, width, taps * channels).permute(0, 3, 1, 2)
    # On AMD's processors a 1x1 convolution of oneDNN is a third faster than MKL's product.
    return F.conv2d(columns, weight.permute(0, 2, 3, 1).reshape(-1, taps * channels, 1, 1))


def _positions(offset: Tensor, groups: int, kernel: int) -> tuple[Tensor, Tensor]:
    """Return the sampling positions y and x, (N, pixels, taps, groups) each, in pixels."""
    n, _, height, width = offset.shape
    pixels, taps, device = height * width, kernel * kernel, offset.device
    steps = torch.arange(kernel, device=device, dtype=offset.dtype) - kernel // 2
    dy, dx = offset.view(n, groups, taps, 2, pixels).permute(3, 0, 4, 2, 1)
    rows = torch.arange(height, device=device).repeat_interleave(width)
    columns = torch.arange(width, device=device).repeat(height)
    y = dy + rows.view(pixels, 1, 1) + steps.repeat_interleave(kernel).view(taps, 1)
    x = dx + columns.view(pixels, 1, 1) + steps.repeat(kernel).view(taps, 1)
    return y, x


def _neighbours(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the four neighbours of each position: their pixel numbers and bilinear weights.

    A neighbour outside the image has weight 0.
    """
    # Far-off positions are brought near before they become integers, which could not hold them.
    # The bounds lie beyond -1 and `height`, where taps of a border pixel lie when offsets are 0:
    # `clamp` passes no gradient at its ends.
    y, x = y.clamp(-2, height + 1), x.clamp(-2, width + 1)
    y0, x0 = y.detach().floor(), x.detach().floor()
    fy, fx = y - y0, x - x0
    iy = torch.stack([y0, y0, y0 + 1, y0 + 1], -1).long()
    ix = torch.stack([x0, x0 + 1, x0, x0 + 1], -1).long()
    bilinear = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], -1)
    inside = (iy >= 0) & (iy < height) & (ix >= 0) & (ix < width)
    index = iy.clamp(0, height - 1) * width + ix.clamp(0, width - 1)
    return index, bilinear * inside
