"""From an image to class probabilities: whole or in sliding windows, at several scales, mirrored."""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cyclenet.config import ProtocolConfig
from cyclenet.models.layers import resize

Network = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in 0..255 -> logits (N, C, H, W)."""


@torch.inference_mode()
def predict(network: Network, image: Tensor, protocol: ProtocolConfig, align_corners: bool = False) -> Tensor:
    """Return class probabilities (N, C, H, W), float32, at the size of ``image``.

    Probabilities are averaged over scales and flips (the paper's multi-scale inference, section 4.2), in one running sum:
    memory grows neither with the number of scales nor with that of windows.

    Args:
        network: returns logits at its input's size, as `CycleNet.predict_logits`.
        image: (N, 3, H, W), RGB in 0..255.
        protocol: windows, scales and flip.
        align_corners: of the resizing.
    """
    size = (image.shape[-2], image.shape[-1])
    total: Tensor | None = None
    for scale in protocol.scales:
        scaled = resize(image.float(), (round(size[0] * scale), round(size[1] * scale)), align_corners)
        probabilities = resize(_windows(network, scaled, protocol), size, align_corners)
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(protocol.scales))


def windows(height: int, width: int, window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Cover an image with windows row by row; the last of a row or column is shifted back into the image."""

    def starts(length: int) -> list[int]:
        last = max(length - window, 0)
        return [*range(0, last, stride), last]

    for top, left in itertools.product(starts(height), starts(width)):
        yield slice(top, min(top + window, height)), slice(left, min(left + window, width))


def _windows(network: Network, image: Tensor, protocol: ProtocolConfig) -> Tensor:
    height, width = image.shape[-2:]
    window, stride = (protocol.window, protocol.stride) if protocol.window else (max(height, width), 1)
    total: Tensor | None = None
    count = image.new_zeros(height, width)
    for rows, columns in windows(height, width, window, stride):
        part = _view(network, image[..., rows, columns], protocol)
        if part.shape[-2:] == image.shape[-2:]:  # One window: nothing to add up.
            return part if protocol.window_average == "probs" else part.softmax(1)
        if total is None:
            total = part.new_zeros(*part.shape[:2], height, width)
        total[..., rows, columns] += part
        count[rows, columns] += 1
    assert total is not None
    total /= count
    return total if protocol.window_average == "probs" else total.softmax(1)


def _view(network: Network, image: Tensor, protocol: ProtocolConfig) -> Tensor:
    # What is averaged of one window: its probabilities, or logits.
    def once(view: Tensor) -> Tensor:
        logits = network(view).float()
        return logits.softmax(1) if protocol.window_average == "probs" else logits

    part = once(image)
    # Mirrored within the window, as semseg does; mmsegmentation mirrors the image, which moves the windows.
    return part.add_(once(image.flip(-1)).flip(-1)).div_(2) if protocol.flip else part
