"""From an image to its labels: whole or in sliding windows, at several scales, mirrored.

The network's logits are kept as small as they are. All that follows is done strip by strip of the
image's rows: resizing to the view, softmax, averages over views, resizing to the image, arg-max.
Class probabilities of full size, most of the memory otherwise, are never held.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from cyclenet.config.schema import ProtocolConfig
from cyclenet.models.cyclenet import CycleNet
from cyclenet.models.resize import Grid, combine_rows, resize, resize_rows, row_weights, strips

Network = Callable[[Tensor], Tensor]  # (N, 3, H, W) in 0..255 -> logits (N, C, h, w) of any size.

STRIP_ROWS = 24
"""Rows of a strip: few enough for memory, many beside those that two strips both compute."""

PIXELS_AT_ONCE = {"cuda": 1 << 21}
"""Windows and mirror images are predicted together up to so many pixels (a Cityscapes image has
them). On a device that is not named they are predicted one by one: CPUs gain nothing."""


@contextmanager
def without_tf32() -> Iterator[None]:
    """Keep cuDNN from computing float32 convolutions in TF32, which has 10 bits of them.

    The switch is one for the whole process: threads that predict at once share it, and the last
    one sets it back.
    """
    with _precise.lock:
        if not _precise.users:
            _precise.tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
        _precise.users += 1
    try:
        yield
    finally:
        with _precise.lock:
            _precise.users -= 1
            if not _precise.users:
                torch.backends.cudnn.allow_tf32 = _precise.tf32


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Compute networks in ``32-true`` or ``bf16-mixed``, whatever a training around it does.

    A reported number must not depend on the training's precision.
    """
    low = precision == "bf16-mixed"
    with without_tf32(), torch.autocast(device.type, torch.bfloat16, enabled=low):
        yield


def view_features(net: CycleNet, view: Tensor) -> list[Tensor]:
    """Return a frozen backbone's features of a view (1, 3, H, W): what a cache holds."""
    with torch.no_grad(), computing("32-true", view.device):
        return net.features(view)


def from_features(net: CycleNet, features: list[Tensor]) -> Network:
    """Return a network that has the features of its image already.

    It serves a protocol that looks at images once, as they are.
    """
    return lambda view: net.segment(as_input(net, features))[0]


def as_input(net: CycleNet, features: list[Tensor]) -> list[Tensor]:
    """Return features that come from a cache, in bfloat16, in the precision of the weights."""
    return [level.to(net.mean.dtype) for level in features]


@dataclass
class _Precise:
    lock: Lock = field(default_factory=Lock)
    users: int = 0
    tf32: bool = True


_precise = _Precise()


class Window(NamedTuple):
    """A part of a scaled image: where it lies, and its logits (views, N, C, h, w), float32.

    The views are the part as it is and, with flips, its mirror image.
    """

    rows: slice
    columns: slice
    logits: Tensor


class Scaled(NamedTuple):
    """An image at one scale: its size and its windows. Without windows, one holds the image."""

    size: tuple[int, int]
    windows: list[Window]


def predict(network: Network, image: Tensor, protocol: ProtocolConfig, grid: Grid) -> Tensor:
    """Return the predicted train ids (N, H, W), uint8, of images.

    Class probabilities are averaged over scales, windows and mirror images (the paper's multi-scale
    inference, section 4.2). Memory grows with the number of views by their logits only.

    Args:
        network: returns logits, as `CycleNet.logits` does; it is not compiled, for views differ in
            size.
        image: (N, 3, H, W), RGB in 0..255.
        protocol: windows, scales and flip.
        grid: how the logits lie over the pixels of a view.
    """
    size = (image.shape[-2], image.shape[-1])
    with torch.inference_mode():
        scales = predict_views(network, image, protocol, grid)
        labels = torch.empty(image.shape[0], *size, dtype=torch.uint8, device=image.device)
        for rows, scores in merge(scales, size, protocol, grid):
            labels[:, rows] = scores.max(1).indices
    return labels


def predict_views(
    network: Network, image: Tensor, protocol: ProtocolConfig, grid: Grid
) -> list[Scaled]:
    """Run the network on all views of images: the forward passes of `predict`."""
    scales = []
    for scale in protocol.scales:
        size = (max(round(image.shape[-2] * scale), 1), max(round(image.shape[-1] * scale), 1))
        scaled = resize(image.float(), size, grid.align_corners)
        window, stride = protocol.window or max(size), protocol.stride or 1
        places = list(windows(*size, window, stride))
        views = []
        for rows, columns in places:
            crop = scaled[..., rows, columns]
            # The mirror image is taken of the window, as in semseg. mmsegmentation mirrors the
            # image, which moves the windows.
            views += [crop, crop.flip(-1)] if protocol.flip else [crop]
        logits = _run(network, views)
        each = len(views) // len(places)
        parts = [torch.stack(logits[i : i + each]) for i in range(0, len(logits), each)]
        found = [Window(*place, part) for place, part in zip(places, parts, strict=True)]
        scales.append(Scaled(size, found))
    return scales


