"""What a trained network makes of one image (section 5, Fig. 4).

Similarity maps, Grad-CAM, the decoder's alignment and receptive fields are computed from the
features of the context module's parts (`cyclenet.models.contexts.base.Context.passes`). All is
computed on the whole image in float32.
"""

from contextlib import AbstractContextManager
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclenet.config.schema import ProtocolConfig
from cyclenet.deploy.model import Model
from cyclenet.lab.explain.geometry import cell_of, middles, over_pixels
from cyclenet.models.contexts.base import Context
from cyclenet.models.cyclenet import CycleNet
from cyclenet.models.resize import resize_rows
from cyclenet.scoring.inference import computing, predict


class Offsets(NamedTuple):
    """What a decoder's alignment does to one image, at the size (h, w) of the low-level features.

    Attributes:
        positions: (h, w, groups, taps, 2) sampling positions (x, y) in pixels of the image.
        shift: (h, w, groups, taps, 2) displacements (dx, dy) from where a plain convolution
            samples, in pixels of the image.
        modulation: (h, w, groups, taps) factors of the samples, or None.
        upsampled: (C, h, w) context features as they are interpolated.
        aligned: (C, h, w) the same after the deformable convolution.
    """

    positions: np.ndarray
    shift: np.ndarray
    modulation: np.ndarray | None
    upsampled: np.ndarray
    aligned: np.ndarray


