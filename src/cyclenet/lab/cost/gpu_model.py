"""What a training run would cost on GPUs: counted work, assumed efficiencies, no measurement."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from cyclenet.config.model import ModelConfig
from cyclenet.lab.cost.count import flop_counter, meta_model, training_memory


@dataclass(frozen=True)
class Gpu:
    """An accelerator, and the share of its data sheet that a training is assumed to reach.

    Attributes:
        name: what the table calls it.
        flops: peak of bfloat16 matrix products, FLOP/s.
        bandwidth: bandwidth of its memory, bytes/s.
        link: all-reduce bandwidth between GPUs of a machine, bytes/s.
        flops_share: share that dilated convolutions reach (assumed).
        bandwidth_share: share that batch norm, ReLU and the like reach (assumed).
        latency: time of one small all-reduce, seconds (assumed).
    """

    name: str = "A100 80 GB (312 TFLOP/s bf16, 2.0 TB/s, NVLink)"
    flops: float = 312e12
    bandwidth: float = 2.0e12
    link: float = 200e9
    flops_share: float = 0.4
    bandwidth_share: float = 0.7
    latency: float = 30e-6


TOUCHES = 8
"""Times that a kept activation moves through memory: it is written, normalised in two passes,
rectified and convolved, and read again with its gradient."""


@dataclass(frozen=True)
class RunCost:
    """The model's answer for a number of GPUs.

    Attributes:
        gpus: number of GPUs.
        step: seconds of an optimizer step.
        hours: hours of the whole training, without evaluation.
        images: images a second, by all GPUs.
        memory: bytes on each GPU: weights, gradients, momentum, activations.
    """

    gpus: int
    step: float
    hours: float
    images: float
    memory: float


@dataclass(frozen=True)
class Work:
    """What is counted in a training: operations and bytes an image, parameters, batch norms."""

    flops: float
    kept: float
    parameters: int
    norms: int


def count_work(cfg: ModelConfig, size: int, num_classes: int) -> Work:
    """Count a training step's work for one image of ``size`` x ``size``, in bfloat16."""
    net = meta_model(cfg, num_classes, (size, size))
    calls = 0

    def note(*args: object) -> None:
        nonlocal calls
        calls += 1

    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_hook(note)
    counter = flop_counter()
    with counter, torch.no_grad():
        # There are two images, since batch norm needs more than one value of a channel.
        net.train()(torch.empty(2, 3, size, size, device="meta"))
    # The backward pass does twice the forward's work: gradients of inputs and of filters.
    flops = 3 * counter.get_total_flops() / 2
    # Activations are taken as bfloat16, although offsets and modulation are float32.
    kept = sum(training_memory(cfg, size, size, num_classes).values()) / 2
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Work(flops, kept, parameters, calls)


def model_run(
    work: Work, gpu: Gpu, gpus: int, images: int, epochs: int, batch_size: int
) -> RunCost:
    """Model a training run.

    A step is the time of the arithmetic plus that of the memory traffic (nothing overlaps), plus
    the communication that is not hidden: half of a ring all-reduce of the gradients, and two small
    all-reduces for each batch norm in each direction.
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
