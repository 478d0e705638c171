"""What the commands share: composing a configuration, and turning a user's mistake into one sentence."""

import difflib
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import cyclenet.config as config
from cyclenet.config import CONF, Schema, register, to_config
from cyclenet.runs.results import protocols

USER_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError)


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with one sentence and exit code 1 where the user can mend what went wrong."""
    try:
        yield
    except USER_ERRORS as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def sentence(error: BaseException) -> str:
    """Say in one line what an exception is about, naming the key or the file."""
    text = str(error)
    # A loader process sends its traceback as text; its last line is the error.
    if text.startswith("Caught "):
        return text.strip().splitlines()[-1].split(": ", 1)[-1]
    if isinstance(error, YAMLError):
        return f"A configuration file is not YAML: {' '.join(text.split())}."
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return text
    if "Could not find" in text:  # An option of a group, a group, or a file.
        message = text.split("Config search path", 1)[0]
        return " ".join((message.partition("': ")[2] or message).split()) + "."
    # OmegaConf's messages say what is wrong, then "full_key: <where>"; Hydra wraps them once or twice.
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)  # type: ignore[arg-type]
    lines = [line.strip() for part in chain for line in str(part).splitlines()]
    at = next((number for number, line in enumerate(lines) if line.startswith("full_key:")), 0)
    if not at:
        return lines[0]
    key, what = lines[at].removeprefix("full_key:").strip(), lines[at - 1]
    if re.match(r"Key '.*' (is )?not in", what):
        return f"There is no key {key}{_nearest(key.rsplit('.', 1)[-1])}; --help lists them all."
    return f"{key}: {what.rstrip('.')}."


def _nearest(word: str) -> str:
    names = [
        field.name for cls in vars(config).values() if isinstance(cls, type) and is_dataclass(cls) for field in fields(cls)
    ]
    near = difflib.get_close_matches(word, names, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def compose_config(name: str, schema: Schema, overrides: list[str]) -> Any:
    """Compose ``conf/<name>.yaml`` with command-line overrides and check it; return the dataclass."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_config(schema, compose(name, overrides))


def store_checkpoint_defaults(schema: Schema, overrides: list[str]) -> None:
    """Make the data set and the protocol that a checkpoint was trained with the defaults of a command.

    Raises:
        ValueError: ``ckpt_path`` is missing from the command line, or is not a checkpoint.
    """
    from cyclenet.training.checkpoint import load_checkpoint, stored_config

    word = next((word for word in overrides if word.startswith("ckpt_path=")), "ckpt_path=")
    path = str(OverridesParser.create().parse_override(word).value())
    if not path:
        raise ValueError("ckpt_path is missing: give the .ckpt file in a run's checkpoints folder.")
    stored = asdict(stored_config(load_checkpoint(path)))
    keys = {field.name for field in fields(schema)} & {"dataset", "protocol"}
    ConfigStore.instance().store(name="checkpoint", node={key: stored[key] for key in keys})


# Values that are taken as they stand, whatever signs of Hydra's grammar are in them: names of files, and points.
LITERAL = ("ckpt_path", "compare", "dataset.root", "image", "images", "input", "output", "point", "points")


def parse_overrides(usage: str, lists: tuple[str, ...] = ()) -> list[str]:
    """Return the command line's ``key=value`` words; print ``usage`` and end for ``--help`` and for none at all.

    Args:
        usage: of the command.
        lists: keys whose values are lists, which may be written as a,b.
    """
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(usage.strip())
        raise SystemExit(0 if words else 2)
    return [quoted(word, lists) for word in words]


def quoted(word: str, lists: tuple[str, ...] = ()) -> str:
    """Write ``key=value`` so that Hydra takes the value of a `LITERAL` key, or each of a list's, as it stands."""
    key, _, value = word.partition("=")
    if value in ("", "null") or value[0] in "'\"" or (key in lists and value[0] == "["):
        return word
    if key in lists:
        return f"{key}=[{','.join(map(_literal, value.split(',')))}]"
    return f"{key}={_literal(value)}" if key in LITERAL else word


def _literal(value: str) -> str:
    # In Hydra's quotes a backslash is one, unless a quote follows.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value) + "'"


def check_train_arguments(name: str, schema: Schema) -> None:
    """Refuse a wrong command line before Hydra makes a run folder; of a sweep, what is the same for all its jobs."""
    for flag in {"-m", "--multirun"} & set(sys.argv):
        # Hydra takes it before all overrides or after them, and users write it anywhere.
        sys.argv.remove(flag)
        sys.argv.insert(1, flag)
    arguments = get_args_parser().parse_args()
    informative = (arguments.help, arguments.hydra_help, arguments.info, arguments.cfg, arguments.shell_completion)
    if any(informative) or arguments.config_dir or arguments.config_path:
        return
    from cyclenet.data.base import find_root

    # conf/hydra/launcher/submitit_slurm.yaml has the name of the schema that its plugin brings.
    warnings.filterwarnings("ignore", "(?s).*is validated against ConfigStore schema with the same name")
    with user_errors():
        overrides = OverridesParser.create().parse_overrides(arguments.overrides)
        swept = [override for override in overrides if override.is_sweep_override()]
        words = [str(override.input_line) for override in overrides if override not in swept]
        # Every value of an axis once, with the first values of the others; a job's own checks are left to the job. A glob's
        # values are names of existing options.
        listed = [axis for axis in swept if not isinstance(axis.value(), Glob)]
        axes = [[f"{axis.get_key_element()}={value}" for value in axis.sweep_string_iterator()] for axis in listed]
        firsts = [axis[0] for axis in axes]
        points = [firsts] + [[*firsts[:i], word, *firsts[i + 1 :]] for i, axis in enumerate(axes) for word in axis[1:]]
        register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed, *_ = [compose(arguments.config_name or name, [*words, *p], return_hydra_config=True) for p in points]
        if swept and not arguments.multirun and composed.hydra.mode != RunMode.MULTIRUN:
            first = swept[0]
            raise ValueError(f"{first.input_line} lists several values: add -m to sweep over them, or give one.")
        cfg = to_config(schema, composed)
        protocols(cfg)
        if not any((override.key_or_group or "").startswith("dataset") for override in swept):
            find_root(cfg.dataset)  # It may not exist.
