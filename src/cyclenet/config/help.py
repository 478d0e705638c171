"""``--help`` of every command: its keys, with their explanations from the schema."""

import ast
import difflib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple, get_type_hints

from omegaconf import MISSING as REQUIRED

from cyclenet.config.load import SCHEMAS
from cyclenet.config.restore import CONF

WIDTH = 100
GROUPS = ("experiment", "arm", "model", "dataset", "recipe", "protocol", "trainer", "logger")
"""Groups of YAML files, in the order that help lists them."""

TRAINING_GROUPS = {"experiment", "arm", "recipe"}  # Groups that only training reads.


TRAINING_DEFAULTS = """Without words, train composes model=cyclenet_lite dataset=scenes
protocol=whole trainer=default logger=wandb and the data set's recipe over these defaults;
--cfg job shows the result and does nothing. -m seed=0,1,2 sweeps."""


class Key(NamedTuple):
    """A key of a schema: its dotted name, default, and explanation."""

    name: str
    default: str
    text: str


def explain_keys(schema: type[Any], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a schema; those of its parts come after its own."""
    comments, hints = field_comments(schema), get_type_hints(schema)
    parts = []
    for each in fields(schema):
        kind = hints[each.name]
        if is_dataclass(kind) and isinstance(kind, type):
            parts.append((kind, f"{prefix}{each.name}."))
            continue
        default = each.default
        if each.default_factory is not MISSING:
            default = each.default_factory()
        shown = "required" if default == REQUIRED else _plain(default)
        yield Key(prefix + each.name, shown, comments.get(each.name, ""))
    for kind, inner in parts:
        yield from explain_keys(kind, inner)


def _plain(value: object) -> str:
    """Write a default as a user would write it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_plain, value))}]"
    return str(value) or "''"


def field_comments(schema: type[Any]) -> dict[str, str]:
    """Return the comment above each field of a dataclass, as one line."""
    source = textwrap.dedent(inspect.getsource(schema))
    lines = source.splitlines()
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        comment: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            comment.insert(0, line.strip().removeprefix("#").strip())
        found[node.target.id] = " ".join(comment)
    return found


def write_help(command: str, about: str) -> str:
    """Write the help of a command: what it does, its groups of files, and every key."""
    schema = SCHEMAS[command]
    lines = [about.strip(), "", "Every key, with its default:"]
    for key in explain_keys(schema):
        lines.append(f"  {key.name}={key.default}")
        lines += textwrap.wrap(key.text, WIDTH, initial_indent="      ", subsequent_indent="      ")
    groups = [(name, _options(name)) for name in GROUPS if _reads(schema, name)]
    if groups:
        lines += ["", "Files of conf/ that set several keys at once:"]
    for name, options in groups:
        text = f"{name}={' | '.join(options)}"
        lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ")
    if command == "train":
        lines += ["", TRAINING_DEFAULTS]
    return "\n".join(lines)


def _reads(schema: type[Any], group: str) -> bool:
    names = {each.name for each in fields(schema)}
    return group in names or ("trainer" in names and group in TRAINING_GROUPS)


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def explain_key(schema: str, key: str) -> str:
    """Return the explanation of a key of a schema, which is given by its class's name; or ""."""
    keys = [k for each in SCHEMAS.values() if each.__name__ == schema for k in explain_keys(each)]
    return next((each.text for each in keys if each.name == key), "")


def nearest_key(key: str) -> str:
    """Return the key of any command that is nearest to a misspelt one, or ""."""
    known = sorted({each.name for schema in SCHEMAS.values() for each in explain_keys(schema)})
    near = difflib.get_close_matches(key, known, 1)
    if near:
        return near[0]
    # A key may be right but for the part that it is in.
    last = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(key.rsplit(".", 1)[-1], last, 1)
    return last[near[0]] if near else ""
