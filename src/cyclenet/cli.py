"""What the commands share: composing a configuration, and turning a user's mistake into one sentence."""

import difflib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cyclenet.config import Schema, register, to_config

CONF = Path(__file__).resolve().parents[2] / "conf"


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with one sentence and exit code 1 where the user can mend what went wrong."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def sentence(error: BaseException) -> str:
    """Say in one line what a chain of exceptions is about: the innermost cause names the key or the file."""
    text, seen = str(error), error
    while seen.__cause__ is not None:
        seen = seen.__cause__
    # A loader process sends its traceback as text; its last line is the error.
    if text.startswith("Caught "):
        return text.strip().splitlines()[-1].split(": ", 1)[-1]
    if isinstance(error, HydraException) or isinstance(error, OmegaConfBaseException):
        lines = [line.strip() for part in (text, str(seen)) for line in part.splitlines()]
        key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
        cause = str(seen).splitlines()[0]
        unknown = re.match(r"Key '(\w+)' (?:is )?not in '?(\w+)'?", cause)
        if unknown:
            return f"There is no key {key or unknown[1]}{_nearest(unknown[1])}; --help lists them all."
        head = text.splitlines()[0]
        if "Could not find" in head or "not in" in head:
            options = text.split("Config search path", 1)[0].splitlines()[1:]
            return " ".join(f"{head.partition(': ')[2] or head} {' '.join(options)}".split()) + "."
        return f"{key}: {cause}" if key else head if cause in head else f"{head.rstrip('.')}: {cause}"
    return text


def _nearest(word: str) -> str:
    from dataclasses import fields

    from cyclenet import config

    names = [
        field.name for cls in vars(config).values() if isinstance(cls, type) and hasattr(cls, "__dataclass_fields__") for field in fields(cls)
    ]
    near = difflib.get_close_matches(word, names, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def compose_config(name: str, schema: Schema, overrides: list[str]) -> Any:
    """Compose ``conf/<name>.yaml`` with command-line overrides and check it; return the dataclass."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_config(schema, compose(name, overrides))


def parse_overrides(usage: str) -> list[str]:
    """Return the command line's ``key=value`` words; print ``usage`` and end for ``--help`` and for none at all."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(usage.strip())
        raise SystemExit(0 if words else 2)
    return words


def check_train_arguments(name: str, schema: Schema) -> None:
    """Refuse a wrong command line before Hydra makes a run folder. Sweeps and --help are Hydra's own to parse."""
    arguments = get_args_parser().parse_args()
    informative = (arguments.help, arguments.hydra_help, arguments.info, arguments.cfg, arguments.multirun)
    if any(informative):
        return
    from cyclenet.data.source import find_root

    with user_errors():
        cfg = compose_config(arguments.config_name or name, schema, arguments.overrides)
        find_root(cfg.dataset)
