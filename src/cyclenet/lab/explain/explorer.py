"""The web server behind ``src/explore.py``: one page and its answers. No file is read by a name from the network."""

import asyncio
import base64
import io
import secrets
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageOps
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cyclenet.data.images import DataError
from cyclenet.lab.explain import figures
from cyclenet.lab.explain.features import Explained
from cyclenet.models.decoder import ADC
from cyclenet.training.task import SegmentationTask

HELD = 4  # Images whose features are kept, and fewer where they are large: all together have HELD / 2 times `max_pixels`.
GRADIENT_PIXELS = 1_000_000  # Of an image whose receptive field is drawn: it takes the memory of a training step.
KINDS = {"png": "image/png", "pdf": "application/pdf", "svg": "image/svg+xml"}
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Example(NamedTuple):
    """An image that the page offers: its name, and how to read it and its truth, if it has one."""

    name: str
    image: Callable[[], np.ndarray]
    truth: Callable[[], np.ndarray | None]


class Picture(NamedTuple):
    """An image that has been opened: as every model sees it."""

    name: str
    seen: list[Explained]
    truth: np.ndarray | None


class Explorer:
    """The state of the page's server: the models, the images that it may offer, and the last few that were opened.

    Args:
        models: (name, trained model) of one checkpoint or two, with the same classes.
        examples: images that the page offers.
        max_megabytes: of an upload.
        max_pixels: of an image.
    """

    def __init__(
        self, models: list[tuple[str, SegmentationTask]], examples: list[Example], max_megabytes: float, max_pixels: int
    ) -> None:
        self.models, self.examples = models, examples
        self.max_bytes, self.max_pixels = int(max_megabytes * 1e6), max_pixels
        self.pictures: OrderedDict[str, Picture] = OrderedDict()
        # One at a time: a network takes all cores.
        self.lock = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know at its start."""
        task = self.models[0][1]
        return {
            "models": [{"name": name, "adc": isinstance(task.net.decoder, ADC)} for name, task in self.models],
            "classes": task.classes,
            "palette": task.palette,
            "examples": [example.name for example in self.examples],
            "max_megabytes": self.max_bytes / 1e6,
            "max_pixels": self.max_pixels,
        }

    def open(self, name: str, image: np.ndarray, truth: np.ndarray | None) -> dict[str, Any]:
        """Predict an image (H, W, 3) with every model and hold it. Raises `DataError` where it has too many pixels."""
        height, width = image.shape[:2]
        self.check(name, width, height)
        with self.lock:
            while self.pictures and not self._room(height * width):
                self.pictures.popitem(last=False)
            seen = [Explained(task, image) for _, task in self.models]
            layers = [each.labels[-1] for each in seen]
            if truth is not None and truth.shape == image.shape[:2]:
                layers.append(truth)
            else:
                truth = None
            key = secrets.token_hex(8)
            self.pictures[key] = Picture(name, seen, truth)
        names = [name for name, _ in self.models] + ["truth"] * (truth is not None)
        return {
            "id": key,
            "name": name,
            "width": width,
            "height": height,
            "image": _png(image),
            "layers": [{"name": name, "labels": _png(each)} for name, each in zip(names, layers, strict=True)],
        }

    def _room(self, pixels: int) -> bool:
        held = sum(picture.seen[0].size[0] * picture.seen[0].size[1] for picture in self.pictures.values())
        return len(self.pictures) < HELD and held + pixels <= HELD * self.max_pixels / 2

    def open_example(self, number: int) -> dict[str, Any]:
        """Open one of the images that the page offers; a truth that cannot be read is left out."""
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
            raise DataError(f"{name} has {width} x {height} pixels; the limit is {self.max_pixels} (max_pixels).")
        if min(height, width) < 32:
            raise DataError(f"{name} has {width} x {height} pixels; the network needs 32 on each side.")

    def decode(self, name: str, data: bytes) -> np.ndarray:
        """Decode an uploaded file; its size is looked at before its pixels. Raises `DataError` where it is not an image."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Refused by `check`.
                with Image.open(io.BytesIO(data), formats=FORMATS) as file:
                    self.check(name, file.width, file.height)
                    # As the photographer held the camera: no mask has to match.
                    return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        except DataError:
            raise
        except Exception as error:  # The decoders raise a dozen kinds for damaged files.
            raise DataError(f"{name} is not a readable image ({', '.join(FORMATS)}); choose another file.") from error

    def _held(self, key: str, x: int, y: int) -> Picture:
        # With the lock held: another request may drop it.
        if key not in self.pictures:
            raise HTTPException(404, "This image is no longer held (only the last few are); open it again.")
        self.pictures.move_to_end(key)
        picture = self.pictures[key]
        try:
            picture.seen[0].cell(x, y, picture.seen[0].size)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        return picture

    def point(self, key: str, model: int, x: int, y: int, layer: str, target: int | None) -> dict[str, Any]:
        """Explain one pixel.

        Args:
            key: of the image.
            model: number of the model.
            x: column of the pixel.
            y: its row.
            layer: name of the layer whose similarity is shown; the last, all together, where the model has none of that name.
            target: class whose score Grad-CAM explains; None: the predicted one.
        """
        with self.lock:
            seen = self._held(key, x, y).seen[model]
            number = seen.layers.index(layer) if layer in seen.layers else len(seen.layers) - 1
            probabilities = seen.probabilities(x, y)
            similarity, activation = seen.similarity(x, y)[:, number], seen.grad_cam(x, y, target)
            answer = {
                "parts": seen.parts,
                "layers": seen.layers,
                "layer": seen.layers[number],
                "label": int(probabilities[-1].argmax()),
                "probabilities": np.round(probabilities, 5).tolist(),
                "similarity": [_heat(each) for each in similarity],
                "gradcam": [_heat(each / max(float(each.max()), 1e-30)) for each in activation],
            }
            if isinstance(seen.net.decoder, ADC):
                found = seen.offsets
                row, column = seen.cell(x, y, found.positions.shape[:2])
                weight = np.ones(found.shift.shape[:-1]) if found.modulation is None else found.modulation
                length = np.hypot(found.shift[..., 0], found.shift[..., 1]).mean((2, 3))
                answer["offsets"] = {
                    "samples": np.round(found.positions[row, column].reshape(-1, 2), 2).tolist(),
                    "weights": np.round(weight[row, column].ravel(), 4).tolist(),
                    "map": _heat(length / max(float(length.max()), 1e-30), "viridis"),
                    "max": round(float(length.max()), 2),
                    "here": round(float(length[row, column]), 2),
                }
        return answer

    def figure(self, key: str, model: int, kind: str, x: int, y: int, target: int | None, ending: str) -> tuple[bytes, str]:
        """Draw a figure of `cyclenet.lab.explain.figures` and return it with a name for the file; arguments as `point`'s."""
        with self.lock:
            name, seen, truth = self._held(key, x, y)
            each = seen[model]
            match kind:
                case "figure4":
                    figure = figures.figure4([figures.pixel_maps(each, x, y, target)])
                case "similarity":
                    figure = figures.similarity(each, x, y)
                case "gradcam":
                    figure = figures.grad_cam(each, x, y, target)
                case "offsets" if isinstance(each.net.decoder, ADC):
                    figure = figures.offsets(each, [(x, y)])
                case "receptive_field" if each.size[0] * each.size[1] <= GRADIENT_PIXELS:
                    figure = figures.receptive_field(each, [(x, y)], truth)
                case "feedback":
                    figure = figures.feedback(each, truth)
                case "offsets":
                    raise HTTPException(400, f"{self.models[model][0]} has no ADC, so no offsets.")
                case "receptive_field":
                    limit = GRADIENT_PIXELS / 1e6
                    raise HTTPException(400, f"A receptive field is drawn of images of at most {limit:g} million pixels.")
                case _:
                    raise HTTPException(400, f"There is no figure {kind[:20]}.")
            return figures.render(figure, ending), f"{Path(name).stem}-{kind}-{x}-{y}.{ending}"


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _heat(values: np.ndarray, name: str = figures.HEAT) -> str:
    return _png((colormaps[name](np.clip(values, 0, 1))[..., :3] * 255).round().astype(np.uint8))


