"""A user's mistake in one sentence, which names the key or the file."""

import errno
import re

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cyclenet.config.help import explain_key, nearest_key

USER_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError)
"""Errors that a user can mend."""

OS_HINTS = {
    errno.ENOSPC: "; free disk space, or give another folder",
    errno.EDQUOT: "; free disk space, or give another folder",
    errno.EROFS: "; give another folder",
    errno.EACCES: "; give another folder, or the rights to this one",
}
"""How a user mends some errors of the system."""


def sentence(error: BaseException) -> str:
    """Say in one line what an exception is about; its kind where it has no text."""
    text = str(error) or type(error).__name__
    # A loader process sends its traceback as text; its last line is the error.
    if text.startswith("Caught "):
        return text.strip().splitlines()[-1].split(": ", 1)[-1]
    if isinstance(error, YAMLError):
        return f"A configuration file is not YAML: {' '.join(text.split())}."
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}{OS_HINTS.get(error.errno or 0, '')}."
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return text
    if "Could not find" in text:  # It is an option of a group, a group, or a file.
        message = text.split("Config search path", 1)[0]
        return " ".join((message.partition("': ")[2] or message).split()) + "."
    return _explain_hydra(error)


def _explain_hydra(error: BaseException) -> str:
    """Find the reason and the key in OmegaConf's messages, which Hydra wraps once or twice.

    They say what is wrong, then "full_key: <where>".
    """
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    lines = [line.strip() for part in chain for line in str(part).splitlines()]
    keyed = [number for number, line in enumerate(lines) if line.startswith("full_key:")]
    if not keyed:
        return lines[0]
    key = lines[keyed[0]].removeprefix("full_key:").strip()
    what = lines[max(keyed[0] - 1, 0)]
    if "missing mandatory value" in what:
        schema = next((line for line in lines if line.startswith("object_type=")), "")
        meaning = explain_key(schema.removeprefix("object_type="), key)
        return f"{key} is missing: give {key}=VALUE. {meaning or '--help explains it.'}"
    if re.match(r"Key '.*' (is )?not in", what):
        near = nearest_key(key)
        hint = f" (did you mean {near}?)" if near else ""
        return f"There is no key {key}{hint}; --help lists them all."
    return f"{key}: {what.rstrip('.')}."
