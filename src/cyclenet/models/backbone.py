"""Dilated ImageNet backbones from timm."""

from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

from cyclenet.models.weights import load_backbone

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A timm model that returns four levels of its features: at 1/4, the next, and the last two.

    The last is at ``output_stride``, and so is the third where it is 8 or 16. timm dilates the
    stages beyond the stride: a stage's first block keeps the rate of the stage before, the others
    have twice that.

    Args:
        name: a timm model that supports ``features_only`` and ``output_stride``.
        weights: ``timm``, ``package``, ``none`` or the path of a weights file.
        output_stride: pixels of the image per pixel of the last features.
        first_block_dilation: ``previous``, or ``stage`` to dilate the first block of a stage like
            the others (CCNet, semseg and the paper's words).
        multi_grid: dilations of the last stage's blocks, as multiples of the stage's; empty leaves
            them as they are. For ResNets.

    Raises:
        ValueError: timm has no such model or weights, or the file does not fit it.
    """

    def __init__(
        self,
        name: str,
        weights: str,
        output_stride: int,
        first_block_dilation: str = "previous",
        multi_grid: Sequence[int] = (),
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "features_only": True,
            "out_indices": _stages(name, output_stride),
        }
        if not _is_densenet(name):
            options["output_stride"] = output_stride
        try:
            self.body = timm.create_model(name, pretrained=weights == "timm", **options)
        except Exception as error:  # From the network, the hub, or timm, which has no weights.
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"model.backbone_weights=timm: no weights of {name} could be had ({reason}); "
                "give a local file, or none."
            ) from error
        if _is_densenet(name):
            _dilate_densenet(self.body, output_stride)
        self.channels: list[int] = _feature_info(self.body).channels()
        if first_block_dilation == "stage":
            _dilate_first_blocks(self.body, name)
        if multi_grid:
            _dilate_last_stage(self.body, name, multi_grid)
        data = timm.get_pretrained_cfg(name)
        self.mean: tuple[float, ...] = data.mean if data else IMAGENET_MEAN
        self.std: tuple[float, ...] = data.std if data else IMAGENET_STD
        if weights not in ("timm", "none"):
            load_backbone(self.body, name, weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map a normalised image (N, 3, H, W) to its four levels, finest first."""
        features: list[Tensor] = self.body(x)
        return features


def _stages(name: str, output_stride: int) -> tuple[int, ...]:
    """Return timm's numbers of the stage at 1/4, of the next, and of the last two."""
    if not timm.is_model(name):
        raise ValueError(
            f"model.backbone: timm has no model named {name!r}; see timm.list_models('*resnet*')."
        )
    try:
        with torch.device("meta"):
            options: dict[str, Any] = {} if _is_densenet(name) else {"output_stride": output_stride}
            model = timm.create_model(name, features_only=True, **options)
        reductions = [min(r, output_stride) for r in _feature_info(model).reduction()]
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"model.backbone {name} cannot be dilated to model.output_stride={output_stride}."
        ) from error
    if 4 not in reductions or reductions[-1] != output_stride:
        raise ValueError(
            f"model.backbone {name} has features at 1/{reductions}; "
            f"needed are 1/4 and 1/{output_stride}."
        )
    low = len(reductions) - 1 - reductions[::-1].index(4)
    stages = (low, low + 1, len(reductions) - 2, len(reductions) - 1)
    if len(set(stages)) < len(stages):
        raise ValueError(
            f"model.backbone {name} has features at 1/{reductions}; needed are two stages more "
            "after 1/4 and the next."
        )
    return stages


def _dilate_first_blocks(body: nn.Module, name: str) -> None:
    # timm has no argument for it.
    for stage in (getattr(body, "layer3", None), getattr(body, "layer4", None)):
        if stage is None:
            raise ValueError(
                f"model.first_block_dilation=stage is for ResNets, not for {name}; "
                "set it to previous."
            )
        rate = max(conv.dilation[0] for conv in _convs_3x3(stage[-1]))
        for conv in _convs_3x3(stage[0]):
            if conv.stride == (1, 1):
                conv.dilation = conv.padding = (rate, rate)


def _dilate_last_stage(body: nn.Module, name: str, multi_grid: Sequence[int]) -> None:
    stage = getattr(body, "layer4", None)
    if stage is None or len(stage) != len(multi_grid):
        raise ValueError(
            f"model.multi_grid needs a factor for each block of a ResNet's last stage; {name} has "
            f"{len(stage) if stage is not None else 'no layer4'}."
        )
    rate = max(conv.dilation[0] for conv in _convs_3x3(stage[-1]))
    for block, factor in zip(stage, multi_grid, strict=True):
        for conv in _convs_3x3(block):
            # A convolution that strides, as at output stride 32, stays as it is.
            if conv.stride == (1, 1):
                conv.dilation = conv.padding = (rate * factor, rate * factor)


def _is_densenet(name: str) -> bool:
    return name.startswith("densenet")


def _dilate_densenet(body: nn.Module, output_stride: int) -> None:
    # timm has no output stride for it. DenseASPP's authors dilate by 2 and 4, too.
    rate = 1
    for number, reduction in ((2, 16), (3, 32)):
        if reduction <= output_stride:
            continue
        rate *= 2
        getattr(body, f"features_transition{number}").pool = nn.Identity()
        for conv in _convs_3x3(getattr(body, f"features_denseblock{number + 1}")):
            conv.dilation = conv.padding = (rate, rate)


def _convs_3x3(block: nn.Module) -> list[nn.Conv2d]:
    convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    return [conv for conv in convs if conv.kernel_size == (3, 3)]


def _feature_info(model: nn.Module) -> FeatureInfo:
    return cast(FeatureInfo, model.feature_info)
