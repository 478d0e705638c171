"""Dilated ImageNet backbones from timm."""

from typing import Any, cast

import timm
import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

from cyclenet.models.weights import load_backbone

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A timm model that returns its features at 1/4, of its third stage and of its last.

    The last is at ``output_stride``, and so is the third where it is 8 or 16. timm dilates the
    stages beyond the stride: a stage's first block keeps the rate of the stage before, the others
    have twice that.

    Args:
        name: a timm model that supports ``features_only`` and ``output_stride``.
        weights: ``timm``, ``package``, ``none`` or the path of a weights file.
        output_stride: pixels of the image per pixel of the last features.
        first_block_dilation: ``previous``, or ``stage`` to dilate the first block of a stage like
            the others (CCNet, semseg and the paper's words).

    Raises:
        ValueError: timm has no such model or weights, or the file does not fit it.
    """

    def __init__(
        self, name: str, weights: str, output_stride: int, first_block_dilation: str = "previous"
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "features_only": True,
            "output_stride": output_stride,
            "out_indices": _stages(name, output_stride),
        }
        try:
            self.body = timm.create_model(name, pretrained=weights == "timm", **options)
        except Exception as error:  # From the network, the hub, or timm, which has no weights.
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"model.backbone_weights=timm: no weights of {name} could be had ({reason}); "
                "give a local file, or none."
            ) from error
        self.channels: list[int] = _feature_info(self.body).channels()
        if first_block_dilation == "stage":
            _dilate_first_blocks(self.body, name)
        data = timm.get_pretrained_cfg(name)
        self.mean: tuple[float, ...] = data.mean if data else IMAGENET_MEAN
        self.std: tuple[float, ...] = data.std if data else IMAGENET_STD
        if weights not in ("timm", "none"):
            load_backbone(self.body, name, weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map a normalised image (N, 3, H, W) to [1/4 features, third stage, last stage]."""
        features: list[Tensor] = self.body(x)
        return features


def _stages(name: str, output_stride: int) -> tuple[int, int, int]:
    """Return timm's numbers of the stage at 1/4 and of the last two."""
    if not timm.is_model(name):
        raise ValueError(
            f"model.backbone: timm has no model named {name!r}; see timm.list_models('*resnet*')."
        )
    try:
        with torch.device("meta"):
            model = timm.create_model(name, features_only=True, output_stride=output_stride)
        reductions = _feature_info(model).reduction()
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
    return low, len(reductions) - 2, len(reductions) - 1


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


def _convs_3x3(block: nn.Module) -> list[nn.Conv2d]:
    convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    return [conv for conv in convs if conv.kernel_size == (3, 3)]


def _feature_info(model: nn.Module) -> FeatureInfo:
    return cast(FeatureInfo, model.feature_info)
