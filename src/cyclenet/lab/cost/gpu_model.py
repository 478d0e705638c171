"""What a training run would cost on GPUs: a model made of counted work and assumed efficiencies, never a measurement."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from cyclenet.config import ModelConfig
from cyclenet.lab.cost.count import flop_counter, meta_model, training_memory


@dataclass(frozen=True)
class Gpu:
    """An accelerator, and what share of its data sheet a training of this kind is assumed to reach.

    Attributes:
        name: for the table.
        flops: peak of bfloat16 matrix products, FLOP/s.
        bandwidth: of its memory, bytes/s.
        link: all-reduce bandwidth between GPUs of a machine, bytes/s.
        flops_share: reached by dilated convolutions (assumed).
        bandwidth_share: reached by batch norm, ReLU and the like (assumed).
        latency: of one small all-reduce, seconds (assumed).
    """

    name: str = "A100 80 GB (312 TFLOP/s bf16, 2.0 TB/s, NVLink)"
    flops: float = 312e12
    bandwidth: float = 2.0e12
    link: float = 200e9
    flops_share: float = 0.4
    bandwidth_share: float = 0.7
    latency: float = 30e-6


TOUCHES = 8
"""Times that an activation which is kept for the backward pass moves through memory: written, normalised in two passes,
rectified and convolved; and read again with its gradient."""


@dataclass(frozen=True)
class RunCost:
    """The model's answer for a number of GPUs.

    Attributes:
        gpus: number of GPUs.
        step: seconds of an optimizer step.
        hours: of the whole training, evaluation apart.
        images: a second, of all GPUs.
        memory: bytes on each GPU: weights, gradients, momentum, activations.
    """

    gpus: int
    step: float
    hours: float
    images: float
    memory: float


@dataclass(frozen=True)
class Work:
    """What is counted of a training: operations and bytes an image, parameters, batch norms."""

    flops: float
    kept: float
    parameters: int
    norms: int


def count_work(cfg: ModelConfig, size: int, num_classes: int) -> Work:
    """Count a training step's work for one image of ``size`` x ``size``; activations in bfloat16."""
    net = meta_model(cfg, num_classes)
    calls = 0

    def note(*args: object) -> None:
        nonlocal calls
        calls += 1

    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_hook(note)
    counter = flop_counter()
    with counter, torch.no_grad():
        # Two images, since batch norm needs more than one value of a channel.
        net.train()(torch.empty(2, 3, size, size, device="meta"))
    # Forward once, and twice as much backward: the gradients of inputs and of filters.
    flops = 3 * counter.get_total_flops() / 2
    # Taken as bfloat16; offsets and modulation are float32.
    kept = sum(training_memory(cfg, size, size, num_classes).values()) / 2
    return Work(flops, kept, sum(p.numel() for p in net.parameters()), calls)


def run_cost(work: Work, gpu: Gpu, gpus: int, images: int, epochs: int, batch_size: int) -> RunCost:
    """Model a training run.

    A step is the time of the arithmetic plus that of the memory traffic (nothing overlaps), plus what is not hidden of
    communication: a ring all-reduce of the gradients, half of it, and two small ones for each batch norm, both ways.
    """
    share = math.ceil(batch_size / gpus)
    arithmetic = share * work.flops / (gpu.flops * gpu.flops_share)
    traffic = share * work.kept * TOUCHES / (gpu.bandwidth * gpu.bandwidth_share)
    communication = 0.0
    if gpus > 1:
        gradients = 4 * work.parameters * 2 * (gpus - 1) / gpus / gpu.link
        communication = gradients / 2 + work.norms * 4 * gpu.latency
    step = arithmetic + traffic + communication
    steps = epochs * (images // batch_size)
    memory = 3 * 4 * work.parameters + share * work.kept
    return RunCost(gpus, step, steps * step / 3600, batch_size / step, memory)
