"""Choices that depend on no order of draws: seeds that are functions of a key, even spreads."""

import hashlib


def derive(*key: int | str) -> int:
    """Hash a key to an integer in 0..2**32 - 1, the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def spread(length: int, count: int) -> list[int]:
    """Return at most ``count`` indices that are spread evenly over ``length`` items."""
    count = min(count, length)
    step = (length - 1) / max(count - 1, 1)
    return [round(number * step) for number in range(count)]
