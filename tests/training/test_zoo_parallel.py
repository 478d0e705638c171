"""Every compared system learns in two processes what it learns in one."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from conftest import ROOT
from cyclenet.config.schema import LossConfig
from cyclenet.training.losses import SegmentationLoss, occurrence_loss
from cyclenet.training.sync_batchnorm import SyncBatchNorm
from made import awake, small_arm

ARMS = sorted(f"zoo/{path.stem}" for path in ROOT.glob("conf/arm/zoo/*.yaml"))


def learn(arm, rows=slice(None)):
    """Three steps in float64, on a share of four crops; all that was learnt."""
    net = awake(small_arm(arm), 4).double().train()
    loss = SegmentationLoss(LossConfig(), 4, net.grid).double()
    weights = {"aux": 0.4, **net.context.extra_weights, **net.decoder.extra_weights}
    parallel: nn.Module = net
    if dist.is_initialized():
        net = SyncBatchNorm(cuda=False).apply(net)
        parallel = DistributedDataParallel(net, broadcast_buffers=False)
    optimizer = torch.optim.SGD(net.parameters(), 0.001, momentum=0.9)
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (4, 3, 64, 64), generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, 4, (4, 64, 64), generator=generator, dtype=torch.uint8)
    mask[0, 8:] = 255
    for step in range(3):
        torch.manual_seed(step)  # As SeedPerBatch.
        logits, extras = parallel(image[rows])
        total = loss(logits, mask[rows])
        for name, value in extras.items():
            criterion = occurrence_loss if value.ndim == 2 else loss
            total = total + weights[name] * criterion(value, mask[rows])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return net.state_dict()


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    share = slice(2 * rank, 2 * rank + 2)
    torch.save({arm: learn(arm, share) for arm in ARMS}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_learn_what_one_does(ranks, arm):
    for key, value in learn(arm).items():
        bound = 1e-9 * max(1, value.abs().max().item())
        for found in ranks:
            torch.testing.assert_close(found[arm][key], value, rtol=0, atol=bound, msg=f"{key}")
