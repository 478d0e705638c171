"""Compose, check and restore configurations; Hydra knows the schemas and resolvers from here."""

import itertools
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from cyclenet.config import commands
from cyclenet.config.identity import changed_from, digest, keep_result_affecting, network_name
from cyclenet.config.model import ModelConfig
from cyclenet.config.naming import short_name
from cyclenet.config.restore import CONF, checked
from cyclenet.config.schema import TrainConfig
from cyclenet.files import read_yaml

SCHEMAS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "evaluate": commands.EvaluateConfig,
    "predict": commands.PredictConfig,
    "submit": commands.SubmitConfig,
    "visualize": commands.VisualizeConfig,
    "explore": commands.ExploreConfig,
    "report": commands.ReportConfig,
    "publish": commands.PublishConfig,
    "prepare": commands.PrepareConfig,
    "check_data": commands.CheckConfig,
    "complexity": commands.ComplexityConfig,
    "export": commands.ExportConfig,
    "push": commands.PushConfig,
}
"""The schema of each command."""

T = TypeVar("T")


def to_config(schema: type[T], cfg: DictConfig) -> T:
    """Check a composed configuration against its schema and return the dataclass.

    Merging into a fresh schema also refuses keys that ``+key=value`` slipped past Hydra.

    Raises:
        ValueError: a value is out of its range.
        omegaconf.errors.OmegaConfBaseException: a key is unknown, or a value has the wrong type.
    """
    return checked(schema, OmegaConf.create(plain_values(cfg)))


def plain_values(cfg: DictConfig) -> Any:
    """Resolve a configuration to plain values, without Hydra's node, which needs a running job."""
    keys = [str(key) for key in cfg if key != "hydra"]
    return OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True)


def compose_config(command: str, overrides: list[str]) -> Any:
    """Compose ``conf/<command>.yaml`` with overrides, check it, and return the dataclass."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_config(SCHEMAS[command], compose(command, overrides))


def scale_rates(rates: list[int], output_stride: int) -> list[int]:
    """Scale rates for 1/8 features to another stride, keeping their reach; halves round up."""
    return [int(rate * 8 / output_stride + 0.5) for rate in rates]


def _rates_at_8(rates: list[int], _root_: DictConfig) -> list[int]:
    return scale_rates(rates, _root_.model.output_stride)


def _rates_at_97(rates: list[int], _root_: DictConfig) -> list[int]:
    """Scale rates for the paper's map of 97 x 97 features to the map of a training crop.

    Rates that increase still do, also where the map is too small to tell them apart.
    """
    side = min(_root_.dataset.crop_size) / _root_.model.output_stride
    scaled: list[int] = []
    for before, rate in itertools.pairwise([0, *rates]):
        least = scaled[-1] + 1 if scaled and rate > before else 1
        scaled.append(max(int(rate * side / 97 + 0.5), least))
    return scaled


def _paper_width(width: int, _root_: DictConfig) -> int:
    """Scale a compared system's width as ``model`` scales CycleNet's, whose growth is 128."""
    return int(width * _root_.model.growth_channels // 128)


def _in_resnets(value: Any, _root_: DictConfig) -> Any:
    """Return the value where the backbone is a trained ResNet, else the empty value of its type."""
    model = _root_.model
    changes = model.backbone.startswith("resnet") and not model.freeze_backbone
    return value if changes else type(value)()


def _chosen(path: str, _root_: DictConfig) -> float:
    """Return what `cyclenet.lab.sweeps.choose` wrote for this network: ``${chosen:PATH}``.

    ``${chosen:NAME}`` reads ``conf/chosen/NAME.yaml``.
    """
    file = Path(path) if path.endswith(".yaml") else CONF / "chosen" / f"{path}.yaml"
    if not file.is_file():
        raise ValueError(
            f"There is no {file}: let a sweep choose it first, as experiment=heads_rates and "
            "zoo_heads_rates do."
        )
    model: Any = OmegaConf.to_container(_root_.model, resolve=True)
    name, values = network_name(model), read_yaml(file)
    if not isinstance(values, dict) or not isinstance(values.get(name), int | float):
        raise ValueError(f"{file} has no number for {name}: choose one, or give it by hand.")
    return float(values[name])


def run_folder_name(_root_: DictConfig) -> str:
    """Name the run folder as a function of the configuration (the resolver ``${run_folder:}``).

    All processes of a run agree on the name, and a repeated command finds its own checkpoints.
    ``dataset.root`` is in the hash too, for another folder may hold other data.
    """
    # The values are not checked: Hydra asks for the name before a job is checked.
    values = keep_result_affecting(plain_values(_root_))
    changed = changed_from(asdict(TrainConfig()), values)
    model = ModelConfig.__new__(ModelConfig)
    model.__dict__.update(values["model"])
    parts = f"{values['dataset']['name']}-{short_name(model)}-seed{values['seed']}"
    return f"{values['name']}/{parts}-{digest(changed, 4)}"


@cache
def register() -> None:
    """Make the schemas and the resolvers known to Hydra; the first call does."""
    store = ConfigStore.instance()
    for schema in SCHEMAS.values():
        store.store(name=schema.__name__, node=schema)
    OmegaConf.register_new_resolver("run_folder", run_folder_name, replace=True)
    OmegaConf.register_new_resolver("rates_at_8", _rates_at_8, replace=True)
    OmegaConf.register_new_resolver("paper_width", _paper_width, replace=True)
    OmegaConf.register_new_resolver("in_resnets", _in_resnets, replace=True)
    OmegaConf.register_new_resolver("chosen", _chosen, replace=True)
    OmegaConf.register_new_resolver("rates_at_97", _rates_at_97, replace=True)
