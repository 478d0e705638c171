"""From an image to its labels: whole or in sliding windows, at several scales, mirrored.

The network's logits are kept as small as they are. All that follows (to the size of the view, softmax, averages over views,
to the size of the image, arg-max) is done strip by strip of the image's rows, so that class probabilities of full size, most
of the memory otherwise, are never held.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cyclenet.config import ProtocolConfig
from cyclenet.models.layers import combine_rows, resize, resize_rows, row_weights, strips

Network = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in 0..255 -> logits (N, C, h, w) of any size."""

STRIP_ROWS = 24
"""Rows of the image in a strip: small beside the image, large beside what a strip computes again at its edges."""

PIXELS_AT_ONCE = {"cuda": 1 << 21}
"""Windows and mirror images are predicted together up to so many pixels (of a Cityscapes image); where a device is not named,
one by one: CPUs gain nothing."""


class Window(NamedTuple):
    """A part of a scaled image: where it lies, and its logits (views, N, C, h, w), float32.

    The views are the part as it is and, with flips, as a mirror shows it; the latter's logits are mirrored back.
    """

    rows: slice
    columns: slice
    logits: Tensor


class Scaled(NamedTuple):
    """An image at one scale: its size, and its windows; one of the whole image where there are none."""

    size: tuple[int, int]
    windows: list[Window]


def predict(network: Network, image: Tensor, protocol: ProtocolConfig, align_corners: bool = False) -> Tensor:
    """Return the predicted train ids (N, H, W), uint8, of images.

    Class probabilities are averaged over scales, windows and mirror images (the paper's multi-scale inference, section 4.2).
    Memory grows with the number of views by their logits only.

    Args:
        network: returns logits; of `CycleNet`, those of its own resolution.
        image: (N, 3, H, W), RGB in 0..255.
        protocol: windows, scales and flip.
        align_corners: of the resizing.
    """
    size = (image.shape[-2], image.shape[-1])
    with torch.inference_mode():
        scales = predict_views(network, image, protocol, align_corners)
        labels = torch.empty(image.shape[0], *size, dtype=torch.uint8, device=image.device)
        for rows, scores in merge(scales, size, protocol, align_corners):
            labels[:, rows] = scores.max(1).indices
    return labels


def predict_views(network: Network, image: Tensor, protocol: ProtocolConfig, align_corners: bool) -> list[Scaled]:
    """Run the network on all views of images: the forward passes of `predict`."""
    scales = []
    for scale in protocol.scales:
        size = (round(image.shape[-2] * scale), round(image.shape[-1] * scale))
        scaled = resize(image.float(), size, align_corners)
        window, stride = (protocol.window, protocol.stride) if protocol.window else (max(size), 1)
        places = list(windows(*size, window, stride))
        crops = (scaled[..., rows, columns] for rows, columns in places)
        # Mirrored within the window, as semseg does; mmsegmentation mirrors the image, which moves the windows.
        views = [view for crop in crops for view in ([crop, crop.flip(-1)] if protocol.flip else [crop])]
        per_window = len(views) // len(places)
        together = max(PIXELS_AT_ONCE.get(image.device.type, 0) // views[0][:, 0].numel(), 1)
        logits = [
            part
            for first in range(0, len(views), together)
            for part in network(_joined(views[first : first + together])).float().split(len(image))
        ]
        if protocol.flip:
            logits[1::2] = [part.flip(-1) for part in logits[1::2]]
        parts = [torch.stack(logits[i : i + per_window]) for i in range(0, len(logits), per_window)]
        scales.append(Scaled(size, [Window(*place, part) for place, part in zip(places, parts, strict=True)]))
    return scales


def _joined(views: list[Tensor]) -> Tensor:
    return views[0] if len(views) == 1 else torch.cat(views)


def merge(
    scales: list[Scaled], size: tuple[int, int], protocol: ProtocolConfig, align_corners: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Yield strips of the image: their rows, and the mean class probabilities (N, C, rows, W) of all views, float32.

    Of a single view the logits are yielded as they are: their order is that of the probabilities.
    """
    single = len(scales) == 1 and len(scales[0].windows) == 1 and len(scales[0].windows[0].logits) == 1
    for rows in strips(size[0], STRIP_ROWS):
        if single:
            yield rows, resize_rows(scales[0].windows[0].logits[0], size, rows, align_corners)
            continue
        total: Tensor | None = None
        for scaled in scales:
            if scaled.size == size:
                part = _probabilities(scaled, rows, protocol, align_corners)
            else:
                needed, weights = row_weights(scaled.size[0], size[0], rows, align_corners, scaled.windows[0].logits)
                part = _probabilities(scaled, needed, protocol, align_corners)
                part = combine_rows(part, weights, size[1], align_corners)
            total = part if total is None else total.add_(part)
        assert total is not None
        yield rows, total.div_(len(scales))


def _probabilities(scaled: Scaled, rows: slice, protocol: ProtocolConfig, align_corners: bool) -> Tensor:
    # Rows of the probabilities of an image at one scale, averaged over its windows and their mirror images.
    average_logits = protocol.window_average == "logits"
    total: Tensor | None = None
    count = torch.zeros(rows.stop - rows.start, scaled.size[1], device=scaled.windows[0].logits.device)
    for window in scaled.windows:
        top, bottom = max(rows.start, window.rows.start), min(rows.stop, window.rows.stop)
        if top >= bottom:
            continue
        inside = slice(top - window.rows.start, bottom - window.rows.start)
        shape = (window.rows.stop - window.rows.start, window.columns.stop - window.columns.start)
        part = _views(window.logits, shape, inside, average_logits, align_corners)
        if len(scaled.windows) == 1:  # Nothing to add up.
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


def _views(logits: Tensor, size: tuple[int, int], rows: slice, average_logits: bool, align_corners: bool) -> Tensor:
    # The mean over views of a window's rows: of their class probabilities, or logits.
    resized = resize_rows(logits.flatten(0, 1), size, rows, align_corners)
    scores = resized if average_logits else resized.softmax(1)
    return scores.view(*logits.shape[:3], *scores.shape[2:]).mean(0)


def windows(height: int, width: int, window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Cover an image with windows row by row; the last of a row or column is shifted back into the image."""

    def starts(length: int) -> list[int]:
        last = max(length - window, 0)
        return [*range(0, last, stride), last]

    for top, left in itertools.product(starts(height), starts(width)):
        yield slice(top, min(top + window, height)), slice(left, min(left + window, width))
