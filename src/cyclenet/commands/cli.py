"""What the commands share: from the command line to a checked configuration or a sentence."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from cyclenet.commands.overrides import list_keys, quote
from cyclenet.config.choices import FOLDER_KEYS
from cyclenet.config.errors import USER_ERRORS, sentence
from cyclenet.config.help import write_help
from cyclenet.config.load import SCHEMAS, compose_config
from cyclenet.config.restore import PLACES
from cyclenet.environment import settle_home, settle_memory, settle_streams

HELP = {"-h", "--help"}


def run_command(command: str, about: str | None, run: Callable[[Any], int | None]) -> None:
    """Compose a command's configuration from the command line and run it.

    Args:
        command: name of the command, its schema and its YAML file.
        about: what ``--help`` prints before the keys.
        run: takes the checked configuration; returns an exit code, or None for 0.
    """
    settle_streams()
    words = sys.argv[1:]
    if not words or HELP & set(words):
        print(write_help(command, about or ""))
        raise SystemExit(0 if words else 2)
    schema = SCHEMAS[command]
    overrides = [quote(word, list_keys(schema)) for word in words]
    settle_home()
    settle_memory()
    with user_errors():
        if {"ckpt_path"} & {each.name for each in fields(schema)}:
            store_checkpoint_defaults(schema, overrides)
        try:
            code = run(compose_config(command, overrides))
        except KeyboardInterrupt:
            raise SystemExit(130) from None
    raise SystemExit(code or 0)


def program(
    command: str, about: str | None, run: Callable[[Any], int | None]
) -> Callable[[], None]:
    """Return a command's program, which takes no arguments (`run_command`)."""
    return partial(run_command, command, about, run)


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with one sentence and exit code 1 where the user can mend what is wrong."""
    try:
        yield
    except USER_ERRORS as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def store_checkpoint_defaults(schema: type[Any], overrides: list[str]) -> None:
    """Make the data set and the protocol of a checkpoint the defaults of a command.

    Anyone may have made a checkpoint, so its paths are dropped: it decides only how the model is
    built.

    Raises:
        ValueError: ``ckpt_path`` is missing from the command line, or is not a checkpoint.
    """
    from cyclenet.deploy.load import find, read_checkpoint
    from cyclenet.models.stored import stored_config

    word = next((word for word in overrides if word.startswith("ckpt_path=")), "ckpt_path=")
    path = str(OverridesParser.create().parse_override(word).value())
    if not path:
        raise ValueError("ckpt_path is missing: give the .ckpt file in a run's checkpoints folder.")
    stored = asdict(stored_config(read_checkpoint(find(path))))
    name = stored["dataset"]["name"]
    for key in PLACES:
        del stored["dataset"][key]
    if any(word.startswith("dataset=") and word != f"dataset={name}" for word in overrides):
        for key in set(FOLDER_KEYS) - set(PLACES):  # They say how another data set is read.
            del stored["dataset"][key]
    keys = {each.name for each in fields(schema)} & {"dataset", "protocol"}
    ConfigStore.instance().store(name="checkpoint", node={key: stored[key] for key in keys})
