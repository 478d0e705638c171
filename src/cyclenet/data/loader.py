"""Loaders whose every sample is a pure function of (seed, epoch, index).

Nothing depends on the worker, the process or the order in which samples are made, so a run can stop
after any batch and continue as if it had not.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cyclenet.data.base import Source, check_sizes
from cyclenet.data.features import FeatureCache
from cyclenet.data.transforms import TrainTransform
from cyclenet.data.views import Views, to_tensor
from cyclenet.processes import start_loader_worker
from cyclenet.seeding import derive

Batch = dict[str, Any]


class TrainDataset(Dataset[Batch]):
    """Augmented samples, by (epoch, index)."""

    def __init__(self, source: Source, transform: TrainTransform, seed: int) -> None:
        self.source, self.transform, self.seed = source, transform, seed

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        image, mask = self.source.image(index), self.source.mask(index)
        check_sizes(self.source.name(index), image, mask)
        image, mask = self.transform(image, mask, derive(self.seed, "augment", epoch, index))
        return {"image": image, "mask": mask, "name": self.source.name(index)}


class ViewDataset(Dataset[Batch]):
    """Crops of views, by (epoch, index), for a frozen backbone.

    A sample has the crop's ``features`` where there is a cache. Else it has the pixels of the whole
    ``view`` and the ``place`` of the crop in its features.
    """

    def __init__(
        self, source: Source, views: Views, features: FeatureCache | None, seed: int
    ) -> None:
        self.source, self.views, self.features, self.seed = source, views, features, seed

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        mask, name = self.source.mask(index), self.source.name(index)
        size = (mask.shape[0], mask.shape[1])
        view, place = self.views.draw(size, derive(self.seed, "augment", epoch, index))
        sample = {"mask": self.views.crop_mask(mask, view, place), "name": name}
        if self.features:
            return sample | {"features": self.features.crop(self.source, index, size, view, place)}
        image = self.source.image(index)
        check_sizes(name, image, mask)
        return sample | {"view": to_tensor(self.views.pixels(image, view)), "place": tuple(place)}


class EvalDataset(Dataset[Batch]):
    """Samples as they are, at their own size, with the features of the image where there are."""

    def __init__(self, source: Source, features: FeatureCache | None = None) -> None:
        self.source, self.features = source, features

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Batch:
        image, mask = self.source.image(index), self.source.mask(index)
        check_sizes(self.source.name(index), image, mask)
        sample = {"image": image, "mask": mask, "name": self.source.name(index)}
        size = (mask.shape[0], mask.shape[1])
        found = self.features.whole(self.source, index, size) if self.features else None
        return sample | {"features": found} if found else sample


def collate(samples: list[Batch]) -> Batch:
    """Stack samples.

    Returns:
        ``mask`` (N, H, W) uint8, ``name``, and what the samples have of: ``image`` (N, 3, H, W)
        uint8; ``features``, of each level (N, C, h, w) bfloat16; ``view`` and ``place``, lists.
        Layouts are channels-last.
    """
    batch: Batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    batch["mask"] = torch.from_numpy(np.stack(batch["mask"]))
    if "image" in batch:
        batch["image"] = torch.from_numpy(np.stack(batch["image"])).permute(0, 3, 1, 2)
    if "features" in batch:
        levels = zip(*batch["features"], strict=True)
        batch["features"] = [torch.stack(level).permute(0, 3, 1, 2) for level in levels]
    return batch


def pick(batch: Batch, number: int) -> Batch:
    """Return a batch of one of the samples of a batch."""
    one = slice(number, number + 1)
    return {
        key: [level[one] for level in value] if key == "features" else value[one]
        for key, value in batch.items()
    }


class KeyedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Shuffle by (seed, epoch) and yield this process's slice of each batch as (epoch, index) keys.

    The last, incomplete batch of an epoch is dropped. Position is set with `start`.

    Args:
        length: images.
        batch_size: of all processes.
        seed: seed of the order.
        rank: number of this process.
        world_size: number of processes.
        limit: batches of an epoch; 0 for all.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, rank: int, world_size: int, limit: int = 0
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.batches = min(length // batch_size, limit or length)
        self.rank, self.world_size = rank, world_size
        self.epoch = self.first = 0

    def start(self, epoch: int, first: int) -> None:
        """Let the next iteration begin at batch ``first`` of ``epoch``."""
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(derive(self.seed, "shuffle", self.epoch))
        order = torch.randperm(self.length, generator=generator).tolist()
        share = self.batch_size // self.world_size
        for batch in range(self.first, len(self)):
            low = batch * self.batch_size + self.rank * share
            yield [(self.epoch, index) for index in order[low : low + share]]


class TrainLoader(DataLoader[Batch]):
    """A loader that can be set back to any batch.

    The data module saves its position. Lightning would save it if this class had a ``state_dict``,
    but Lightning 2.6 drops the position of a checkpoint that was written at the end of an epoch, or
    where the loader was made to count the steps.

    Attributes:
        epoch: number of the epoch that is being read.
        seen: batches of it that were handed out; the same for all processes.
    """

    batch_sampler: KeyedBatchSampler

    def __init__(self, dataset: Dataset[Batch], sampler: KeyedBatchSampler, **kwargs: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, collate_fn=collate, **kwargs)
        self.epoch = self.seen = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # Lightning stops at len(loader) and never exhausts an iterator, so the number of the epoch
        # is raised when the next one begins.
        if self.seen >= len(self):
            self.epoch, self.seen = self.epoch + 1, 0
        self.batch_sampler.start(self.epoch, self.seen)
        for batch in super().__iter__():
            self.seen += 1
            yield batch


def eval_loader(
    source: Source, rank: int, world_size: int, features: FeatureCache | None = None, **kwargs: Any
) -> DataLoader[Batch]:
    """Load image by image: process r takes every world_size-th.

    No image is counted twice and none is dropped.
    """
    return DataLoader(
        EvalDataset(source, features),
        batch_size=1,
        sampler=range(rank, len(source), world_size),
        collate_fn=collate,
        worker_init_fn=start_loader_worker,
        **kwargs,
    )
