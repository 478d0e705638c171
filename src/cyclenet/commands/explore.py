"""Open a local web page to look into a trained network: click a pixel, see what it is alike to and what decided it."""

import ipaddress
import os
import socket
import sys
import webbrowser
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from cyclenet.commands.cli import compose_config, parse_overrides, store_checkpoint_defaults, user_errors
from cyclenet.config import ExploreConfig

USAGE = """
python src/explore.py ckpt_path=FILE [compare=FILE] [images=FOLDER] [KEY=VALUE ...]

  compare        a second checkpoint with the same classes (DenseASPP beside CycleNet), with a slider between the two
  images         folder of images that the page offers (default: the data set's validation split, with its truth)
  dataset.root   where the data set lies (default: the run's); split
  host, port     127.0.0.1 and 7860; host=0.0.0.0 lets everyone in who reaches this machine; port=0: any free one
  max_megabytes, max_pixels    of an image (20, 4000000)
  accelerator    auto, cpu, gpu
Ctrl-C ends it.
"""


def main() -> None:
    """Load the models, and serve the page until the user stops it."""
    overrides = parse_overrides(USAGE)
    with user_errors():
        store_checkpoint_defaults(ExploreConfig, overrides)
        cfg: ExploreConfig = compose_config("explore", ExploreConfig, overrides)
        serve(cfg)


def serve(cfg: ExploreConfig) -> None:
    """Serve the page.

    Raises:
        ValueError: a checkpoint or the folder cannot be used, or the port is taken.
    """
    import uvicorn

    from cyclenet.lab.explain.explorer import Explorer, application
    from cyclenet.lab.paper import tell_apart
    from cyclenet.training.checkpoint import load_checkpoint, load_task
    from cyclenet.training.trainer import choose_device

    device = choose_device(cfg.accelerator)
    paths = [cfg.ckpt_path, *([cfg.compare] if cfg.compare else [])]
    tasks = [load_task(load_checkpoint(path)).to(device) for path in paths]
    if any(task.classes != tasks[0].classes for task in tasks):
        raise ValueError(f"compare: {cfg.compare} was trained on other classes than {cfg.ckpt_path}.")
    explorer = Explorer(
        list(zip(tell_apart([task.cfg.model for task in tasks]), tasks, strict=True)),
        find_examples(cfg, tasks[0].classes),
        cfg.max_megabytes,
        cfg.max_pixels,
    )
    local = cfg.host == "localhost" or (is_address(cfg.host) and ipaddress.ip_address(cfg.host).is_loopback)
    everywhere = is_address(cfg.host) and ipaddress.ip_address(cfg.host).is_unspecified
    name = f"[{cfg.host}]" if ":" in cfg.host else cfg.host
    hosts = ["*"] if everywhere else ["127.0.0.1", "localhost", "[::1]", name]
    with bind(cfg.host, cfg.port) as listener:
        port = listener.getsockname()[1]
        address = f"http://{'localhost' if everywhere else name}:{port}/"
        print(f"Explorer of {', '.join(paths)}: {address}  (Ctrl-C ends it)", flush=True)
        if not local:
            print("Everyone who reaches this machine can use it, without a password.", flush=True)
        if sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
            webbrowser.open(address)
        server = uvicorn.Server(
            uvicorn.Config(application(explorer, hosts), lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
        )
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def is_address(host: str) -> bool:
    """Tell whether a host is given by its number."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises `ValueError` where the address is taken or not of this machine."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"{host}:{port} cannot be listened on ({error.strerror}): give another port, or port=0.") from error


def find_examples(cfg: ExploreConfig, classes: list[str]) -> list[Any]:
    """List the images that the page offers: those of ``images``, else of the data set's split if it is there.

    Raises:
        ValueError: ``images`` is not a folder with images.
    """
    from cyclenet.data.base import build_source
    from cyclenet.data.images import ENDINGS, DataError, read_image
    from cyclenet.lab.explain.explorer import Example

    if cfg.images:
        folder = Path(cfg.images)
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS) if folder.is_dir() else []
        if not files:
            raise ValueError(f"images: {folder} is not a folder with images ({' '.join(sorted(ENDINGS))}).")
        return [Example(str(file.relative_to(folder)), partial(read_image, file), lambda: None) for file in files]
    try:
        source = build_source(cfg.dataset, cfg.split or cfg.dataset.val_split)
    except DataError as error:
        print(f"No images are offered, only uploads: {error}", file=sys.stderr)
        return []
    known = source.classes == classes
    return [
        Example(source.name(i), partial(source.image, i), partial(source.mask, i) if known else lambda: None)
        for i in range(len(source))
    ]


if __name__ == "__main__":
    main()
