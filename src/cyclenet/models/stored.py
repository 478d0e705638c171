"""What a checkpoint holds, read without executing it, and the network rebuilt from it."""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from cyclenet.config.restore import restore
from cyclenet.config.schema import TrainConfig
from cyclenet.files import parse_json

LAYOUT = 3
"""Number of the layout of the weights that checkpoints are written with; version 0.1 had none. With
2, two compared systems computed something else from the same weights (`_refuse_changed`)."""

Byte = Annotated[int, Ge(0), Le(255)]

Checkpoint = dict[str, Any]  # What a checkpoint file holds; Lightning defines most of its keys.


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this project. Nothing in it is executed, and every byte is checked.

    Raises:
        ValueError: there is no such file, or it is damaged, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"There is no checkpoint {path}: give the .ckpt file in a run's checkpoints folder as "
            "ckpt_path."
        )
    try:
        with zipfile.ZipFile(path) as file:  # torch.load takes no notice of the checksums.
            damaged = file.testzip()
        if damaged:
            raise ValueError(damaged)
        checkpoint: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint["hyper_parameters"]["cfg"]["model"], dict):
            raise ValueError("no configuration")
        checkpoint["state_dict"].keys()
    except (OSError, MemoryError):  # They say something of the machine.
        raise
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{path} is not a whole checkpoint of this project ({kind}).") from error
    return checkpoint


def stored_config(checkpoint: Checkpoint) -> TrainConfig:
    """Return the configuration that a checkpoint was trained with.

    Raises:
        ValueError: this version does not know it.
    """
    try:
        cfg = restore(checkpoint["hyper_parameters"]["cfg"])
        _refuse_changed(cfg, checkpoint.get("run", {}).get("layout"))
        return cfg
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The checkpoint was made by another version: {reason}.") from error
    except ValueError as error:
        raise ValueError(f"The checkpoint cannot be used: {error}") from error


def _refuse_changed(cfg: TrainConfig, layout: int | None) -> None:
    """Raise `ValueError` for weights that give something else today than when they were trained."""
    context, stride = cfg.model.context, cfg.model.output_stride
    rates = context == "deeplabv3plus" and stride != 8  # They did not follow the stride.
    if layout == 2 and (rates or context == "denseaspp_net"):
        raise ValueError(
            f"model.context={context} computes something else since it was trained: use the "
            "version that it was made by, or train it anew."
        )


def stored(checkpoint: Checkpoint) -> tuple[TrainConfig, list[str], list[list[int]]]:
    """Return the configuration, the class names and the palette of a trained network.

    The backbone's weights are in the checkpoint, so the configuration asks for no others.

    Raises:
        ValueError: as `stored_config` and `stored_classes`.
    """
    cfg = stored_config(checkpoint)
    cfg.model.backbone_weights = "none"
    return (cfg, *stored_classes(checkpoint))


def stored_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the weights of the network, under their present names."""
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    if is_old_layout(checkpoint):
        weights = rename_old_weights(weights)
    return {name.removeprefix("net."): value for name, value in weights.items()}


def stored_classes(checkpoint: Checkpoint) -> tuple[list[str], list[list[int]]]:
    """Return the class names and the palette that a checkpoint was trained with.

    Raises:
        ValueError: they are none.
    """
    hyper = checkpoint["hyper_parameters"]
    try:
        stored = parse_json(_Classes, json.dumps(hyper))
        if not 2 <= len(stored.classes) <= 255 or len(stored.palette) != len(stored.classes):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise ValueError("The checkpoint names no classes with a colour each.") from error
    return stored.classes, [list(color) for color in stored.palette]


@dataclass
class _Classes:
    classes: list[str]
    palette: list[tuple[Byte, Byte, Byte]]


# How version 0.1 called the weights of context modules, and how they are called now.
OLD_NAMES = (
    (r"context\.reduce\.", r"context.reduce_conv."),
    (r"context\.fuse\.", r"context.fuse_conv."),
    (r"context\.project\.(\d+)\.(\d+)\.", r"context.layers.\2.project.\1."),
    (r"context\.atrous\.(\d+)\.", r"context.layers.\1.atrous."),
    (r"context\.(project|atrous)_norm\.(\d+)\.(\d+)\.", r"context.layers.\3.\1_norm.\2."),
    (r"context\.([012])\.", r"context.conv.\1."),
)


def is_old_layout(checkpoint: Checkpoint) -> bool:
    """Tell whether version 0.1 wrote a checkpoint whose weights have other names today."""
    if "layout" in checkpoint.get("run", {}):
        return False
    weights = checkpoint["state_dict"]
    return any(re.match(rf"net\.{old}", name) for name in weights for old, _ in OLD_NAMES)


def rename_old_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of a task of version 0.1 their present names; others stay as they are."""
    renamed = {}
    for name, value in weights.items():
        for old, new in OLD_NAMES:
            name = re.sub(rf"^net\.{old}", f"net.{new}", name)
        renamed[name] = value
    return renamed
