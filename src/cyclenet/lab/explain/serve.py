"""Serve the explorer until the user stops it."""

import ipaddress
import os
import socket
import sys
import webbrowser
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cyclenet.config.commands import ExploreConfig
from cyclenet.config.naming import arm_labels
from cyclenet.data.base import find_files
from cyclenet.data.images import IMAGE_ENDINGS, DataError, read_image
from cyclenet.data.open import open_split
from cyclenet.lab.explain.explorer import Explorer
from cyclenet.lab.explain.explorer_app import application
from cyclenet.lab.explain.inputs import Input, inputs_of_split, no_truth, open_models

MOST_CONNECTIONS, HEADER_SECONDS = 64, 10.0


class ImpatientProtocol(H11Protocol):
    """Close a connection that sends no whole header in time: uvicorn itself waits for ever."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the header."""
        super().connection_made(transport)
        self.loop.call_later(HEADER_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.scope is None and not self.transport.is_closing():
            self.transport.close()


def serve(cfg: ExploreConfig) -> None:
    """Load the models and serve the page.

    Raises:
        ValueError: a checkpoint or the folder cannot be used, or the port is taken.
    """
    paths = [cfg.ckpt_path, *([cfg.compare] if cfg.compare else [])]
    models = open_models(paths, cfg.accelerator)
    names = arm_labels([model.cfg.model for model in models])
    examples = find_examples(cfg, models[0].classes)
    named = list(zip(names, models, strict=True))
    explorer = Explorer(named, examples, cfg.max_megabytes, cfg.max_pixels)
    host = f"[{cfg.host}]" if ":" in cfg.host else cfg.host
    everywhere = _property(cfg.host, "is_unspecified")
    hosts = ["*"] if everywhere else ["127.0.0.1", "localhost", "[::1]", host]
    with bind(cfg.host, cfg.port) as listener:
        port = listener.getsockname()[1]
        address = f"http://{'localhost' if everywhere else host}:{port}/"
        print(f"Explorer of {', '.join(paths)}: {address}  (Ctrl-C ends it)", flush=True)
        if cfg.host != "localhost" and not _property(cfg.host, "is_loopback"):
            print("Everyone who reaches this machine can use it, without a password.", flush=True)
        if sys.stdout.isatty() and _has_screen():
            webbrowser.open(address)
        options = uvicorn.Config(
            application(explorer, hosts),
            lifespan="off",
            log_level="warning",
            timeout_graceful_shutdown=1,
            limit_concurrency=MOST_CONNECTIONS,
            http=ImpatientProtocol,
        )
        server = uvicorn.Server(options)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _has_screen() -> bool:
    desktop = sys.platform in ("darwin", "win32")
    return desktop or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def _property(host: str, name: str) -> bool:
    """Tell whether a host that is given by its number has a property of `ipaddress`."""
    try:
        return bool(getattr(ipaddress.ip_address(host), name))
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ValueError: the address is taken, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValueError(
            f"{host}:{port} cannot be listened on ({error.strerror}): give another port, or port=0."
        ) from error


def find_examples(cfg: ExploreConfig, classes: list[str]) -> list[Input]:
    """List the images that the page offers: those of ``images``, else those of the split.

    Raises:
        ValueError: ``images`` is not a folder with images.
    """
    if cfg.images:
        return _examples_of_folder(Path(cfg.images))
    try:
        source = open_split(cfg.dataset, cfg.dataset.split_or_usual(cfg.split))
    except DataError as error:
        print(f"No images are offered, only uploads: {error}", file=sys.stderr)
        return []
    return inputs_of_split(source, classes)


def _examples_of_folder(folder: Path) -> list[Input]:
    files = find_files(folder, IMAGE_ENDINGS) if folder.is_dir() else []
    if not files:
        endings = " ".join(sorted(IMAGE_ENDINGS))
        raise ValueError(f"images: {folder} is not a folder with images ({endings}).")
    return [
        Input(str(file.relative_to(folder)), partial(read_image, file), no_truth) for file in files
    ]
