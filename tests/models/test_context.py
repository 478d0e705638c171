import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import tiny_cycleaspp, tiny_model
from cyclenet.config.choices import CONTEXTS
from cyclenet.models.contexts.aspp import ASPP
from cyclenet.models.contexts.cycleaspp import CycleASPP
from cyclenet.models.layers import SumConv2d


def warmed(module: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(0.2 * torch.randn(norm.num_features, generator=generator))
            norm.running_var.copy_(0.5 + torch.rand(norm.num_features, generator=generator))
            norm.weight.data.copy_(0.5 + torch.rand(norm.num_features, generator=generator))
            norm.bias.data.copy_(0.2 * torch.randn(norm.num_features, generator=generator))
    return module.eval().double()


def layer(module: CycleASPP, j: int, k: int, x: torch.Tensor) -> torch.Tensor:
    """Layer j in pass k: a projection a part, a batch norm a pass, one atrous filter for all."""
    own = module.layers[j]
    rate = own.atrous.dilation
    x = F.conv2d(x, own.project[min(k, 1)].weight)
    x = F.relu(own.project_norm[k](x))
    x = F.conv2d(x, own.atrous.weight, padding=rate, dilation=rate)
    return F.relu(own.atrous_norm[k](x))


def fuse(module: CycleASPP, features: torch.Tensor) -> torch.Tensor:
    conv, norm, relu = module.fuse_conv
    return relu(norm(F.conv2d(features, conv.weight, padding=1)))


@pytest.mark.parametrize("feedback", [1, 2, 3])
def test_feedback_is_equation_3(feedback):
    module = warmed(tiny_cycleaspp(feedback, atrous_rates=[1, 2, 4]))
    x = torch.randn(2, 10, 9, 11, dtype=torch.float64)
    x0 = module.reduce(x)
    # Eq. 2 and 3 for J = 3, written out index by index.
    y1 = layer(module, 0, 0, x0)
    y2 = layer(module, 1, 0, torch.cat([y1, x0], 1))
    y3 = layer(module, 2, 0, torch.cat([y2, y1, x0], 1))
    expected = [[y1, y2, y3]]
    for k in range(1, feedback + 1):
        z1 = layer(module, 0, k, torch.cat([y3, y2], 1))
        z2 = layer(module, 1, k, torch.cat([y3, z1], 1))
        z3 = layer(module, 2, k, torch.cat([z2, z1], 1))
        y1, y2, y3 = z1, z2, z3
        expected.append([z1, z2, z3])
    for got, want in zip(module.passes(x0), expected, strict=True):
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    fused = fuse(module, torch.cat([x0, y1, y2, y3], 1))
    torch.testing.assert_close(module(x), fused, rtol=0, atol=1e-12)


class PlainDenseASPP(nn.Module):
    """DenseASPP as its own paper draws it: every layer sees all before it."""

    def __init__(self, source: CycleASPP):
        super().__init__()
        self.source = source

    def forward(self, x):
        s = self.source
        features = s.reduce(x)
        for own in s.layers:
            rate = own.atrous.dilation
            hidden = F.relu(own.project_norm[0](F.conv2d(features, own.project[0].weight)))
            hidden = F.conv2d(hidden, own.atrous.weight, padding=rate, dilation=rate)
            new = F.relu(own.atrous_norm[0](hidden))
            features = torch.cat([new, features], 1)
        growth, width = new.shape[1], s.reduce_conv[0].out_channels
        layers = features[:, :-width].split(growth, 1)
        return fuse(s, torch.cat([features[:, -width:], *reversed(layers)], 1))


@pytest.mark.parametrize("training", [False, True])
def test_without_feedback_it_is_denseaspp(training):
    cfg = tiny_model(feedback=0)
    torch.manual_seed(0)
    cycle = CONTEXTS[cfg.context].build(cfg, {}, 10)
    torch.manual_seed(0)
    dense = CONTEXTS["denseaspp"].build(tiny_model(context="denseaspp", feedback=5), {}, 10)
    assert cycle.state_dict().keys() == dense.state_dict().keys()
    x = torch.randn(2, 10, 9, 7, dtype=torch.float64)
    outputs = [
        module.train(training).double()(x) for module in (cycle, dense, PlainDenseASPP(dense))
    ]
    assert torch.equal(outputs[0], outputs[1])
    # A sum of convolutions replaces that of a concatenation: only the order of additions differs.
    torch.testing.assert_close(outputs[1], outputs[2], rtol=1e-13, atol=1e-13)


def test_shared_projections_are_two_uses_of_one_weight():
    """Unshared projections that are set to the shared ones give equal outputs; gradients add up."""
    torch.manual_seed(0)
    shared, own = (tiny_cycleaspp(share_projections=on).double() for on in (True, False))
    growth = 8
    state = shared.state_dict()
    for j in range(3):
        back = [state[f"layers.{j}.project.1.weight"]] if j < 2 else []
        forward = state[f"layers.{j}.project.0.weight"][:, : j * growth]
        state[f"layers.{j}.project.1.weight"] = torch.cat([*back, forward], 1)
    own.load_state_dict(state)
    # J (J - 1) / 2 pairs of g m weights are saved.
    saved = sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in shared.parameters())
    assert saved == 3 * growth * 12
    x = torch.randn(2, 10, 9, 7, dtype=torch.float64)
    outputs = [module(x) for module in (shared, own)]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.square().sum().backward()
    for j in (1, 2):
        first, second = (own.layers[j].project[k].weight.grad for k in (0, 1))
        total = first.clone()
        total[:, : j * growth] += second[:, -j * growth :]
        torch.testing.assert_close(shared.layers[j].project[0].weight.grad, total)


