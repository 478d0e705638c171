"""The state of the explorer: models, images on offer, and the answers to a click.

No file is read by a name from the network.
"""

import base64
import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from cyclenet.data.images import DataError, decode_image
from cyclenet.deploy.model import Model
from cyclenet.files import printable
from cyclenet.lab.explain.canvas import HEAT, relative, render_tight
from cyclenet.lab.explain.features import Explained
from cyclenet.lab.explain.image_figures import feedback_figure, offsets_figure
from cyclenet.lab.explain.inputs import Input
from cyclenet.lab.explain.pixel_figures import (
    figure4,
    grad_cam_figure,
    pixel_maps,
    receptive_field_figure,
    similarity_figure,
)

HELD = 4
"""Images whose features are kept; fewer where they are large: all together have at most
HELD / 2 times ``max_pixels``."""

GRADIENT_PIXELS = 1_000_000
"""Most pixels of an image whose receptive field is drawn: it takes a training step's memory."""

LEAST_SIDE = 32


class NotHeldError(ValueError):
    """An image is no longer held; it must be opened again."""


class Picture(NamedTuple):
    """An image that has been opened, as every model sees it."""

    name: str
    seen: list[Explained]
    truth: np.ndarray | None


class Explorer:
    """The state of the page's server.

    Args:
        models: (name, trained model) of one checkpoint or two, with the same classes.
        examples: images that the page offers.
        max_megabytes: largest upload.
        max_pixels: largest image.
    """

    def __init__(
        self,
        models: list[tuple[str, Model]],
        examples: list[Input],
        max_megabytes: float,
        max_pixels: int,
    ) -> None:
        self.models, self.examples = models, examples
        self.max_bytes, self.max_pixels = int(max_megabytes * 1e6), max_pixels
        self.pictures: OrderedDict[str, Picture] = OrderedDict()
        # Requests are answered one at a time: a network takes all cores.
        self.lock = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know at its start."""
        model = self.models[0][1]
        return {
            "models": [
                {"name": name, "adc": model.net.decoder.aligns} for name, model in self.models
            ],
            "classes": model.classes,
            "palette": model.palette,
            "examples": [printable(example.name) for example in self.examples],
            "max_megabytes": self.max_bytes / 1e6,
            "max_pixels": self.max_pixels,
        }

    def open(self, name: str, image: np.ndarray, truth: np.ndarray | None) -> dict[str, Any]:
        """Predict an image (H, W, 3) with every model and hold it.

        A truth of another size is left out.

        Raises:
            DataError: it has too many pixels, or too few.
        """
        height, width = image.shape[:2]
        self.check(name, width, height)
        if truth is not None and truth.shape != image.shape[:2]:
            truth = None
        with self.lock:
            while self.pictures and not self._has_room(height * width):
                self.pictures.popitem(last=False)
            seen = [Explained(model, image) for _, model in self.models]
            layers = {
                name: each.labels[-1] for (name, _), each in zip(self.models, seen, strict=True)
            }
            key = secrets.token_hex(8)
            self.pictures[key] = Picture(name, seen, truth)
        if truth is not None:
            layers["truth"] = truth
        return {
            "id": key,
            "name": printable(name),
            "width": width,
            "height": height,
            "image": _png(image),
            "layers": [{"name": layer, "labels": _png(ids)} for layer, ids in layers.items()],
        }

    def _has_room(self, pixels: int) -> bool:
        held = sum(picture.seen[0].image[..., 0].size for picture in self.pictures.values())
        return len(self.pictures) < HELD and held + pixels <= HELD * self.max_pixels / 2

    def open_example(self, number: int) -> dict[str, Any]:
        """Open one of the images that the page offers.

        A truth that cannot be read is left out.
        """
        example = self.examples[number]
        image = example.image()
        try:
            truth = example.truth()
        except DataError as error:
            print(f"{example.name} is shown without its truth: {error}", flush=True)
            truth = None
        return self.open(example.name, image, truth)

    def check(self, name: str, width: int, height: int) -> None:
        """Raise `DataError` where an image has too many pixels, or too few."""
        if height * width > self.max_pixels:
            raise DataError(
                f"{name} has {width} x {height} pixels; the limit is {self.max_pixels} "
                "(max_pixels)."
            )
        if min(height, width) < LEAST_SIDE:
            raise DataError(
                f"{name} has {width} x {height} pixels; the network needs {LEAST_SIDE} on each "
                "side."
            )

    def decode(self, name: str, data: bytes) -> np.ndarray:
        """Decode an uploaded file; its size is looked at before its pixels.

        Raises:
            DataError: it is not an image, or of a wrong size.
        """
        return decode_image(data, name, check=lambda *size: self.check(name, *size))

    def _find(self, key: str, x: int, y: int) -> Picture:
        """Return a held image in which a pixel lies; the lock must be held.

        Raises:
            NotHeldError: another request dropped it.
            ValueError: the pixel lies outside.
        """
        if key not in self.pictures:
            raise NotHeldError(
                "This image is no longer held (only the last few are); open it again."
            )
        self.pictures.move_to_end(key)
        picture = self.pictures[key]
        picture.seen[0].cell(x, y, picture.seen[0].size)
        return picture

    def point(
        self, key: str, model: int, x: int, y: int, layer: str, target: int | None
    ) -> dict[str, Any]:
        """Explain one pixel.

        Args:
            key: key of the image.
            model: number of the model.
            x: column of the pixel.
            y: its row.
            layer: name of the layer whose similarity is shown; the last one, all together, where
                the model has none of that name.
            target: class whose score Grad-CAM explains; None takes the predicted one.

        Raises:
            ValueError: the pixel lies outside, or the image is not held.
        """
        with self.lock:
            seen = self._find(key, x, y).seen[model]
            last = len(seen.layers) - 1
            number = seen.layers.index(layer) if layer in seen.layers else last
            probabilities = seen.probabilities(x, y)
            similarity = seen.similarity(x, y)[:, number]
            activation = seen.grad_cam(x, y, target)
            answer: dict[str, Any] = {
                "parts": seen.parts,
                "layers": seen.layers,
                "layer": seen.layers[number],
                "label": int(probabilities[-1].argmax()),
                "probabilities": np.round(probabilities, 5).tolist(),
                "similarity": [_heat(seen.over_pixels(each)) for each in similarity],
                "gradcam": [_heat(seen.over_pixels(relative(each))) for each in activation],
            }
            if seen.net.decoder.aligns:
                answer["offsets"] = _describe_offsets(seen, x, y)
        return answer

    def figure(
        self, key: str, model: int, kind: str, x: int, y: int, target: int | None, ending: str
    ) -> tuple[bytes, str]:
        """Draw a figure and return it with a name for the file; arguments are as `point`'s.

        Raises:
            ValueError: there is no such figure of this image and model, or as `point`.
        """
        with self.lock:
            picture = self._find(key, x, y)
            seen = picture.seen[model]
            if kind == "offsets" and not seen.net.decoder.aligns:
                raise ValueError(f"{self.models[model][0]} has no ADC, so no offsets.")
            if kind == "receptive_field" and seen.size[0] * seen.size[1] > GRADIENT_PIXELS:
                raise ValueError(
                    "A receptive field is drawn for images of at most "
                    f"{GRADIENT_PIXELS / 1e6:g} million pixels."
                )
            draw: dict[str, Callable[[], Figure]] = {
                "figure4": lambda: figure4([pixel_maps(seen, x, y, target)]),
                "similarity": lambda: similarity_figure(seen, x, y),
                "gradcam": lambda: grad_cam_figure(seen, x, y, target),
                "offsets": lambda: offsets_figure(seen, [(x, y)]),
                "receptive_field": lambda: receptive_field_figure(seen, [(x, y)], picture.truth),
                "feedback": lambda: feedback_figure(seen, picture.truth),
            }
            if kind not in draw:
                raise ValueError(f"There is no figure {kind[:20]}.")
            data = render_tight(draw[kind](), ending)
        return data, f"{Path(picture.name).stem}-{kind}-{x}-{y}.{ending}"


def _describe_offsets(seen: Explained, x: int, y: int) -> dict[str, Any]:
    found = seen.offsets
    row, column = seen.cell(x, y, found.positions.shape[:2])
    weight = np.ones(found.shift.shape[:-1]) if found.modulation is None else found.modulation
    length = np.hypot(found.shift[..., 0], found.shift[..., 1]).mean((2, 3))
    return {
        "samples": np.round(found.positions[row, column].reshape(-1, 2), 2).tolist(),
        "weights": np.round(weight[row, column].ravel(), 4).tolist(),
        "map": _heat(seen.over_pixels(relative(length)), "viridis"),
        "max": round(float(length.max()), 2),
        "here": round(float(length[row, column]), 2),
    }


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _heat(values: np.ndarray, name: str = HEAT) -> str:
    colors = colormaps[name](np.clip(values, 0, 1))[..., :3]
    return _png((colors * 255).round().astype(np.uint8))
