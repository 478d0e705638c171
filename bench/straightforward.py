"""The paper's model as one would write it down first.

The benchmark compares with it, and our results must equal its. It has the same weights in PyTorch's
default layout, concatenations, torchvision's deformable convolution, and logits upsampled whole.
"""

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn

from cyclenet.models.contexts.cycleaspp import CycleASPP
from cyclenet.models.cyclenet import CycleNet
from cyclenet.models.decoders.adc import ADC


class Straightforward(nn.Module):
    """A `CycleNet` with CycleASPP and ADC; its modules are taken over. Images are (N, 3, H, W) in
    0..255.
    """

    def __init__(self, net: CycleNet) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.contiguous_format)

    def forward(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits at 1/4 of the image, and in training those of the auxiliary head."""
        net = self.net
        low, _, third, last = net.backbone((image.to(net.mean.dtype) - net.mean) / net.std)
        decoded = decode(net.decoder, context(net.context, last), low)
        return net.classifier(decoded), {"aux": self.auxiliary(third)} if net.training else {}

    def auxiliary(self, x: Tensor) -> Tensor:
        return self.net.aux(x)


def context(module: CycleASPP, x: Tensor) -> Tensor:
    """CycleASPP (eq. 2-3) by concatenations."""
    x0 = module.reduce(x)
    y: list[Tensor] = []

    def layer(j: int, k: int, sources: list[Tensor]) -> Tensor:
        own = module.layers[j]
        hidden = F.conv2d(torch.cat(sources, 1), own.project[min(k, 1)].weight)
        hidden = F.relu(own.project_norm[k](hidden))
        return F.relu(own.atrous_norm[k](own.atrous(hidden)))

    for j in range(len(module.layers)):
        y.append(layer(j, 0, [*reversed(y), x0]))
    for k in range(1, module.feedback + 1):
        for j in range(len(y)):
            y[j] = layer(j, k, [y[i] for i in reversed(range(len(y))) if i != j])
    return convolve(module.fuse_conv, torch.cat([x0, *y], 1))


def decode(module: ADC, high: Tensor, low: Tensor) -> Tensor:
    """ADC (eq. 4-5) with torchvision's operator, which has no bfloat16 on CPU."""
    high = F.interpolate(high, low.shape[-2:], mode="bilinear")
    first, last = module.offset_conv
    predicted = last(convolve(first, torch.cat([low, high], 1))).float()
    offset, mask = predicted[:, :18], module.mask_scale * predicted[:, 18:].sigmoid()
    with torch.autocast("cpu", enabled=False):
        aligned = torchvision.ops.deform_conv2d(
            high.float(), offset, module.weight, padding=1, mask=mask
        )
    first, last = module.fuse
    return last(convolve(first, torch.cat([low, module.norm(aligned)], 1)))


def convolve(block: nn.Sequential, x: Tensor) -> Tensor:
    """Apply a ConvNormReLU to a concatenation."""
    conv, norm, relu = block
    return relu(norm(F.conv2d(x, conv.weight, padding=conv.padding)))


def loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Upsample logits to the mask (N, H, W) and take the cross entropy."""
    upsampled = F.interpolate(logits.float(), mask.shape[-2:], mode="bilinear")
    return F.cross_entropy(upsampled, mask.long(), ignore_index=255)


def labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample logits to an image and take the arg-max."""
    return F.interpolate(logits.float(), size, mode="bilinear").argmax(1)
