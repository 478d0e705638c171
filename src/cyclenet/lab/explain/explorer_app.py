"""The explorer's web application: one page and its answers."""

import asyncio
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cyclenet.lab.explain.explorer import Explorer, NotHeldError

KINDS = {"png": "image/png", "pdf": "application/pdf", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
LARGEST_SIDE = 1 << 20
MOST_UPLOADS, UPLOAD_SECONDS = 4, 60


class SafeHeaders:
    """Middleware that adds `HEADERS` to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        added = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Answers:
    """The answers to the page's requests."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.page = (Path(__file__).parent / "explorer.html").read_text("utf-8")
        # Images are decoded one at a time, and few are received at a time, so that many uploads
        # at once do not fill the memory.
        self.decoding = asyncio.Semaphore(1)
        self.receiving = 0

    async def index(self, request: Request) -> Response:
        """Answer with the page."""
        return HTMLResponse(self.page)

    async def describe(self, request: Request) -> Response:
        """Answer with what the page needs to know at its start."""
        return JSONResponse(self.explorer.describe())

    async def upload(self, request: Request) -> Response:
        """Open an uploaded image."""
        _refuse_other_sites(request)
        given = request.query_params.get("name", "image").replace("\\", "/")
        name = Path(given).name[:100] or "image"
        if self.receiving >= MOST_UPLOADS:
            raise HTTPException(503, f"{MOST_UPLOADS} uploads are in progress; try again.")
        self.receiving += 1
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                data = await self._read_upload(request, name)
        except TimeoutError:
            raise HTTPException(408, f"{name} took longer than {UPLOAD_SECONDS} s.") from None
        finally:
            self.receiving -= 1
        async with self.decoding:
            image = await run_in_threadpool(self.explorer.decode, name, data)
            opened = await run_in_threadpool(self.explorer.open, name, image, None)
            return JSONResponse(opened)

    async def _read_upload(self, request: Request, name: str) -> bytes:
        limit = self.explorer.max_bytes
        too_large = HTTPException(
            413, f"{name} is larger than {limit / 1e6:g} MB (max_megabytes); choose a smaller file."
        )
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise too_large
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise too_large
        return bytes(data)

    async def example(self, request: Request) -> Response:
        """Open one of the images that the page offers."""
        _refuse_other_sites(request)
        number = _number(request, "number", len(self.explorer.examples))
        async with self.decoding:
            return JSONResponse(await run_in_threadpool(self.explorer.open_example, number))

    def point(self, request: Request) -> Response:
        """Explain a pixel."""
        layer, key = request.query_params.get("layer", ""), request.path_params["key"]
        model, x, y = self._pixel(request)
        return JSONResponse(self.explorer.point(key, model, x, y, layer, self._target(request)))

    def figure(self, request: Request) -> Response:
        """Answer with a figure as a file."""
        model, x, y = self._pixel(request)
        ending = request.query_params.get("format", "png")
        kind, key = request.query_params.get("kind", "figure4"), request.path_params["key"]
        if ending not in KINDS:
            raise HTTPException(400, f"format must be one of {', '.join(KINDS)}.")
        target = self._target(request)
        data, name = self.explorer.figure(key, model, kind, x, y, target, ending)
        safe = "".join(letter if _is_plain(letter) else "_" for letter in name)
        headers = {"Content-Disposition": f'attachment; filename="{safe}"'}
        return Response(data, media_type=KINDS[ending], headers=headers)

    def _pixel(self, request: Request) -> tuple[int, int, int]:
        """Return the number of the model, and the column and row of the pixel."""
        model = _number(request, "model", len(self.explorer.models))
        return model, _number(request, "x", LARGEST_SIDE), _number(request, "y", LARGEST_SIDE)

    def _target(self, request: Request) -> int | None:
        if "target" not in request.query_params:
            return None
        return _number(request, "target", len(self.explorer.models[0][1].classes))


def application(explorer: Explorer, hosts: list[str]) -> Starlette:
    """Build the server's application.

    Args:
        explorer: its state.
        hosts: names under which it may be called; a page of another name (DNS rebinding) is
            refused.
    """
    answers = Answers(explorer)
    routes = [
        Route("/", answers.index),
        Route("/api", answers.describe),
        Route("/api/upload", answers.upload, methods=["POST"]),
        Route("/api/example", answers.example, methods=["POST"]),
        Route("/api/{key}/point", answers.point),
        Route("/api/{key}/figure", answers.figure),
    ]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    handlers: Any = {
        HTTPException: _refused,
        ValueError: _refused,
        ClientDisconnect: _gone,
        Exception: _failed,
    }
    return Starlette(
        routes=routes, middleware=[Middleware(SafeHeaders), trusted], exception_handlers=handlers
    )


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, NotHeldError) else 400)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # Nobody reads it.


async def _failed(request: Request, error: Exception) -> Response:
    # This answer is made outside all middleware; the terminal gets the traceback from the server.
    text = f"The server failed ({type(error).__name__}); its terminal says more."
    return JSONResponse({"error": text}, 500, HEADERS)


def _refuse_other_sites(request: Request) -> None:
    # A page of another site must ask before it sends this type (CORS), and no answer permits it.
    if request.headers.get("content-type") != "application/octet-stream":
        raise HTTPException(415, "Send application/octet-stream.")


def _is_plain(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter in "-_.")


def _number(request: Request, key: str, below: int) -> int:
    text = request.query_params.get(key, "")
    whole = text.isdecimal() and text.isascii() and len(text) <= 9
    if not whole or int(text) >= below:
        message = f"{key} must be a whole number below {below}; got {text[:20]!r}."
        raise HTTPException(400, message)
    return int(text)