def test_parts_share_the_atrous_filters_and_nothing_else():
    one, two = (tiny_cycleaspp(k) for k in (1, 2))
    convolutions = [name for name, module in one.named_modules() if isinstance(module, nn.Conv2d)]
    assert sum(".atrous" in name for name in convolutions) == 3
    assert sum(".project." in name for name in convolutions) == 6
    # (J - 1) g: the input is not fed again.
    assert all(layer.project[1].in_channels == 2 * 8 for layer in one.layers)
    # A further pass costs batch norms only.
    extra = sum(p.numel() for p in two.parameters()) - sum(p.numel() for p in one.parameters())
    assert extra == 3 * 2 * (12 + 8)


def test_shared_norm_has_one_set():
    module = tiny_cycleaspp(2, share_norm=True)
    assert all(len(each.atrous_norm) == len(each.project_norm) == 1 for each in module.layers)
    # One set for projections of both parts, and it is used: gradients of all passes reach it.
    list(module.passes(torch.randn(2, 16, 5, 5)))[-1][0].sum().backward()
    assert module.layers[0].project_norm[0].weight.grad is not None


def test_receptive_field_reaches_the_sum_of_rates():
    module = tiny_cycleaspp(0, 4, atrous_rates=[1, 2, 4]).double().eval()
    x = torch.randn(1, 16, 25, 25, dtype=torch.float64, requires_grad=True)
    next(module.passes(x))[-1][0, :, 12, 12].sum().backward()
    reach = x.grad.abs().sum((0, 1)).nonzero()
    assert reach.min() == 12 - 7 and reach.max() == 12 + 7


def test_aspp_trains_on_one_image():
    module = ASPP(10, [1, 2], 16).train()
    assert module(torch.randn(1, 10, 5, 7)).shape == (1, 16, 5, 7)


@pytest.mark.parametrize("parts", [[5], [3, 1, 4]])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 2)])
def test_a_sum_of_convolutions_is_that_of_the_concatenation(parts, kernel, dilation):
    conv = SumConv2d(
        sum(parts), 6, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False
    ).double()
    sources = [torch.randn(2, c, 7, 5, dtype=torch.float64, requires_grad=True) for c in parts]
    plain = F.conv2d(torch.cat(sources, 1), conv.weight, None, 1, conv.padding, conv.dilation)
    direction = torch.randn_like(plain)
    torch.testing.assert_close(conv(sources), plain, rtol=1e-12, atol=1e-12)
    wanted = [conv.weight, *sources]
    for a, b in zip(
        *(torch.autograd.grad(out, wanted, direction) for out in (conv(sources), plain)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def saved_bytes(module: nn.Module, x: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Bytes that a forward pass keeps for the backward pass, parameters and the input apart."""
    own = {
        tensor.untyped_storage()._cdata for tensor in [x, *module.parameters(), *module.buffers()]
    }
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = module(x)
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own), out


@pytest.mark.parametrize("share_norm", [False, True])
@pytest.mark.parametrize("feedback", [0, 2])
def test_recomputing_changes_memory_and_nothing_else(feedback, share_norm):
    x = torch.randn(2, 10, 12, 12)
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = tiny_cycleaspp(feedback, share_norm=share_norm, recompute=recompute)
        leaf = x.clone().requires_grad_()
        for _ in range(2):
            size, out = saved_bytes(module, leaf)
            out.square().sum().backward()
        results.append(
            (size, [out, leaf.grad, *(p.grad for p in module.parameters()), *module.buffers()])
        )
    (plain, a), (less, b) = results
    assert all(torch.equal(one, two) for one, two in zip(a, b, strict=True))
    assert less < plain / 1.8
