"""What the commands share: from the command line to a checked configuration or a sentence."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from cyclenet.commands.overrides import list_keys, quote
from cyclenet.config.errors import USER_ERRORS, sentence
from cyclenet.config.help import write_help
from cyclenet.config.load import SCHEMAS, compose_config
from cyclenet.config.restore import PLACES
from cyclenet.environment import settle_home, settle_memory, settle_streams

HELP = {"-h", "--help"}


def run_command(command: str) -> None:
    """Compose a command's configuration from the command line, run it, and end the program.

    The command, its schema and its YAML file have one name. So has a module beside this one: its
    docstring is what ``--help`` prints before the keys, and its ``run`` takes the checked
    configuration and returns an exit code, or None for 0.
    """
    settle_streams()
    module = import_module(f"cyclenet.commands.{command}")
    words = sys.argv[1:]
    if not words or HELP & set(words):
        show_help(command, module.__doc__ or "")
        raise SystemExit(0 if words else 2)
    schema = SCHEMAS[command]
    overrides = [quote(word, list_keys(schema)) for word in words]
    settle_home()
    settle_memory()
    with user_errors():
        store_checkpoint_defaults(schema, overrides)
        try:
            code = module.run(compose_config(command, overrides))
        except KeyboardInterrupt:
            raise SystemExit(130) from None
    raise SystemExit(code or 0)


def show_help(command: str, about: str) -> None:
    """Print what ``--help`` prints; whoever reads it may stop early (``| head``)."""
    if hasattr(signal, "SIGPIPE"):  # Windows has none.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(write_help(command, about))


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with one sentence and exit code 1 where the user can mend what is wrong."""
    try:
        yield
    except USER_ERRORS as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def store_checkpoint_defaults(schema: type[Any], overrides: list[str]) -> None:
    """Make a checkpoint's data set and protocol the defaults of a command that has such keys.

    Anyone may have made the checkpoint, so its paths (`PLACES`) are dropped.

    Raises:
        ValueError: ``ckpt_path`` is missing from the command line, or is not a checkpoint.
    """
    names = {each.name for each in fields(schema)}
    keys = names & {"dataset", "protocol"}
    if not keys or "ckpt_path" not in names:
        return
    from cyclenet.deploy.load import find, read_checkpoint
    from cyclenet.models.stored import stored_config

    given = [word for word in overrides if word.startswith("ckpt_path=")]
    word = given[-1] if given else "ckpt_path="  # The last counts, as for Hydra.
    path = str(OverridesParser.create().parse_override(word).value())
    if not path:
        raise ValueError("ckpt_path is missing: give the .ckpt file in a run's checkpoints folder.")
    stored = asdict(stored_config(read_checkpoint(find(path))))
    name = stored["dataset"]["name"]
    for key in PLACES:
        del stored["dataset"][key]
    if any(word.startswith("dataset=") and word != f"dataset={name}" for word in overrides):
        stored["dataset"] = {}  # Its splits, folds and limits are not another data set's.
    node = {key: stored[key] for key in keys}
    ConfigStore.instance().store(name="checkpoint", node=node)
