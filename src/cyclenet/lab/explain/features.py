"""What a trained network makes of one image: similarity maps, Grad-CAM, ADC's offsets, receptive fields (section 5, Fig. 4).

CycleASPP's features are read in its parts: PartI, and each pass of PartII after it. Other context modules have a single part,
their output. All is computed on the whole image in float32.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclenet.config import ProtocolConfig
from cyclenet.data.images import IGNORE
from cyclenet.models.context import CycleASPP
from cyclenet.models.cyclenet import CycleNet
from cyclenet.models.decoder import ADC
from cyclenet.models.layers import resize, resize_rows
from cyclenet.scoring.inference import predict
from cyclenet.training.task import SegmentationTask


class Offsets(NamedTuple):
    """What ADC does to one image, at the resolution of the low-level features (h, w).

    Attributes:
        positions: (h, w, groups, 9, 2) sampling positions (x, y) in pixels of the image.
        shift: (h, w, groups, 9, 2) displacements (dx, dy) from where a plain convolution samples, in pixels of the image.
        modulation: (h, w, groups, 9) factors of the samples, or None.
        upsampled: (C, h, w) context features as they are interpolated.
        aligned: (C, h, w) the same after the deformable convolution.
    """

    positions: np.ndarray
    shift: np.ndarray
    modulation: np.ndarray | None
    upsampled: np.ndarray
    aligned: np.ndarray


class Explained:
    """One image, and the features that the network has of it; they are computed once.

    Args:
        task: the trained model; its parameters stop requiring gradients.
        image: (H, W, 3) uint8 RGB.

    Attributes:
        parts: names of the parts, in order.
        layers: names of a part's layers; the last is their concatenation.
    """

    def __init__(self, task: SegmentationTask, image: np.ndarray) -> None:
        self.task, self.net, self.image = task.eval().requires_grad_(False), task.net, image
        self.size = (image.shape[0], image.shape[1])
        self.tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(task.device)
        with torch.no_grad():
            self.low, _, self.last = self.net.features(self.tensor)
            self.passes = _passes(self.net, self.last)
        self.parts, self.layers = part_names(self.net), layer_names(self.net)

    @cached_property
    def logits(self) -> list[Tensor]:
        """Logits (1, C, h, w) that follow from each part, of the decoder's resolution."""
        with torch.no_grad():
            return [_logits(self.net, self.last, self.low, outputs) for outputs in self.passes]

    def cell(self, x: int, y: int, shape: tuple[int, int] | torch.Size) -> tuple[int, int]:
        """Return (row, column) of the feature, in a map of ``shape``, that stands for a pixel of the image.

        Raises:
            ValueError: the pixel lies outside the image.
        """
        height, width = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"The point {x},{y} lies outside the image ({width} x {height} pixels, counted from 0).")
        return _cell(y, height, shape[0], self.net.align_corners), _cell(x, width, shape[1], self.net.align_corners)

    @cached_property
    def labels(self) -> list[np.ndarray]:
        """Train ids (H, W), uint8, that follow from each part: its features, fused and decoded like the last one's.

        Of a part before the last these are what training never asked of it.
        """
        return [self._labels_of(logits) for logits in self.logits]

    def _labels_of(self, logits: Tensor) -> np.ndarray:
        return predict(lambda _: logits, self.tensor, ProtocolConfig(), self.net.align_corners)[0].cpu().numpy()

    def probabilities(self, x: int, y: int) -> np.ndarray:
        """Return the class probabilities (parts, C) at a pixel."""
        self.cell(x, y, self.size)
        corners = self.net.align_corners
        at = [resize_rows(logits, self.size, slice(y, y + 1), corners)[0, :, 0, x] for logits in self.logits]
        return torch.stack(at).softmax(1).cpu().numpy()

    def similarity(self, x: int, y: int) -> np.ndarray:
        """Return the cosine similarity of a pixel's feature with all others (Fig. 4 b, c).

        Returns:
            (parts, layers + 1, h, w) in [-1, 1]: of each layer's output, and last of all of them concatenated.
        """
        row, column = self.cell(x, y, self.last.shape[-2:])
        maps = []
        for outputs in self.passes:
            several = len(outputs) > 1
            for feature in [*outputs, torch.cat(outputs, 1)] if several else outputs:
                unit = F.normalize(feature[0], dim=0)
                maps.append((unit * unit[:, row, column, None, None]).sum(0))
        return torch.stack(maps).view(len(self.passes), -1, *maps[0].shape).cpu().numpy()

    def grad_cam(self, x: int, y: int, target: int | None = None) -> np.ndarray:
        """Return the class activation map of one pixel's score, for each part (Fig. 4 d, e; https://arxiv.org/abs/1610.02391).

        The score is the network's own, at its end; the activations are the concatenated outputs of a part's layers, so that
        of PartI the gradient comes through the feedback.

        Args:
            x: column of the pixel.
            y: its row.
            target: the class; None: the one predicted there.

        Returns:
            (parts, h, w), 0 or more.
        """
        from captum.attr import LayerGradCam

        if target is None:
            target = int(self.probabilities(x, y)[-1].argmax())
        rest = _Rest(self.net, len(self.passes), self.size, x, y)
        inputs = tuple(part.clone().requires_grad_() for part in (self.last, self.low))
        maps = [LayerGradCam(rest, tap).attribute(inputs, target, relu_attributions=True) for tap in rest.taps]
        return torch.cat(maps)[:, 0].detach().cpu().numpy()

    @cached_property
    def offsets(self) -> Offsets:
        """What ADC samples, and what comes of it. Raises `ValueError` where the model has no ADC."""
        decoder = self.net.decoder
        if not isinstance(decoder, ADC):
            raise ValueError("Only a model with model.decoder=adc has offsets.")
        with torch.no_grad():
            context = _fuse(self.net, self.last, self.passes[-1])
            high = resize(context, self.low.shape[-2:], self.net.align_corners)
            offset, mask = decoder.offsets(high, self.low)
            aligned = decoder.align(high, self.low)
        height, width = high.shape[-2:]
        groups, taps = decoder.offset_groups, decoder.taps
        # (dy, dx) interleaved, to (h, w, groups, taps, (dx, dy)).
        moved = offset[0].view(groups, taps, 2, height, width).permute(3, 4, 0, 1, 2).flip(-1).cpu().numpy()
        corners, zoom = self.net.align_corners, []
        plain = []
        for length, cells in ((self.size[1], width), (self.size[0], height)):
            plain.append(middles(length, cells, corners))
            zoom.append((length - 1) / max(cells - 1, 1) if corners else length / cells)
        steps = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(taps, 2)
        shift = moved * zoom
        return Offsets(
            np.stack(np.meshgrid(*plain), -1)[:, :, None, None] + steps * zoom + shift,
            shift,
            None if mask is None else mask[0].view(groups, taps, height, width).permute(2, 3, 0, 1).cpu().numpy(),
            high[0].cpu().numpy(),
            aligned[0].cpu().numpy(),
        )

    def receptive_field(self, x: int, y: int, draws: int = 8) -> np.ndarray:
        """Return the effective receptive field of a pixel's feature in each part (https://arxiv.org/abs/1701.04128).

        That is the norm of the derivative of the part's concatenated features there by each pixel of the image: over channels
        in quadrature, estimated from random signs of the channels (Hutchinson), which are the same at every call.

        Returns:
            (parts, H, W), each with sum 1.
        """
        row, column = self.cell(x, y, self.last.shape[-2:])
        image = self.tensor.float().requires_grad_()
        passes = _passes(self.net, self.net.features(image)[-1])
        generator = torch.Generator().manual_seed(0)
        fields = []
        for outputs in passes:
            at = torch.cat(outputs, 1)[0, :, row, column]
            squares = torch.zeros_like(image)
            for _ in range(draws):
                signs = torch.randint(0, 2, at.shape, generator=generator).to(at) * 2 - 1
                (gradient,) = torch.autograd.grad(at @ signs, image, retain_graph=True)
                squares += gradient**2
            field = squares[0].sum(0).sqrt()
            fields.append(field / field.sum().clamp(min=torch.finfo(field.dtype).tiny))
        return torch.stack(fields).cpu().numpy()


