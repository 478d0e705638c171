"""One grammar for all commands: ``key=value`` words, where paths need no quotes.

The words are Hydra's overrides. The values of `LITERAL` keys are taken as they stand, whatever
signs of Hydra's grammar are in them, and ``~`` is the home folder. A list is written as a,b.
"""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

LITERAL = {
    "baseline",
    "ckpt_path",
    "compare",
    "dataset.cache_root",
    "dataset.classes",
    "dataset.image_suffix",
    "dataset.images",
    "dataset.mask_suffix",
    "dataset.masks",
    "dataset.root",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "image",
    "images",
    "init_from",
    "input",
    "model.backbone_weights",
    "output",
    "plan",
    "point",
    "points",
    "runs",
    "title",
}
"""Keys of files, points and names."""

WORDS_OF_HYDRA = {"true", "false", "null", "inf", "nan"}
"""Words that Hydra reads as values unless they are quoted."""


def quote(word: str, lists: set[str], sweep: bool = False) -> str:
    """Write ``key=value`` so that Hydra takes the value of a `LITERAL` key as it stands.

    Args:
        word: a word of the command line.
        lists: keys whose values are lists.
        sweep: whether several jobs may run. A literal value with commas then lists values, unless
            it is a path that exists.
    """
    key, _, value = word.partition("=")
    if value in ("", "null") or value[0] in "'\"":
        return word
    if key in lists and value[0] == "[":
        # A list with quotes, lists, escapes, interpolations or null stays as it is.
        plain = re.fullmatch(r"\[([^\[\]{}'\"\\$]+)\]", value)
        values = [each.strip() for each in plain[1].split(",")] if plain else [""]
        if {"", "null"} & set(values):
            return word
        return f"{key}=[{','.join(_literal(key, each) for each in values)}]"
    if key in lists and not sweep:
        values = [value] if _exists(value) else value.split(",")
        return f"{key}=[{','.join(_literal(key, each) for each in values)}]"
    if key not in LITERAL or (sweep and "," in value and not _exists(value)):
        return word
    return f"{key}={_literal(key, value)}"


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError):
        return False


def _literal(key: str, value: str) -> str:
    if key in LITERAL and value.startswith("~"):
        value = str(Path(value).expanduser())
    if re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value) and value.lower() not in WORDS_OF_HYDRA:
        return value
    # In Hydra's quotes a backslash is a backslash, unless a quote follows.
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def list_keys(schema: type[Any], prefix: str = "") -> set[str]:
    """Return the keys of a schema whose values are lists of words."""
    found: set[str] = set()
    hints = get_type_hints(schema)
    for each in fields(schema):
        kind = hints[each.name]
        if is_dataclass(kind) and isinstance(kind, type):
            found |= list_keys(kind, f"{prefix}{each.name}.")
        elif any(get_origin(k) is list and get_args(k) == (str,) for k in (kind, *get_args(kind))):
            found.add(prefix + each.name)
    return found
