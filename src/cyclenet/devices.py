"""The devices and cores that a command may use."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_devices(accelerator: str, devices: str) -> int:
    """Resolve ``trainer.devices`` of one machine: ``auto`` is all its GPUs, or one CPU."""
    if devices != "auto":
        return int(devices)
    if accelerator in ("cpu", "mps"):
        return 1
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 1


def choose_device(accelerator: str) -> "torch.device":
    """Resolve ``accelerator`` (auto, cpu, gpu) for the commands that use one device.

    Raises:
        ValueError: it is another word, or there is no such device.
    """
    import torch

    if accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"The device (accelerator) must be auto, cpu or gpu; got {accelerator!r}.")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("accelerator=gpu, but PyTorch sees no GPU here; use cpu or auto.")
    use_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")
