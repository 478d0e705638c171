"""Batch norm over all processes of a run, on GPUs and on CPU."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.plugins.layer_sync import LayerSync
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(LayerSync):
    """Lightning's plugin for synchronised batch norm, for every backbone and device.

    Lightning's own turns timm's batch norms with an activation (EfficientNets have them) into plain
    ones, which silently drops the activation; and PyTorch's synchronised layer refuses CPU tensors.

    Args:
        cuda: the model will run on GPUs. It is not there yet when Lightning calls `apply`.
    """

    def __init__(self, cuda: bool) -> None:
        self.cuda = cuda

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace all batch norms; parameters, buffers and their names stay."""
        return convert_sync_batchnorm(model) if self.cuda else _convert(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model as it is: in evaluation mode a synchronised layer is a plain one."""
        return model


def _convert(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _convert(child))
    return CpuSyncBatchNorm(module) if isinstance(module, _BatchNorm) else module


class CpuSyncBatchNorm(nn.Module):
    """What `torch.nn.SyncBatchNorm` does on GPUs, with any backend of torch.distributed.

    Args:
        norm: the layer to replace. Its parameters and buffers are taken over; timm's activation
            and dropout are kept.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        if norm.momentum is None or not norm.affine or not norm.track_running_stats:
            raise ValueError(
                "Synchronised batch norm on CPU needs momentum, affine parameters and running "
                "statistics."
            )
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W), or (N, C, L) as EncNet's codes are.

        Training takes the statistics of the joined batch, evaluation the running ones.
        """
        mean, var = self.running_mean, self.running_var
        if self.training:
            self.num_batches_tracked += 1
            images = x if x.ndim == 4 else x.unsqueeze(-1)
            options = (self.weight, self.bias, mean, var, self.momentum, self.eps)
            x = _Normalise.apply(images, *options).view_as(x)
        else:
            x = F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        return self.act(self.drop(x))


class _Normalise(torch.autograd.Function):
    """Batch norm of the joined batch, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        wide = x.to(weight.dtype)  # bfloat16 is widened too, as in PyTorch's kernels.
        total = torch.cat([wide.sum((0, 2, 3)), wide.new_tensor([x.numel() / x.shape[1]])])
        dist.all_reduce(total)
        count, mean = total[-1], total[:-1] / total[-1]
        # The centred values are squared in a second round: E[x^2] - E[x]^2 would cancel.
        squares = (wide - _channels(mean)).square().sum((0, 2, 3))
        dist.all_reduce(squares)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(squares / (count - 1), momentum)
        inverse = (squares / count + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse, count)
        normalised = (wide - _channels(mean)) * _channels(inverse * weight) + _channels(bias)
        return normalised.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        wide = grad.to(weight.dtype)
        normalised = (x.to(weight.dtype) - _channels(mean)) * _channels(inverse)
        grad_bias, grad_weight = wide.sum((0, 2, 3)), (wide * normalised).sum((0, 2, 3))
        total = torch.stack([grad_bias, grad_weight])
        dist.all_reduce(total)
        shift, slope = total / count
        centred = wide - _channels(shift) - normalised * _channels(slope)
        grad_x = _channels(inverse * weight) * centred
        # The parameters' gradients are this process's part; DDP joins them.
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None, None


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
