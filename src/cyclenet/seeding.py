"""Seeds that are functions of a key, so that nothing depends on the order of draws."""

import hashlib


def derive(*key: int | str) -> int:
    """Hash a key to an integer in 0..2**32 - 1, the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
