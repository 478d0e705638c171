"""Two processes compute what one computes on the joined batch. They are started once, for all
tests.
"""

import copy

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from conftest import tiny_model
from cyclenet.config.commands import EvaluateConfig
from cyclenet.config.schema import DatasetConfig, LossConfig, TrainConfig
from cyclenet.data.open import open_split
from cyclenet.models.cyclenet import build_model
from cyclenet.models.layers import ChannelDropout
from cyclenet.models.resize import Grid
from cyclenet.runs.evaluate import count
from cyclenet.training.losses import SegmentationLoss, occurrence_loss
from cyclenet.training.sync_batchnorm import SyncBatchNorm
from cyclenet.training.task import SegmentationTask
from made import model_of

LOSSES = {
    "plain": LossConfig(),
    "ohem": LossConfig(ohem_threshold=0.2, ohem_min_kept=9),
    "weights": LossConfig(class_weights=[1.0, 0.5, 3.0, 2.0]),
}
SPLITS = {"equal": [(0, 3), (3, 6)], "unequal": [(0, 4), (4, 6)]}
VAL = DatasetConfig(scenes_val=3, scenes_size=[64, 96])


def example():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 5, dtype=torch.float64, generator=generator).requires_grad_()
    mask = torch.randint(0, 4, (2, 6, 5), generator=generator)
    mask[0, :5] = 255  # The two halves have 5 and 30 valid pixels.
    return logits, mask.byte()


def joined_loss(cfg, rows=slice(None)):
    logits, mask = example()
    share = logits.detach()[rows].requires_grad_()
    loss = SegmentationLoss(cfg, 4, Grid(1, False)).double()(share, mask[rows])
    loss.backward()
    return loss.item(), share.grad


def joined_occurrence(rows=slice(None)):
    codes = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4)[rows].requires_grad_()
    loss = occurrence_loss(codes, example()[1][rows])
    loss.backward()
    return loss.item(), codes.grad


def norms(kind):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.BatchNorm2d(5)
    ).double()
    if kind == "ours":
        return SyncBatchNorm(cuda=False).apply(net)
    if kind == "torch's":
        for i in (1, 4):
            net[i] = StockSyncBatchNorm.of(net[i])
    return net


