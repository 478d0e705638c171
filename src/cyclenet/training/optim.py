"""The optimizer's parameter groups and the poly schedule (section 4.1)."""

from typing import Any

import torch

from cyclenet.config.schema import OptimConfig


def poly(step: int, steps: int, cfg: OptimConfig) -> float:
    """Return the factor of the learning rate at ``step`` of ``steps``.

    It is (1 - step / steps) ** power, after a linear warm-up and above a floor.
    """
    factor = max(1 - step / steps, 0.0) ** cfg.poly_power
    floor = cfg.min_lr / cfg.lr
    warmup = min((step + 1) / (cfg.warmup_steps + 1), 1.0)
    return float(warmup * (floor + (1 - floor) * factor))


def parameter_groups(net: torch.nn.Module, cfg: OptimConfig) -> list[dict[str, Any]]:
    """Split what is trained into backbone and head (x ``head_lr_scale``), and by weight decay."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    trained = [named for named in net.named_parameters() if named[1].requires_grad]
    for name, parameter in trained:
        lr = cfg.lr * (1.0 if name.startswith("backbone.") else cfg.head_lr_scale)
        decays = cfg.decay_norm_and_bias or parameter.ndim > 1
        groups.setdefault((lr, cfg.weight_decay if decays else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]