class _Rest(nn.Module):
    """The network after the backbone, to the class scores (1, C) of one pixel; a tap shows each part's concatenated outputs."""

    def __init__(self, net: CycleNet, parts: int, size: tuple[int, int], x: int, y: int) -> None:
        super().__init__()
        self.net, self.size, self.x, self.y = net, size, x, y
        self.taps = nn.ModuleList(nn.Identity() for _ in range(parts))

    def forward(self, last: Tensor, low: Tensor) -> Tensor:
        context = self.net.context
        if isinstance(context, CycleASPP):
            outputs = self._tapped(0, context.part1(context.reduce(last)))
            for k in range(1, context.feedback + 1):
                outputs = self._tapped(k, context.part2(outputs, k))
        else:
            outputs = self._tapped(0, [context(last)])
        logits = _logits(self.net, last, low, outputs)
        return resize_rows(logits, self.size, slice(self.y, self.y + 1), self.net.align_corners)[:, :, 0, self.x]

    def _tapped(self, k: int, outputs: list[Tensor]) -> list[Tensor]:
        return list(self.taps[k](torch.cat(outputs, 1)).split([part.shape[1] for part in outputs], 1))


def part_names(net: CycleNet) -> list[str]:
    """Name the parts that a network's features are read in."""
    if not isinstance(net.context, CycleASPP):
        return ["context"]
    feedback = net.context.feedback
    return ["PartI", *(["PartII"] if feedback == 1 else [f"PartII, pass {k}" for k in range(1, feedback + 1)])]


