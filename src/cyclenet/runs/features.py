"""Write the features of a frozen backbone that a run will read, once for all runs."""

import hashlib
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from cyclenet.config.model import ModelConfig
from cyclenet.config.schema import DatasetConfig, TrainConfig
from cyclenet.data.base import Source, check_sizes
from cyclenet.data.features import FeatureCache, features_folder
from cyclenet.data.views import View, Views, to_tensor
from cyclenet.devices import cores
from cyclenet.files import locked
from cyclenet.models.cyclenet import CycleNet
from cyclenet.models.decoders.base import IMAGE
from cyclenet.processes import map_in_threads
from cyclenet.scoring.inference import view_features
from cyclenet.seeding import spread

SIZES = 16  # Images whose sizes are looked at to tell how large the cache will be.

Todo = list[tuple[int, View]]


def open_features(net: CycleNet, cfg: TrainConfig, dataset: DatasetConfig) -> FeatureCache | None:
    """Open the cache of a network's features; None where the network or the data have none.

    Args:
        net: the network.
        cfg: what it is, or was, trained with.
        dataset: the data whose features are wanted.
    """
    kept = cfg.dataset.cache_features and dataset.cache_features
    if not (cfg.model.freeze_backbone and kept):
        return None
    # Where an evaluation has other data, the views are still those of the training.
    views = replace(cfg.dataset, cache_root=dataset.cache_root)
    folder = features_folder(views, cfg.model.backbone, digest_backbone(net, cfg.model))
    return FeatureCache(folder, Views(views, net.grid))


def digest_backbone(net: CycleNet, model: ModelConfig) -> str:
    """Hash all that a backbone's features depend on but the image: its weights and its grid."""
    with_image = IMAGE in net.decoder.reads
    dilations = (model.first_block_dilation, tuple(model.multi_grid))
    what = (model.backbone, dilations, tuple(net.grid), "four levels", with_image)
    found = hashlib.blake2b(repr(what).encode(), digest_size=8)
    tensors = {**net.backbone.state_dict(), "mean": net.mean, "std": net.std}
    for name, value in tensors.items():
        found.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def write_features(
    cache: FeatureCache, net: CycleNet, source: Source, views: list[View], device: torch.device
) -> None:
    """Write the features of a source's images that are missing in the cache.

    An interrupted writing is continued; another process that writes is waited for.

    Raises:
        ValueError: there is no room for them.
        DataError: an image cannot be read.
    """
    if not _missing(cache, source, views):
        return
    cache.folder.mkdir(parents=True, exist_ok=True)
    with locked(cache.folder.with_name(cache.folder.name + ".lock")):
        for left in cache.folder.glob(".tmp*.safetensors"):
            left.unlink()  # A killed process left it; this one has the lock.
        if todo := _missing(cache, source, views):
            _write(cache, net.to(device), source, todo, device)


def _missing(cache: FeatureCache, source: Source, views: list[View]) -> Todo:
    everything = [(index, view) for index in range(len(source)) for view in views]
    return [(n, view) for n, view in everything if not cache.path(source, n, view).is_file()]


def _write(
    cache: FeatureCache, net: CycleNet, source: Source, todo: Todo, device: torch.device
) -> None:
    size = _estimate(cache, net, source, todo, device)
    title = f"{cache.folder}: features of {len(todo)} views, {size / 1e9:.2f} GB, once"
    if size > (free := shutil.disk_usage(cache.folder).free):
        raise ValueError(
            f"{title}: {free / 1e9:.2f} GB are free there. Set dataset.cache_root to another "
            "disk, fewer dataset.views, or dataset.cache_features=false."
        )

    def write_one(one: tuple[int, View]) -> None:
        index, view = one
        pixels = source.image(index)
        check_sizes(source.name(index), pixels, source.mask(index))
        image = to_tensor(cache.views.pixels(pixels, view))
        levels = view_features(net, image[None].to(device))
        maps = [level[0].permute(1, 2, 0).to("cpu", torch.bfloat16) for level in levels]
        cache.write(cache.path(source, index, view), maps)

    # On a CPU, a thread for each core computes whole views: faster than sharing one view.
    workers = cores() if device.type == "cpu" else 1
    map_in_threads(write_one, todo, f"Writing {title}", workers, partial(torch.set_num_threads, 1))


def _estimate(
    cache: FeatureCache, net: CycleNet, source: Source, todo: Todo, device: torch.device
) -> float:
    """Return about how many bytes the features will take, from a few images' sizes."""
    pixels = []
    for index, view in (todo[n] for n in spread(len(todo), SIZES)):
        height, width = source.mask(index).shape
        pixels.append(np.prod(cache.views.padded((height, width), view)))
    side = 8 * net.grid.stride + int(net.grid.align_corners)
    height, width = (max(side, least) for least in net.least)  # It would be padded to that.
    probe = torch.zeros(1, 3, height, width, device=device)
    values = sum(level.numel() for level in view_features(net, probe))
    return float(2 * values / (height * width) * np.mean(pixels) * len(todo))
