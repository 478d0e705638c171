"""Parameters, multiply-adds and activation memory of a model, counted on the meta device.

Nothing is computed, so no data and no time are needed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torchvision  # noqa: F401  # Importing it registers torch.ops.torchvision.
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cyclenet.config.model import ModelConfig
from cyclenet.models.cyclenet import CycleNet, build_model

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Cost:
    """What one part of a model costs for one image.

    Attributes:
        parameters: numbers, frozen ones too; a filter that several parts share counts in the first.
        once: multiply-adds with each module counted at its first use only, as in Table 1.
        executed: multiply-adds that are really done.
    """

    parameters: int = 0
    once: int = 0
    executed: int = 0


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Keep what a function returned for the same arguments: reports ask for an arm again."""
    known: dict[str, T] = {}

    @wraps(function)
    def remember(*args: P.args, **kwargs: P.kwargs) -> T:
        key = repr((args, kwargs))
        if key not in known:
            known[key] = function(*args, **kwargs)
        return known[key]

    return remember


@remembered
def count_cost(cfg: ModelConfig, height: int, width: int, num_classes: int = 19) -> dict[str, Cost]:
    """Count a model's cost by part, in evaluation mode, with PyTorch's own FLOP counter.

    Convolutions, the deformable one and matrix products count, a multiply-add as one;
    normalisation, activations, sums and interpolation do not. (With batch norm as two operations
    an element, Table 1 is met to 0.08 %.)

    Args:
        cfg: the model.
        height: height of the image, pixels.
        width: width of the image, pixels.
        num_classes: channels of the logits.

    Returns:
        `Cost` by name of the part, in the order that `run_in_parts` runs them.
    """
    # A guided context module keeps the auxiliary head (`ModelConfig`).
    net = meta_model(replace(cfg, aux_head=False), num_classes, (height, width)).eval()
    counter = flop_counter()
    used = _UsedModules(net.context, counter)
    costs: dict[str, Cost] = {}
    before = 0
    with counter, torch.no_grad():
        for name in run_in_parts(net, torch.empty(1, 3, height, width, device="meta")):
            # The counter has two operations for a multiply-add.
            executed = (counter.get_total_flops() - before) // 2
            before = counter.get_total_flops()
            parameters, repeated = used.take()
            costs[name] = Cost(parameters, executed - repeated, executed)
    costs["backbone"].parameters = _count(net.backbone)
    costs["classifier"].parameters = _count(net.classifier)
    if net.aux is not None:
        costs["aux"].parameters = _count(net.aux)
    if "decoder" in costs:
        costs["decoder"].parameters = _count(net.decoder)
    # Parameters of the context that belong to no single module count in its first part.
    first = next(name for name in costs if name.startswith("context"))
    rest = _count(net) - total(costs.values()).parameters
    costs[first].parameters += rest
    return costs


def run_in_parts(net: CycleNet, image: Tensor) -> Iterator[str]:
    """Run a network part by part; yield the name of each part when it has run."""
    features = net.features(image)
    yield "backbone"
    x = net.context_input(features)
    if net.aux is not None and net.training and not net.guided:
        net.aux(features[2])
    if net.aux is not None:
        yield "aux"
    y0 = net.context.reduce(x)
    outputs: list[Tensor] = []
    names = net.context.part_names
    for name, found in zip(names, net.context.passes(y0), strict=True):
        outputs = found
        yield name if name == "context" else f"context, {name}"
    decoded = net.context.fuse(y0, outputs)
    yield "context, fuse"
    if net.decoder.reads:
        levels = net.levels(features)
        if net.training:
            decoded, _ = net.decoder.with_extras(decoded, *levels)
        else:
            decoded = net.decoder(decoded, *levels)
        yield "decoder"
    net.classifier(decoded)
    yield "classifier"


class _UsedModules:
    """Note which modules of the context run for the first time, and which again.

    A module runs again if it ran before and no part of it runs for the first time. Its own matrix
    products are then repeated too.
    """

    def __init__(self, context: nn.Module, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.seen: set[nn.Module] = set()
        self.inside: list[tuple[int, int, int]] = []
        self.parameters = self.repeated = 0
        for module in context.modules():
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave)

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.inside.append((self.counter.get_total_flops(), self.repeated, len(self.seen)))

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        flops, repeated, seen = self.inside.pop()
        if module not in self.seen:
            self.seen.add(module)
            self.parameters += 0 if list(module.children()) else _count(module)
        elif len(self.seen) == seen:
            self.repeated = repeated + (self.counter.get_total_flops() - flops) // 2

    def take(self) -> tuple[int, int]:
        """Return the parameters of new modules and the multiply-adds of repeated ones since."""
        found = self.parameters, self.repeated
        self.parameters = self.repeated = 0
        return found


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def total(costs: dict[str, Cost] | Iterable[Cost]) -> Cost:
    """Add up the parts."""
    parts = list(costs.values() if isinstance(costs, dict) else costs)
    return Cost(
        sum(cost.parameters for cost in parts),
        sum(cost.once for cost in parts),
        sum(cost.executed for cost in parts),
    )


@remembered
def training_memory(
    cfg: ModelConfig, height: int, width: int, num_classes: int = 19
) -> dict[str, int]:
    """Count the bytes that a float32 training step keeps for the backward pass, for one image.

    A tensor that several operations keep counts once, parameters not at all. The deformable
    convolution is torchvision's, as on a GPU. Gradients, optimizer state, the loss and the
    operators' workspace come on top.

    Returns:
        Bytes by name of the part (`run_in_parts`).
    """
    net = meta_model(cfg, num_classes, (height, width)).train()
    own = {tensor.untyped_storage()._cdata for tensor in [*net.parameters(), *net.buffers()]}
    kept: dict[int, Tensor] = {}
    pending = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal pending
        storage = tensor.untyped_storage()
        if storage._cdata not in kept and storage._cdata not in own:
            # The tensor is held, so that its number is not another's a moment later.
            kept[storage._cdata] = tensor
            pending += storage.nbytes()
        return tensor

    found = {}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # There are two images, since batch norm needs more than one value of a channel.
        for name in run_in_parts(net, torch.empty(2, 3, height, width, device="meta")):
            found[name], pending = pending // 2, 0
    return found


def flop_counter() -> FlopCounterMode:
    """Return PyTorch's counter, which counts the deformable convolution too.

    A multiply-add is two operations.
    """
    mapping = {torch.ops.torchvision.deform_conv2d: _deform_flops}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def meta_model(cfg: ModelConfig, num_classes: int, crop_size: tuple[int, int]) -> CycleNet:
    """Build a model without memory for its weights."""
    with torch.device("meta"):
        return build_model(replace(cfg, backbone_weights="none"), num_classes, crop_size)


def _deform_flops(x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    # It counts as a convolution with the same filter: the bilinear gathering is no multiply-add of
    # the filter.
    batch, _, height, width = out_shape
    out_channels, in_channels, *kernel = weight
    return 2 * batch * height * width * out_channels * in_channels * kernel[0] * kernel[1]
