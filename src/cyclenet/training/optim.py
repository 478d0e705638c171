"""The optimizer, its parameter groups and its schedule (section 4.1)."""

import math
import re
from typing import Any

import torch

from cyclenet.config.schema import OptimConfig


def schedule(step: int, steps: int, cfg: OptimConfig) -> float:
    """Return the factor of the learning rate at ``step`` of ``steps``.

    It is (1 - step / steps) ** power or half a cosine, after a linear warm-up and above a floor.
    """
    done = min(step / steps, 1.0)
    factor = (1 - done) ** cfg.poly_power
    if cfg.schedule == "cosine":
        factor = (1 + math.cos(math.pi * done)) / 2
    floor = cfg.min_lr / cfg.lr
    warmup = min((step + 1) / (cfg.warmup_steps + 1), 1.0)
    return float(warmup * (floor + (1 - floor) * factor))


def build_optimizer(net: torch.nn.Module, cfg: OptimConfig, fused: bool) -> torch.optim.Optimizer:
    """Return the optimizer that ``cfg.optimizer`` names."""
    groups = parameter_groups(net, cfg)
    if cfg.optimizer == "adamw":
        return torch.optim.AdamW(groups, cfg.lr, weight_decay=cfg.weight_decay, fused=fused)
    sgd = torch.optim.SGD(groups, cfg.lr, cfg.momentum, weight_decay=cfg.weight_decay, fused=fused)
    if cfg.momentum:
        # A first step that is left out (`found_inf`) would keep whatever is in new memory.
        for parameter in (each for group in groups for each in group["params"]):
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def block_of(name: str) -> str:
    """Return the block of a backbone's parameter: its path to the first numbers in it.

    ``backbone.body.layer4.1.conv2.weight`` is of ``layer4.1``, and
    ``backbone.body.stages_0.blocks.1.norm.bias`` of ``stages_0.blocks.1``. What comes before the
    stages of usual networks is one block, the stem; so is a downsampling between stages.
    """
    path = name.removeprefix("backbone.body.")
    stem = r"conv1|bn1|conv_stem|stem|features_(conv|norm)0"
    if re.match(rf"{stem}|(model\.)?(patch_embed|norm_pre|\w+_token|pos_)", path):
        return "stem"
    found = re.match(r"[^\d.][^.]*\.downsample|(?:([^\d.][^.]*\.)*?(\d+\.)+|[^.]+)", path)
    return found[0].rstrip(".") if found else path


def parameter_groups(net: torch.nn.Module, cfg: OptimConfig) -> list[dict[str, Any]]:
    """Split what is trained into backbone and head (x ``head_lr_scale``), and by weight decay.

    With ``layer_decay`` each block of the backbone has a rate of its own: that factor once for each
    block that comes after it, and once more for the head (BEiT, arXiv:2106.08254).
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    trained = [named for named in net.named_parameters() if named[1].requires_grad]
    body = [name for name, _ in trained if name.startswith("backbone.")]
    after = {block: n for n, block in enumerate(dict.fromkeys(map(block_of, reversed(body))), 1)}
    for name, parameter in trained:
        lr = cfg.lr * cfg.head_lr_scale
        if name.startswith("backbone."):
            lr = cfg.lr * cfg.layer_decay ** after[block_of(name)]
        decays = cfg.decay_norm_and_bias or parameter.ndim > 1
        groups.setdefault((lr, cfg.weight_decay if decays else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]
