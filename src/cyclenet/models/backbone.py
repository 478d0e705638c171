"""Dilated ImageNet backbones from timm."""

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclenet.models.resize import resize
from cyclenet.models.weights import load_backbone

# timm imports wandb where there is one, for its own training script. It takes 0.4 s of a load.
_without = "wandb" not in sys.modules
if _without:
    sys.modules["wandb"] = None  # type: ignore[assignment]
import timm  # noqa: E402
from timm.layers import Format  # noqa: E402
from timm.models import FeatureInfo  # noqa: E402

if _without:
    del sys.modules["wandb"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A timm model that returns four levels of its features: at 1/4, the next, and the last two.

    The last is at ``output_stride``, and so is the third where it is 8 or 16. timm dilates the
    stages beyond the stride: a stage's first block keeps the rate of the stage before, the others
    have twice that.

    A vision transformer has one resolution. Its image is resized so that there is a patch for each
    cell at ``output_stride``, and the levels are four of its blocks, evenly spread, resized to the
    sizes of a pyramid without weights of its own.

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
        self.stride = output_stride
        self.patch, options = _timm_options(name, output_stride)
        try:
            self.body = timm.create_model(name, pretrained=weights == "timm", **options)
        except Exception as error:  # From the network, the hub, or timm, which has no weights.
            reason = " ".join(str(error).split())[:200]
            if weights != "timm":
                raise ValueError(f"timm cannot build model.backbone={name} ({reason}).") from error
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
        features: list[Tensor]
        if self.patch:
            cells = [-(-side // self.stride) for side in x.shape[-2:]]
            size = (cells[0] * self.patch, cells[1] * self.patch)
            features = self.body(F.interpolate(x, size, mode="bilinear", antialias=True))
            strides = (4, min(8, self.stride), self.stride, self.stride)
            return [
                resize(level, [-(-side // stride) for side in x.shape[-2:]], False)
                for level, stride in zip(features, strides, strict=True)
            ]
        if getattr(self.body, "output_fmt", None) != Format.NHWC:
            features = self.body(x)
            return features
        # Swin takes whole patches of 4.
        below, right = (-side % 4 for side in x.shape[-2:])
        return [level.permute(0, 3, 1, 2) for level in self.body(F.pad(x, (0, right, 0, below)))]

    def check_corners(self, stride: int) -> None:
        """Check that features lie at every ``stride``-th pixel, from corner to corner.

        Raises:
            ValueError: they do not, as where a stage floors an odd side or patches are embedded.
        """
        side, modes = 4 * stride + 1, [(each, each.training) for each in self.modules()]
        keeps = not self.patch and getattr(self.body, "output_fmt", None) != Format.NHWC
        if keeps:
            try:
                with torch.no_grad():
                    levels = self.eval()(torch.zeros(1, 3, side, side))
                strides = (4, min(16, stride), stride)
                found = [levels[number].shape[-1] for number in (0, 2, 3)]
                keeps = found == [(side - 1) // each + 1 for each in strides]
            except RuntimeError:  # It joins maps whose sizes do not fit.
                keeps = False
            for each, training in modes:  # Frozen norms stay in evaluation mode.
                each.training = training
        if not keeps:
            raise ValueError(
                "model.align_corners=true needs features at every stride-th pixel, which this "
                "model.backbone has not: set model.align_corners=false."
            )


@cache
def _timm_options(name: str, output_stride: int) -> tuple[int, dict[str, Any]]:
    """Return a vision transformer's patch, else 0, and what timm's model of a name is built with.

    Its ``out_indices`` are the stage at 1/4, the next, and the last two.
    """
    if not timm.is_model(name):
        raise ValueError(
            f"model.backbone: timm has no model named {name!r}; see timm.list_models('*resnet*')."
        )
    options, model = _first_that_builds(name, output_stride)
    found = _feature_info(model).reduction()
    if "output_stride" not in options and not _is_densenet(name):
        _try_sizes(model, name, max(found))
    if len(set(found)) == 1:
        blocks = len(cast(Any, model).model.blocks)
        levels = tuple(blocks * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
        return found[0], options | {"out_indices": levels}
    dilates = "output_stride" in options or _is_densenet(name)
    reductions = [min(r, output_stride) if dilates else r for r in found]
    if not dilates and reductions[-1] != output_stride:
        raise ValueError(
            f"model.backbone {name} cannot be dilated to model.output_stride={output_stride}: give "
            f"model.output_stride={reductions[-1]}."
        )
    if 4 not in reductions or reductions[-1] != output_stride:
        raise ValueError(
            f"model.backbone {name} has features at 1/{reductions}; "
            f"needed are 1/4 and 1/{output_stride}."
        )
    low = len(reductions) - 1 - reductions[::-1].index(4)
    levels = (low, low + 1, len(reductions) - 2, len(reductions) - 1)
    if len(set(levels)) < len(levels):
        raise ValueError(
            f"model.backbone {name} has features at 1/{reductions}; needed are two stages more "
            "after 1/4 and the next."
        )
    return 0, options | {"out_indices": levels}


def _first_that_builds(name: str, output_stride: int) -> tuple[dict[str, Any], nn.Module]:
    """Return options and a model without memory: families of models differ in what they take."""
    families: list[dict[str, Any]] = [
        {"output_stride": output_stride},
        {"strict_img_size": False},  # Swin takes any size then, but cannot be dilated.
        {"dynamic_img_size": True},  # So do vision transformers.
        {},
    ]
    for options in families[-1:] if _is_densenet(name) else families:
        options["features_only"] = True
        try:
            with torch.device("meta"):
                return options, timm.create_model(name, **options)
        except (TypeError, RuntimeError, NotImplementedError):
            continue
    raise ValueError(f"model.backbone {name} gives no features of its stages.")


def _try_sizes(model: nn.Module, name: str, patch: int) -> None:
    """Raise `ValueError` where a model takes images of one size only."""
    try:
        with torch.no_grad():
            model.eval()(torch.empty(1, 3, 7 * patch, 9 * patch, device="meta"))
    except (AssertionError, RuntimeError, TypeError, IndexError) as error:
        raise ValueError(
            f"model.backbone {name} takes images of one size only: choose another."
        ) from error


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
