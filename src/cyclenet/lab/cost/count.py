"""Parameters, multiply-adds and activation memory of a model, counted on the meta device: no data, no time."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision  # noqa: F401  Registers torch.ops.torchvision.
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cyclenet.config import ModelConfig
from cyclenet.models.cyclenet import CycleNet, build_model

COMPONENTS = ("backbone", "context, PartI", "context, PartII", "context, fuse", "decoder", "classifier")


@dataclass
class Cost:
    """What one part of a model costs for one image.

    Attributes:
        parameters: trained numbers; a filter that PartI and PartII share is PartI's.
        once: multiply-adds, with each module counted at its first use only, as the paper's Table 1 is.
        executed: multiply-adds that are really done.
    """

    parameters: int = 0
    once: int = 0
    executed: int = 0


def complexity(cfg: ModelConfig, height: int, width: int, num_classes: int = 19) -> dict[str, Cost]:
    """Count a model's cost by component, in evaluation mode, with PyTorch's own FLOP counter.

    Convolutions, the deformable one and matrix products count, a multiply-add as one; normalisation, activations, sums and
    interpolation do not (with batch norm as two operations an element, Table 1 is met to 0.08 %).

    Args:
        cfg: the model.
        height: of the image, pixels.
        width: of the image, pixels.
        num_classes: channels of the logits.

    Returns:
        `Cost` by name of the component (`COMPONENTS`).
    """
    net = meta_model(replace(cfg, aux_head=False), num_classes).eval()
    costs = {name: Cost() for name in COMPONENTS}
    for name, parameter in net.named_parameters():
        costs[_component(name, calls=1)].parameters += parameter.numel()

    counter = flop_counter()
    calls: dict[str, int] = defaultdict(int)
    before: dict[str, int] = {}

    def enter(name: str) -> Any:
        return lambda module, args: before.__setitem__(name, counter.get_total_flops())

    def leave(name: str) -> Any:
        def note(module: nn.Module, args: Any, out: Any) -> None:
            calls[name] += 1
            cost = costs[_component(name, calls[name])]
            # The counter has two operations for a multiply-add.
            done = (counter.get_total_flops() - before[name]) // 2
            cost.executed += done
            cost.once += done if calls[name] == 1 else 0

        return note

    # Of the context, the modules with weights, which feedback may use again; the other components as wholes.
    leaves = [(f"context.{n}", m) for n, m in net.context.named_modules() if list(m.parameters(recurse=False))]
    for name, module in [*leaves, *((n, m) for n, m in net.named_children() if n != "context")]:
        module.register_forward_pre_hook(enter(name))
        module.register_forward_hook(leave(name))
    with counter, torch.no_grad():
        net(torch.empty(1, 3, height, width, device="meta"))
    assert sum(cost.executed for cost in costs.values()) * 2 == counter.get_total_flops()
    return costs


def _component(name: str, calls: int) -> str:
    part, *rest = name.split(".")
    if part != "context":
        return part
    if rest[:1] == ["fuse"]:
        return "context, fuse"
    if rest[:1] in (["project"], ["project_norm"]):
        return "context, PartI" if rest[1] == "0" else "context, PartII"
    if rest[:1] == ["atrous_norm"]:
        return "context, PartI" if rest[1] == "0" else "context, PartII"
    # `reduce`, all of ASPP, and the atrous convolutions, whose later calls are feedback.
    return "context, PartI" if calls == 1 else "context, PartII"


def total(costs: dict[str, Cost]) -> Cost:
    """Add up the components."""
    return Cost(*(sum(getattr(cost, key) for cost in costs.values()) for key in ("parameters", "once", "executed")))


def training_memory(cfg: ModelConfig, height: int, width: int, num_classes: int = 19) -> dict[str, int]:
    """Count the bytes that a training step in float32 keeps for the backward pass, for one image, by component.

    A tensor that several operations keep counts once, parameters not at all. The deformable convolution is torchvision's, as on
    a GPU. Gradients, optimizer state, the loss and the operators' workspace come on top. What fuses the context features is
    PartI's here; PartII's is what the feedback adds.
    """
    net = meta_model(cfg, num_classes).train()
    own = {tensor.untyped_storage()._cdata for tensor in [*net.parameters(), *net.buffers()]}
    kept: dict[int, Tensor] = {}
    saved: dict[str, int] = defaultdict(int)
    part = ""

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in kept and storage._cdata not in own:
            kept[storage._cdata] = tensor  # Held, so that its number is not another's a moment later.
            saved[part] += storage.nbytes()
        return tensor

    def enter(name: str) -> Any:
        def set_part(module: nn.Module, args: Any) -> None:
            nonlocal part
            part = name

        return set_part

    for name, module in net.named_children():
        module.register_forward_pre_hook(enter(name))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Two images, since batch norm needs more than one value of a channel.
        net(torch.empty(2, 3, height, width, device="meta"))
    found = {name: size // 2 for name, size in saved.items()}
    context, feedback = found.pop("context"), 0
    if cfg.context == "cycleaspp" and cfg.feedback:
        feedback = context - training_memory(replace(cfg, feedback=0), height, width, num_classes)["context, PartI"]
    return found | {"context, PartI": context - feedback, "context, PartII": feedback}


def flop_counter() -> FlopCounterMode:
    """Return PyTorch's counter, which counts the deformable convolution too; a multiply-add is two operations."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deform_flops})


def meta_model(cfg: ModelConfig, num_classes: int) -> CycleNet:
    """Build a model without memory for its weights."""
    with torch.device("meta"):
        return build_model(replace(cfg, backbone_weights="none"), num_classes)


def _deform_flops(x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    # As a convolution of the same filter; the bilinear gathering is not a multiply-add of the filter.
    batch, _, height, width = out_shape
    out_channels, in_channels, *kernel = weight
    return 2 * batch * height * width * out_channels * in_channels * kernel[0] * kernel[1]