def train_norms(kind, low=0, high=6, steps=5):
    """Some steps on a share of six images; outputs of the last step, input gradients, and all that
    was learnt.
    """
    net, generator = norms(kind), torch.Generator().manual_seed(1)
    parallel = (
        DistributedDataParallel(net, broadcast_buffers=False) if dist.is_initialized() else net
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    for _ in range(steps):
        image = 3 * torch.randn(6, 3, 9, 9, dtype=torch.float64, generator=generator) + 1
        target = torch.randn(6, 5, 5, 5, dtype=torch.float64, generator=generator)
        share = image[low:high].requires_grad_()
        out = parallel(share)
        optimizer.zero_grad()
        # DDP averages gradients over the processes.
        loss = (out * target[low:high]).sin().sum() / 6
        (loss * world_size).backward()
        optimizer.step()
    return out.detach(), share.grad / world_size, net.state_dict()


def norm_of_codes(low=0, high=6):
    """EncNet's batch norm, of (N, C, L): the output and the statistics."""
    norm: nn.Module = nn.Sequential(nn.BatchNorm1d(5)).double()
    if dist.is_initialized():
        norm = SyncBatchNorm(cuda=False).apply(norm)
    x = torch.randn(6, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return norm(x[low:high]), norm[0].running_var


def tiny_task():
    torch.manual_seed(0)
    source = open_split(VAL, "val")
    return SegmentationTask(
        TrainConfig(model=tiny_model(), dataset=VAL), source.classes, source.palette.tolist()
    )


def evaluate(rank=0, world_size=1):
    cfg = EvaluateConfig("", VAL)
    return count(model_of(tiny_task()), open_split(VAL, "val"), cfg, rank, world_size)


def train_tiny(rows=slice(None), dtype=torch.float64, lr=0.01):
    """Twenty steps on a share of four crops."""
    torch.manual_seed(0)
    net = build_model(tiny_model(dropout=0.3), 4).to(dtype).train()
    loss = SegmentationLoss(LossConfig(), 4, net.grid).to(dtype)
    parallel: nn.Module = net
    if dist.is_initialized():
        net = SyncBatchNorm(cuda=False).apply(net)
        parallel = DistributedDataParallel(net, broadcast_buffers=False)
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (4, 3, 64, 64), generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, 4, (4, 64, 64), generator=generator, dtype=torch.uint8)
    mask[0, 8:] = 255
    for step in range(20):
        torch.manual_seed(step)  # As SeedPerBatch.
        logits, extras = parallel(image[rows])
        optimizer.zero_grad()
        (loss(logits, mask[rows]) + 0.4 * loss(extras["aux"], mask[rows])).backward()
        optimizer.step()
    return net.state_dict()


class StockSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """PyTorch's own layer with its five GPU kernels written out for CPU; of another class, for DDP
    refuses that one.
    """

    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels
    _check_input_dim = nn.SyncBatchNorm._check_input_dim
    process_group = None
    forward = nn.SyncBatchNorm.forward

    @classmethod
    def of(cls, norm):
        layer = cls(norm.num_features, norm.eps, norm.momentum)
        layer.load_state_dict(norm.state_dict())
        return layer.to(norm.weight.dtype)


def register_kernels():
    def channels(x):
        return x.view(1, -1, 1, 1)

    def stats(x, eps):
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        return mean, (variance + eps).rsqrt()

    def gather(x, means, inverses, running_mean, running_var, momentum, eps, counts):
        total, counts = counts.sum(), counts[:, None]
        mean = (means * counts).sum(0) / total
        squares = ((inverses**-2 - eps + (means - mean) ** 2) * counts).sum(0)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(squares / (total - 1), momentum)
        return mean, (squares / total + eps).rsqrt()

    def apply(x, weight, bias, mean, inverse, eps):
        return (x - channels(mean)) * channels(inverse * weight) + channels(bias)

    def reduce(grad, x, mean, inverse, weight, input_g, weight_g, bias_g):
        total, moment = grad.sum((0, 2, 3)), (grad * (x - channels(mean))).sum((0, 2, 3))
        return total, moment, moment * inverse, total.clone()

    def backward(grad, x, mean, inverse, weight, total, moment, counts):
        n = counts.sum()
        centred = (x - channels(mean)) * channels(inverse**2 * moment / n)
        return (grad - channels(total / n) - centred) * channels(inverse * weight)

    library = torch.library.Library("aten", "IMPL")
    kernels = (stats, gather, apply, reduce, backward)
    names = ("stats", "gather_stats_with_counts", "elemt", "backward_reduce", "backward_elemt")
    for name, kernel in zip(names, kernels, strict=True):
        library.impl(f"batch_norm_{name}", kernel, "CPU")
    torch._C._get_privateuse1_backend_name = lambda: "cpu"
    return library


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    found = {
        "loss": {name: joined_loss(cfg, slice(rank, rank + 1)) for name, cfg in LOSSES.items()}
    }
    found["occurrence"] = joined_occurrence(slice(rank, rank + 1))
    torch.manual_seed(5)
    found["dropout"] = ChannelDropout(0.5)(torch.ones(2, 7, 3, 3))
    found["evaluation"] = evaluate(rank, 2)
    found["codes"] = norm_of_codes(*SPLITS["unequal"][rank])
    share = slice(2 * rank, 2 * rank + 2)
    found["float64"], found["float32"] = train_tiny(share), train_tiny(share, torch.float32, 1e-4)
    library = register_kernels()
    for split, bounds in SPLITS.items():
        for kind in ("ours", "torch's", "plain"):
            found[kind, split] = train_norms(kind, *bounds[rank])
    del library
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_joined_batchs(ranks, name):
    loss, grad = joined_loss(LOSSES[name])
    for rank, found in enumerate(ranks):
        value, share = found["loss"][name]
        assert abs(value - loss) < 1e-12  # On each process.
        torch.testing.assert_close(
            share[0] / 2, grad[rank], rtol=1e-12, atol=1e-12
        )  # DDP halves it.


def test_the_loss_of_occurrence_is_the_joined_batchs(ranks):
    loss, grad = joined_occurrence()
    for rank, found in enumerate(ranks):
        value, share = found["occurrence"]
        assert abs(value - loss) < 1e-12
        torch.testing.assert_close(share[0] / 2, grad[rank], rtol=1e-12, atol=1e-12)


def test_dropout_does_not_depend_on_the_number_of_processes(ranks):
    torch.manual_seed(5)
    whole = nn.Dropout2d(0.5)(torch.ones(4, 7, 3, 3))
    assert torch.equal(torch.cat([found["dropout"] for found in ranks]), whole)
    assert not torch.equal(ranks[0]["dropout"], ranks[1]["dropout"])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["ours", "torch's"])
