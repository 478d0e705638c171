"""A trained network that labels pictures; Hydra and Lightning have no part in it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from cyclenet.config.restore import load_protocol
from cyclenet.config.schema import ProtocolConfig, TrainConfig
from cyclenet.data.images import read_image
from cyclenet.files import atomic_write
from cyclenet.models.cyclenet import CycleNet
from cyclenet.models.resize import Grid
from cyclenet.plots.pictures import overlay_with_legend
from cyclenet.scoring.inference import (
    PIXELS_AT_ONCE,
    computing,
    from_features,
    predict,
    probability_strips,
)

K = TypeVar("K")


@dataclass
class Result:
    """What a network says of one picture.

    Attributes:
        image: the picture, (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, numbers into ``classes``.
        classes: class names.
        palette: (classes, 3) uint8 RGB.
        probabilities: (classes, H, W) float32, where they were asked for.
        confidence: (H, W) float32, the probability of the label, where it was asked for.
    """

    image: np.ndarray
    labels: np.ndarray
    classes: list[str]
    palette: np.ndarray
    probabilities: np.ndarray | None = None
    confidence: np.ndarray | None = None

    def overlay(self) -> Image.Image:
        """Return the picture with the labels' colours over it, and a legend."""
        shown = overlay_with_legend(self.image, self.labels, self.classes, self.palette)
        return Image.fromarray(shown)

    def save(self, path: str | Path) -> None:
        """Write the labels as a PNG that holds their numbers, and shows them in their colours."""
        if Path(path).suffix.lower() != ".png":
            raise ValueError(f"{path} must end in .png: other formats change the labels.")
        picture = Image.fromarray(self.labels, "P")
        picture.putpalette(self.palette.tobytes())
        with atomic_write(Path(path)) as part:
            picture.save(part, "PNG")


class OnnxNetwork:
    """The network of an ONNX file that gives logits.

    They have the image's size, hence stride 1; other scales are resized as the network's own.
    """

    def __init__(self, session: Any, align_corners: bool) -> None:
        self.session, self.grid = session, Grid(1, align_corners)

    def logits(self, image: Tensor) -> Tensor:
        """Return the logits (N, C, H, W) of images (N, 3, H, W)."""
        (found,) = self.session.run(None, {"image": image.float().cpu().numpy()})
        return torch.from_numpy(found)


class Model:
    """A trained network, with all that it needs to label pictures. Threads may share it.

    Args:
        net: the network, in evaluation mode on ``device``.
        cfg: what it was trained with.
        classes: class names.
        palette: RGB of each class.
        device: where views are made.
        precision: ``32-true``, or ``bf16-mixed``.
        protocol: the rule of a prediction; None takes the one that the training was validated by.

    Attributes:
        train_images: digests of the names of the training images and of their folder, where a
            checkpoint has them.
    """

    def __init__(
        self,
        net: CycleNet | OnnxNetwork,
        cfg: TrainConfig,
        classes: list[str],
        palette: list[list[int]],
        device: torch.device | str = "cpu",
        precision: str = "32-true",
        protocol: ProtocolConfig | str | None = None,
    ) -> None:
        self.net: Any = net
        self.cfg = cfg
        self.classes, self.palette = classes, palette
        self.device, self.precision = torch.device(device), precision
        self.protocol = _protocol(protocol, cfg.protocol)
        self.train_images: tuple[int, int] | None = None

    def labels(
        self,
        image: Tensor,
        protocol: ProtocolConfig | None = None,
        features: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the labels (N, H, W), uint8, of images (N, 3, H, W), RGB in 0..255.

        Args:
            image: images on the model's device.
            protocol: a rule of its own.
            features: a frozen backbone's features of the images, where they are cached and the
                rule looks at images once.
        """
        network = self.net.logits if features is None else from_features(self.net, features)
        with computing(self.precision, self.device):
            return predict(network, image, protocol or self.protocol, self.net.grid)

    def predict(
        self,
        image: Any,
        *,
        protocol: ProtocolConfig | str | None = None,
        probabilities: bool = False,
        confidence: bool = False,
    ) -> Any:
        """Label a picture, or several.

        Args:
            image: a path, a PIL image, an array (H, W, 3) uint8 RGB; or a list of such or an array
                (N, H, W, 3) for a list of results.
            protocol: a rule of its own; the name of a preset, or a `ProtocolConfig`.
            probabilities: whether to keep those of all classes.
            confidence: whether to keep that of the label.

        Returns:
            A `Result` at the picture's own size, or a list of them.

        Raises:
            ValueError: it is no picture.
        """
        rule = _protocol(protocol, self.protocol)
        several = isinstance(image, list | tuple) or (
            isinstance(image, np.ndarray) and image.ndim == 4
        )
        pictures = ((None, _pixels(one)) for one in (image if several else [image]))
        results: list[Result] = []
        for batch in self.batches(pictures):
            same = [pixels for _, pixels in batch]
            try:
                results += self._predict(same, rule, probabilities, confidence)
            except RuntimeError:  # For example out of memory: each may fit alone.
                if len(same) == 1:
                    raise
                for pixels in same:
                    results += self._predict([pixels], rule, probabilities, confidence)
        return results if several else results[0]

    def batches(
        self, pictures: Iterable[tuple[K, np.ndarray]]
    ) -> Iterator[list[tuple[K, np.ndarray]]]:
        """Group pictures, each with a key, by what is predicted together.

        That is one on a CPU, which gains nothing by more. On a GPU it is neighbours of one size.
        """
        waiting: list[tuple[K, np.ndarray]] = []
        for key, pixels in pictures:
            if waiting and pixels.shape != waiting[0][1].shape:
                yield waiting
                waiting = []
            waiting.append((key, pixels))
            if len(waiting) >= PIXELS_AT_ONCE.get(self.device.type, 0) // pixels[..., 0].size:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _predict(
        self,
        pictures: list[np.ndarray],
        rule: ProtocolConfig,
        probabilities: bool,
        confidence: bool,
    ) -> list[Result]:
        """Label pictures of one size."""
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(self.device)
        palette = np.array(self.palette, np.uint8)
        if not (probabilities or confidence):
            labels = self.labels(images, rule).cpu().numpy()
            pairs = zip(pictures, labels, strict=True)
            return [Result(pixels, found.copy(), self.classes, palette) for pixels, found in pairs]
        with torch.inference_mode(), computing(self.precision, self.device):
            strips = probability_strips(self.net.logits, images, rule, self.net.grid)
            shares = torch.cat([part.cpu() for _, part in strips], 2)
        results = []
        for pixels, each in zip(pictures, shares, strict=True):
            best = each.max(0)
            # A result that is kept must not keep its whole batch.
            own = each.clone() if probabilities and len(pictures) > 1 else each
            results.append(
                Result(
                    pixels,
                    best.indices.to(torch.uint8).numpy(),
                    self.classes,
                    palette,
                    own.numpy() if probabilities else None,
                    best.values.numpy() if confidence else None,
                )
            )
        return results


def _protocol(wanted: ProtocolConfig | str | None, usual: ProtocolConfig) -> ProtocolConfig:
    if isinstance(wanted, str):
        return load_protocol(wanted)
    return replace(wanted or usual)


def _pixels(image: Any) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        if upright.mode[0] in "IF":
            raise ValueError("The picture has more than 8 bits a channel: convert it to 8 bits.")
        image = np.asarray(upright.convert("RGB"))
    if isinstance(image, Tensor | Iterable) and not isinstance(image, np.ndarray):
        image = np.asarray(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"A path, a PIL image or an array is a picture, not {type(image).__name__}."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"An array must be (H, W, 3) uint8 RGB; got {tuple(image.shape)} {image.dtype}."
        )
    return image
