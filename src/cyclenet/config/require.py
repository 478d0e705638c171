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


def require_few(name: str, values: list[Any], most: int) -> None:
    """Raise `ValueError` where a list has too many values."""
    require(len(values) <= most, f"{name} may have {most} values; got {len(values)}.")


def require_within(part: object, name: str, intervals: Mapping[str, str]) -> None:
    """Bound keys by intervals such as ``(0, 1]``, and every value of a list. None passes, NaN not.

    The configuration may come with a checkpoint of somebody else's: upper bounds limit what it can
    ask of a machine. After a semicolon an interval may be said in words.
    """
    words = {"(0, inf]": "positive", "[0, inf]": "0 or more"}
    for key, text in intervals.items():
        interval, _, said = text.partition("; ")
        low, high = map(float, interval[1:-1].split(","))
        value = getattr(part, key)
        for each in value if isinstance(value, list) else [value]:
            above = each is None or (low <= each if interval[0] == "[" else low < each)
            below = each is None or (each <= high if interval[-1] == "]" else each < high)
            wanted = said or words.get(interval, f"in {interval}")
            require(above and below, f"{name}{key} must be {wanted}; got {each}.")