def test_synchronised_batch_norm_is_batch_norm_of_the_joined_batch(ranks, kind, split):
    out, grad, learnt = train_norms("plain")
    outs, grads, states = zip(*(found[kind, split] for found in ranks), strict=True)
    torch.testing.assert_close(torch.cat(outs), out, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(grads), grad, rtol=0, atol=1e-12)
    for state in states:
        assert state.keys() == learnt.keys()
        for key in learnt:
            torch.testing.assert_close(state[key], learnt[key], rtol=0, atol=1e-12)


def test_a_batch_norm_of_codes_is_synchronised_too(ranks):
    out, variance = norm_of_codes()
    joined = torch.cat([found["codes"][0] for found in ranks])
    torch.testing.assert_close(joined, out, rtol=0, atol=1e-12)
    for found in ranks:
        torch.testing.assert_close(found["codes"][1], variance, rtol=0, atol=1e-12)


@pytest.mark.parametrize("split", SPLITS)
def test_plain_batch_norm_is_not(ranks, split):
    out, *_ = train_norms("plain")
    assert (torch.cat([found["plain", split][0] for found in ranks]) - out).abs().max() > 1e-2


def test_training_the_whole_model_is_the_same(ranks):
    """Batch norm, dropout, unequal shares of ignored pixels and the auxiliary loss together.

    In float32 a rounding error at a ReLU's bend is a difference in the gradient; hence the small
    learning rate.
    """
    for name, one, tolerance in (
        ("float64", train_tiny(), 1e-10),
        ("float32", train_tiny(dtype=torch.float32, lr=1e-4), 1e-5),
    ):
        for found in ranks:
            for key, value in one.items():
                bound = tolerance * max(1, value.abs().max().item())
                torch.testing.assert_close(found[name][key], value, rtol=0, atol=bound)


def test_evaluation_counts_every_image_once(ranks):
    """Three images of two processes; exact, for the counts are integers."""
    one = evaluate()
    for found in ranks:
        for key, value in one.items():
            assert np.array_equal(found["evaluation"][key], value), key


def test_conversion_keeps_timms_activations():
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=[1]).eval()
    image = torch.randn(1, 3, 64, 64)
    expected = net(image)[0]
    assert torch.equal(
        SyncBatchNorm(cuda=False).apply(copy.deepcopy(net)).eval()(image)[0], expected
    )
    for_gpus = SyncBatchNorm(cuda=True).apply(copy.deepcopy(net)).eval()
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in for_gpus.modules())
    torch.testing.assert_close(for_gpus(image)[0], expected)
    stock = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net)).eval()
    assert (stock(image)[0] - expected).abs().max() > 0.1  # Why not PyTorch's own.