class Explained:
    """One image, and the features that the network has of it, which are computed once.

    Args:
        model: the trained network, whose parameters stop requiring gradients.
        image: (H, W, 3) uint8 RGB.

    Attributes:
        parts: names of the parts, in order.
        layers: names of a part's layers; with several, the last is their concatenation.
        passes: outputs of each part's layers.
    """

    def __init__(self, model: Model, image: np.ndarray) -> None:
        self.model, self.image = model, image
        self.net: CycleNet = model.net.eval().requires_grad_(False)
        self.size = (image.shape[0], image.shape[1])
        if any(side < least for side, least in zip(self.size, self.net.least, strict=True)):
            height, width = self.net.least
            raise ValueError(
                f"model.context={model.cfg.model.context} is built for crops of {height} x "
                f"{width}: an image of {self.size[0]} x {self.size[1]} cannot be explained."
            )
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
        self.tensor = pixels[None].to(model.device)
        with torch.no_grad(), self._exactly():
            self.levels = self.net.features(self.tensor)
            self.passes = self._passes(self.levels)
        self.parts = list(self.net.context.part_names)
        self.layers = layers_shown(self.net.context)

    def _exactly(self) -> AbstractContextManager[None]:
        """Compute in float32, as evaluations do."""
        return computing("32-true", self.model.device)

    def _passes(self, levels: list[Tensor]) -> list[list[Tensor]]:
        context = self.net.context
        return list(context.passes(context.reduce(self.net.context_input(levels))))

    def _logits_of(self, levels: list[Tensor], outputs: list[Tensor]) -> Tensor:
        return self.net.head(self._fused(levels, outputs), levels)

    def _fused(self, levels: list[Tensor], outputs: list[Tensor]) -> Tensor:
        context = self.net.context
        return context.fuse(context.reduce(self.net.context_input(levels)), outputs)

    @cached_property
    def logits(self) -> list[Tensor]:
        """Logits (1, C, h, w) that follow from each part, at the decoder's resolution."""
        with torch.no_grad(), self._exactly():
            return [self._logits_of(self.levels, outputs) for outputs in self.passes]

    @cached_property
    def labels(self) -> list[np.ndarray]:
        """Train ids (H, W), uint8, that follow from each part, fused and decoded like the last.

        Only the last part was trained to give them.
        """
        return [self._labels_of(logits) for logits in self.logits]

    def _labels_of(self, logits: Tensor) -> np.ndarray:
        labels = predict(lambda _: logits, self.tensor, ProtocolConfig(), self.net.grid)
        return labels[0].cpu().numpy()

    def cell(self, x: int, y: int, shape: tuple[int, int] | torch.Size) -> tuple[int, int]:
        """Return (row, column) of the feature, in a map of ``shape``, that stands for a pixel.

        Raises:
            ValueError: the pixel lies outside the image.
        """
        height, width = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"The point {x},{y} lies outside the image ({width} x {height} pixels, counted "
                "from 0)."
            )
        grid = self.net.grid
        return cell_of(y, height, shape[0], grid), cell_of(x, width, shape[1], grid)

    def over_pixels(self, values: np.ndarray) -> np.ndarray:
        """Show a map of features (h, w) or (h, w, c) over the image (H, W)."""
        return over_pixels(values, self.size, self.net.grid)

    def probabilities(self, x: int, y: int) -> np.ndarray:
        """Return the class probabilities (parts, C) at a pixel."""
        self.cell(x, y, self.size)
        at = [self._at(logits, x, y) for logits in self.logits]
        return torch.stack(at).softmax(1).cpu().numpy()

    def _at(self, logits: Tensor, x: int, y: int) -> Tensor:
        """Return the logits (C,) of a pixel of the image."""
        row = resize_rows(logits, self.size, slice(y, y + 1), self.net.grid)
        return row[0, :, 0, x]

    def similarity(self, x: int, y: int) -> np.ndarray:
        """Return the cosine similarity of a pixel's feature with all others (Fig. 4 b, c).

        Returns:
            (parts, layers, h, w) in [-1, 1]: for each layer's output, and with several last for
            their concatenation.
        """
        row, column = self.cell(x, y, self.levels[3].shape[-2:])
        parts = []
        for outputs in self.passes:
            joined = [torch.cat(outputs, 1)] if len(outputs) > 1 else []
            maps = []
            for feature in [*outputs, *joined]:
                unit = F.normalize(feature[0], dim=0)
                maps.append((unit * unit[:, row, column, None, None]).sum(0))
            parts.append(torch.stack(maps))
        return torch.stack(parts).cpu().numpy()

    def grad_cam(self, x: int, y: int, target: int | None = None) -> np.ndarray:
        """Return the class activation map of one pixel's score, for each part (Fig. 4 d, e).

        This is Grad-CAM (arXiv:1610.02391). The score is the network's own, at its end; the
        activations are a part's concatenated outputs, so that PartI's gradient comes through the
        feedback.

        Args:
            x: column of the pixel.
            y: its row.
            target: the class; None takes the one predicted there.

        Returns:
            (parts, h, w), 0 or more.
        """
        if target is None:
            target = int(self.probabilities(x, y)[-1].argmax())
        joined: list[Tensor] = []

        def tap(outputs: list[Tensor]) -> list[Tensor]:
            # A part is seen as its concatenation: what a layer gives to later layers of its own
            # part does not count.
            joined.append(torch.cat(outputs, 1))
            return list(joined[-1].split([output.shape[1] for output in outputs], 1))

        levels = [level.clone().requires_grad_() for level in self.levels]
        context = self.net.context
        with self._exactly():
            passes = list(context.passes(context.reduce(self.net.context_input(levels)), tap))
            score = self._at(self._logits_of(levels, passes[-1]), x, y)[target]
            gradients = torch.autograd.grad(score, joined)
        maps = []
        for features, gradient in zip(joined, gradients, strict=True):
            weights = gradient.mean((2, 3), keepdim=True)
            maps.append((weights * features).sum(1).relu())
        return torch.cat(maps).detach().cpu().numpy()

    @cached_property
    def offsets(self) -> Offsets:
        """What the decoder samples, and what comes of it.

        Raises:
            ValueError: the model's decoder does not align.
        """
        net = self.net
        if not net.decoder.aligns:
            raise ValueError(
                f"model.decoder={self.model.cfg.model.decoder} has no offsets: choose a model with "
                "model.decoder=adc."
            )
        with torch.no_grad(), self._exactly():
            context = self._fused(self.levels, self.passes[-1])
            found = net.decoder.alignment(context, *net.levels(self.levels))
        height, width = found.upsampled.shape[-2:]
        groups = found.groups
        taps = found.offset.shape[1] // (2 * groups)
        # (dy, dx) interleaved becomes (h, w, groups, taps, (dx, dy)).
        moved = found.offset[0].view(groups, taps, 2, height, width).permute(3, 4, 0, 1, 2).flip(-1)
        rows, columns = (
            middles(length, cells, net.grid)
            for length, cells in zip(self.size, (height, width), strict=True)
        )
        # Pixels of the image from one feature to the next, (x, y).
        zoom = np.array([_step(columns, self.size[1]), _step(rows, self.size[0])])
        side = round(taps**0.5)
        reach = np.arange(side) - side // 2
        steps = np.stack(np.meshgrid(reach, reach), -1).reshape(taps, 2)
        shift = moved.cpu().numpy() * zoom
        plain = np.stack(np.meshgrid(columns, rows), -1)[:, :, None, None]
        modulation = None
        if found.mask is not None:
            factors = found.mask[0].view(groups, taps, height, width)
            modulation = factors.permute(2, 3, 0, 1).cpu().numpy()
        return Offsets(
            plain + steps * zoom + shift,
            shift,
            modulation,
            found.upsampled[0].cpu().numpy(),
            found.aligned[0].cpu().numpy(),
        )

    def receptive_field(self, x: int, y: int, draws: int = 8) -> np.ndarray:
        """Return the effective receptive field of a pixel's feature in each part.

        See arXiv:1701.04128. It is the norm of the derivative of the part's concatenated features
        there by each pixel of the image: over channels in quadrature, estimated from random signs
        of the channels (Hutchinson), which are the same at every call.

        Returns:
            (parts, H, W), each with sum 1.
        """
        row, column = self.cell(x, y, self.levels[3].shape[-2:])
        image = self.tensor.float().requires_grad_()
        generator = torch.Generator().manual_seed(0)
        fields = []
        with self._exactly():
            passes = self._passes(self.net.features(image))
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


def layers_shown(context: Context) -> list[str]:
    """Name what is shown of a part: its layers, and with several their concatenation."""
    names = list(context.layer_names)
    return [*names, "concatenation"] if len(names) > 1 else names


def _step(places: np.ndarray, length: int) -> float:
    return float(places[1] - places[0]) if len(places) > 1 else float(length)
