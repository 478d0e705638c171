"""Loaders whose every sample is a pure function of (seed, epoch, index).

Nothing depends on the worker, the process or the order in which samples are made, so a run can stop
after any batch and continue as if it had not.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cyclenet.data.base import Source, check_sizes
from cyclenet.data.transforms import TrainTransform
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


class EvalDataset(Dataset[Batch]):
    """Samples as they are, at their own size."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Batch:
        image, mask = self.source.image(index), self.source.mask(index)
        check_sizes(self.source.name(index), image, mask)
        return {"image": image, "mask": mask, "name": self.source.name(index)}


def collate(samples: list[Batch]) -> Batch:
    """Stack samples.

    Returns:
        ``image`` (N, 3, H, W) uint8 in channels-last layout, ``mask`` (N, H, W) uint8, ``name``.
    """
    images = np.stack([sample["image"] for sample in samples])
    image: Tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    mask = torch.from_numpy(np.stack([sample["mask"] for sample in samples]))
    return {"image": image, "mask": mask, "name": [sample["name"] for sample in samples]}


class KeyedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Shuffle by (seed, epoch) and yield this process's slice of each batch as (epoch, index) keys.

    The last, incomplete batch of an epoch is dropped. Position is set with `start`.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.first = 0

    def start(self, epoch: int, first: int) -> None:
        """Let the next iteration begin at batch ``first`` of ``epoch``."""
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        return self.length // self.batch_size

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

    def __init__(self, dataset: TrainDataset, sampler: KeyedBatchSampler, **kwargs: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, collate_fn=collate, **kwargs)
        self.epoch = self.seen = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # Lightning stops at len(loader) and never exhausts an iterator, so an epoch ends where the
        # next begins.
        if self.seen >= len(self):
            self.epoch, self.seen = self.epoch + 1, 0
        self.batch_sampler.start(self.epoch, self.seen)
        for batch in super().__iter__():
            self.seen += 1
            yield batch


def eval_loader(source: Source, rank: int, world_size: int, **kwargs: Any) -> DataLoader[Batch]:
    """Load image by image: process r takes every world_size-th.

    No image is counted twice and none is dropped.
    """
    return DataLoader(
        EvalDataset(source),
        batch_size=1,
        sampler=range(rank, len(source), world_size),
        collate_fn=collate,
        worker_init_fn=start_loader_worker,
        **kwargs,
    )