def application(explorer: Explorer, hosts: list[str]) -> Starlette:
    """Build the server's application.

    Args:
        explorer: its state.
        hosts: names under which it may be called; a page of another name (DNS rebinding) is refused.
    """
    page = (Path(__file__).parent / "explorer.html").read_text()
    # One image is decoded at a time, so that many uploads at once do not fill the memory.
    decoding = asyncio.Semaphore(1)

    async def index(request: Request) -> Response:
        return HTMLResponse(page)

    async def describe(request: Request) -> Response:
        return JSONResponse(explorer.describe())

    def refuse_other_sites(request: Request) -> None:
        # No page of another site can send this type without asking first, and no answer allows it.
        if request.headers.get("content-type") != "application/octet-stream":
            raise HTTPException(415, "Send application/octet-stream.")

    async def upload(request: Request) -> Response:
        refuse_other_sites(request)
        name = Path(request.query_params.get("name", "image").replace("\\", "/")).name[:100] or "image"
        limit = explorer.max_bytes
        too_large = HTTPException(413, f"{name} is larger than {limit / 1e6:g} MB (max_megabytes); choose a smaller file.")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise too_large
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise too_large
        async with decoding:
            image = await run_in_threadpool(explorer.decode, name, bytes(data))
            return JSONResponse(await run_in_threadpool(explorer.open, name, image, None))

    async def example(request: Request) -> Response:
        refuse_other_sites(request)
        number = _number(request, "number", len(explorer.examples))
        async with decoding:
            return JSONResponse(await run_in_threadpool(explorer.open_example, number))

    def pixel(request: Request) -> tuple[int, int, int]:
        return _number(request, "model", len(explorer.models)), _number(request, "x", 1 << 20), _number(request, "y", 1 << 20)

    def target(request: Request) -> int | None:
        chosen = "target" in request.query_params
        return _number(request, "target", len(explorer.models[0][1].classes)) if chosen else None

    def point(request: Request) -> Response:
        layer = request.query_params.get("layer", "")
        return JSONResponse(explorer.point(request.path_params["key"], *pixel(request), layer, target(request)))

    def figure(request: Request) -> Response:
        model, x, y = pixel(request)
        ending, kind = request.query_params.get("format", "png"), request.query_params.get("kind", "figure4")
        if ending not in KINDS:
            raise HTTPException(400, f"format must be one of {', '.join(KINDS)}.")
        data, name = explorer.figure(request.path_params["key"], model, kind, x, y, target(request), ending)
        quoted = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in name)
        return Response(data, media_type=KINDS[ending], headers={"Content-Disposition": f'attachment; filename="{quoted}"'})

    async def refused(request: Request, error: Exception) -> Response:
        status, text = (error.status_code, error.detail) if isinstance(error, HTTPException) else (400, str(error))
        return JSONResponse({"error": text}, status)

    async def failed(request: Request, error: Exception) -> Response:
        # Outside all middleware; the terminal gets its traceback from the server.
        return JSONResponse({"error": f"The server failed ({type(error).__name__}); its terminal says more."}, 500, HEADERS)

    class Headers:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def with_headers(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], *((k.lower().encode(), v.encode()) for k, v in HEADERS.items())]
                await send(message)

            await self.app(scope, receive, with_headers)

    routes = [
        Route("/", index),
        Route("/api", describe),
        Route("/api/upload", upload, methods=["POST"]),
        Route("/api/example", example, methods=["POST"]),
        Route("/api/{key}/point", point),
        Route("/api/{key}/figure", figure),
    ]
    middleware = [Middleware(Headers), Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)]
    handlers: Any = {HTTPException: refused, DataError: refused, Exception: failed}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _number(request: Request, key: str, below: int) -> int:
    text = request.query_params.get(key, "")
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or int(text) >= below:
        raise HTTPException(400, f"{key} must be a whole number below {below}; got {text[:20]!r}.")
    return int(text)