def layer_names(net: CycleNet) -> list[str]:
    """Name what `Explained.similarity` returns of each part."""
    if not isinstance(net.context, CycleASPP):
        return ["output"]
    return [f"rate {conv.dilation[0]}" for conv in net.context.atrous] + ["concatenation"]  # type: ignore[index]


def _passes(net: CycleNet, last: Tensor) -> list[list[Tensor]]:
    if not isinstance(net.context, CycleASPP):
        return [[net.context(last)]]
    return list(net.context.passes(net.context.reduce(last)))


def _fuse(net: CycleNet, last: Tensor, outputs: list[Tensor]) -> Tensor:
    return net.context.fuse([net.context.reduce(last), *outputs]) if isinstance(net.context, CycleASPP) else outputs[0]


def _logits(net: CycleNet, last: Tensor, low: Tensor, outputs: list[Tensor]) -> Tensor:
    return net.head(_fuse(net, last, outputs), low)


def _cell(position: int, length: int, cells: int, align_corners: bool) -> int:
    if align_corners:
        return round(position * (cells - 1) / max(length - 1, 1))
    return min(int((position + 0.5) * cells / length), cells - 1)


def middles(length: int, cells: int, align_corners: bool) -> np.ndarray:
    """Return where in an image of ``length`` pixels each of ``cells`` features lies: the inverse of `Explained.cell`."""
    index = np.arange(cells)
    return index * (length - 1) / max(cells - 1, 1) if align_corners else (index + 0.5) * length / cells - 0.5


def at_cells(values: np.ndarray, shape: tuple[int, ...], align_corners: bool) -> np.ndarray:
    """Return the values (H, W) of the pixels in the middle of each feature of a map of ``shape`` (h, w)."""
    rows, columns = (np.floor(middles(n, k, align_corners) + 0.5).astype(int) for n, k in zip(values.shape, shape, strict=True))
    return values[np.ix_(rows, columns)]


def components(features: np.ndarray) -> np.ndarray:
    """Show features (C, h, w) as colours (h, w, 3) in [0, 1]: their first three principal components, of fixed sign."""
    flat = features.reshape(len(features), -1).astype(np.float64)
    flat = flat - flat.mean(1, keepdims=True)
    vectors = np.linalg.eigh(flat @ flat.T)[1][:, ::-1][:, :3]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(vectors.shape[1])])
    shown = vectors.T @ flat
    low, high = np.percentile(shown, [1, 99], axis=1, keepdims=True)
    shown = np.clip((shown - low) / np.maximum(high - low, 1e-12), 0, 1)
    if len(shown) < 3:  # Fewer channels than colours.
        shown = np.concatenate([shown, np.zeros((3 - len(shown), shown.shape[1]))])
    return shown.T.reshape(*features.shape[1:], 3)


def spread(field: np.ndarray, x: int, y: int, labels: np.ndarray | None = None) -> dict[str, float]:
    """Measure a receptive field (H, W) around the pixel that it belongs to.

    Returns:
        ``radius_50`` and ``radius_90``, pixels, within which half and nine tenths of it lie; with ``labels`` (H, W) also
        ``foreign``, the share of it on pixels of other labels (`IGNORE` not counted).
    """
    rows, columns = np.indices(field.shape)
    distance = np.hypot(rows - y, columns - x).ravel()
    order = distance.argsort(kind="stable")
    inside = field.ravel()[order].cumsum()
    found = {f"radius_{p}": float(distance[order][np.searchsorted(inside, p / 100 * inside[-1])]) for p in (50, 90)}
    if labels is not None:
        known = labels != IGNORE
        found["foreign"] = float(field[known & (labels != labels[y, x])].sum() / max(field[known].sum(), 1e-12))
    return found
