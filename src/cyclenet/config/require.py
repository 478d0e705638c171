"""Checks of single values: each raises `ValueError` with one sentence that names the key."""

from collections.abc import Collection, Mapping
from typing import Any


def require(ok: bool, message: str) -> None:
    """Raise `ValueError` with the message unless a condition holds."""
    if not ok:
        raise ValueError(message)


def require_folder_name(key: str, value: str) -> None:
    """Raise `ValueError` unless a value names a folder inside another."""
    parts = value.replace("\\", "/").split("/")
    inside = all(part not in ("", ".", "..") for part in parts) and ":" not in value
    require(inside, f"{key} must be the name of a folder inside the data's; got {value!r}.")


def require_choice(key: str, value: str, choices: Collection[str]) -> None:
    """Raise `ValueError` unless a key has one of the values that it may have."""
    require(value in choices, f"{key} must be one of {', '.join(choices)}; got {value!r}.")


def require_at_most(part: object, name: str, limits: Mapping[str, float]) -> None:
    """Bound what a configuration, which may come with a checkpoint, can ask of a machine."""
    for key, most in limits.items():
        value = getattr(part, key)
        for each in value if isinstance(value, list) else (value,):
            require(each <= most, f"{name}.{key} must be at most {most:g}; got {each:g}.")


def require_few(name: str, values: list[Any], most: int) -> None:
    """Raise `ValueError` where a list has too many values."""
    require(len(values) <= most, f"{name} may have {most} values; got {len(values)}.")


def require_above(part: object, name: str, keys: tuple[str, ...], least: float) -> None:
    """Raise `ValueError` unless keys are positive or, with ``least=0``, not negative."""
    for key in keys:
        value = getattr(part, key)
        if least == 0:
            require(value >= 0, f"{name}.{key} must be 0 or more; got {value}.")
        else:
            require(value > 0, f"{name}.{key} must be positive; got {value}.")