def _run(network: Network, views: list[Tensor]) -> list[Tensor]:
    """Return the logits of each view, float32; several run together where the device gains."""
    images, device = len(views[0]), views[0].device.type
    together = max(PIXELS_AT_ONCE.get(device, 0) // views[0][:, 0].numel(), 1)
    logits: list[Tensor] = []
    for first in range(0, len(views), together):
        batch = views[first : first + together]
        joined = batch[0] if len(batch) == 1 else torch.cat(batch)
        logits += network(joined).float().split(images)
    return logits


def merge(
    scales: list[Scaled], size: tuple[int, int], protocol: ProtocolConfig, grid: Grid
) -> Iterator[tuple[slice, Tensor]]:
    """Yield strips of the image: their rows, and their mean class probabilities over all views.

    These are (N, C, rows, W), float32. With a single view of the image's own size there is nothing
    to average: its logits are yielded without a softmax, and give the same labels.
    """
    single = _single(scales, size)
    for rows in strips(size[0], STRIP_ROWS):
        if single:
            yield rows, resize_rows(scales[0].windows[0].logits[0], size, rows, grid)
            continue
        total: Tensor | None = None
        for scaled in scales:
            if scaled.size == size:
                part = _probabilities(scaled, rows, protocol, grid)
            else:
                like = scaled.windows[0].logits
                corners = grid.align_corners
                needed, weights = row_weights(scaled.size[0], size[0], rows, corners, like)
                part = _probabilities(scaled, needed, protocol, grid)
                part = combine_rows(part, weights, size[1], corners)
            total = part if total is None else total.add_(part)
        assert total is not None
        yield rows, total.div_(len(scales))


def probability_strips(
    network: Network, image: Tensor, protocol: ProtocolConfig, grid: Grid
) -> Iterator[tuple[slice, Tensor]]:
    """Yield what `merge` does, always as probabilities."""
    size = (image.shape[-2], image.shape[-1])
    scales = predict_views(network, image, protocol, grid)
    single = _single(scales, size)
    for rows, scores in merge(scales, size, protocol, grid):
        yield rows, scores.softmax(1) if single else scores


def _single(scales: list[Scaled], size: tuple[int, int]) -> bool:
    """Tell whether the only view is the image of ``size`` as it is."""
    first = scales[0].windows
    alone = len(scales) == len(first) == len(first[0].logits) == 1
    return alone and scales[0].size == size


def _probabilities(scaled: Scaled, rows: slice, protocol: ProtocolConfig, grid: Grid) -> Tensor:
    """Return rows of the class probabilities at one scale, averaged over windows and mirrors."""
    average_logits = protocol.window_average == "logits"
    total: Tensor | None = None
    device = scaled.windows[0].logits.device
    count = torch.zeros(rows.stop - rows.start, scaled.size[1], device=device)
    for window in scaled.windows:
        top, bottom = max(rows.start, window.rows.start), min(rows.stop, window.rows.stop)
        if top >= bottom:
            continue
        inside = slice(top - window.rows.start, bottom - window.rows.start)
        height = window.rows.stop - window.rows.start
        shape = (height, window.columns.stop - window.columns.start)
        part = _views(window.logits, shape, inside, average_logits, grid)
        if len(scaled.windows) == 1:  # There is nothing to add up.
            total = part
            break
        if total is None:
            total = part.new_zeros(*part.shape[:2], *count.shape)
        outside = slice(top - rows.start, bottom - rows.start)
        total[..., outside, window.columns] += part
        count[outside, window.columns] += 1
    assert total is not None
    if len(scaled.windows) > 1:
        total /= count
    return total.softmax(1) if average_logits else total


def _views(
    logits: Tensor, size: tuple[int, int], rows: slice, average_logits: bool, grid: Grid
) -> Tensor:
    """Return the mean over views of a window's rows: of their probabilities, or their logits."""
    resized = resize_rows(logits.flatten(0, 1), size, rows, grid)
    scores = resized if average_logits else resized.softmax(1)
    views = scores.view(*logits.shape[:3], *scores.shape[2:])
    if len(views) == 1:
        return views[0]
    # The padding of a mirror image lies at its right, so it is cut off before mirroring back.
    return (views[0] + views[1].flip(-1)) / 2


def windows(height: int, width: int, window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Cover an image with windows row by row.

    The last of a row or column is shifted back into the image.
    """

    def starts(length: int) -> list[int]:
        last = max(length - window, 0)
        return [*range(0, last, stride), last]

    for top, left in itertools.product(starts(height), starts(width)):
        yield slice(top, min(top + window, height)), slice(left, min(left + window, width))
