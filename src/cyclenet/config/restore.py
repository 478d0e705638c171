"""Read presets and stored configurations: nothing in them runs, and their values have bounds."""

from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf

from cyclenet.config.identity import flatten
from cyclenet.config.require import require_choice
from cyclenet.config.schema import ProtocolConfig, TrainConfig
from cyclenet.files import read_yaml

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"
"""The YAML files: in the installed package, else at the top of the repository."""

PLACES = ("root", "classes", "cache", "cache_root", "download")
"""Keys of a data set that say where files are: of the user's machine, not of a model."""

REMOVED_KEYS = {"trainer": ("strategy",)}
"""Keys that stored configurations may hold although no version reads them any more."""

T = TypeVar("T")


def checked(schema: type[T], values: Any) -> T:
    """Merge values into a schema and return its dataclass. Raises as `restore`."""
    merged = OmegaConf.merge(OmegaConf.structured(schema), values)
    return cast(T, OmegaConf.to_object(merged))


def restore(values: Any) -> TrainConfig:
    """Return a configuration that was stored, with the defaults of keys that were added since.

    What is stored is data: someone else may have written it. An interpolation, which could read
    the environment, is refused.

    Raises:
        ValueError: it is no mapping or has an interpolation, or a value is out of its range.
        omegaconf.errors.OmegaConfBaseException: a key is unknown, or a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise ValueError("A stored configuration must be a mapping of keys.")
    for key, value in flatten(values).items():
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str) and ("${" in text or text == "???"):
                raise ValueError(f"{key} of a stored configuration is {text!r}, not a value.")
    values = {
        part: {k: v for k, v in inner.items() if k not in REMOVED_KEYS.get(part, ())}
        if isinstance(inner, dict)
        else inner
        for part, inner in values.items()
    }
    return checked(TrainConfig, OmegaConf.create(values))


def read_config(path: Path) -> TrainConfig:
    """Read the ``config.yaml`` of a run folder.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, or as `restore`.
        omegaconf.errors.OmegaConfBaseException: as `restore`.
    """
    return restore(read_yaml(path))


def load_protocol(name: str, key: str = "protocol") -> ProtocolConfig:
    """Return a preset of ``conf/protocol``. Raises `ValueError` where there is none of the name."""
    presets = sorted(path.stem for path in (CONF / "protocol").glob("*.yaml"))
    require_choice(key, name, presets)
    return checked(ProtocolConfig, OmegaConf.load(CONF / "protocol" / f"{name}.yaml"))
