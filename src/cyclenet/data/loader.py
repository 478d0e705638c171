"""Loaders whose every sample is a pure function of (seed, epoch, index).

Nothing depends on the worker, the process or the order in which samples are made, so a run can stop after any batch and go
on as if it had not.
"""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cyclenet.data.base import Source
from cyclenet.data.images import DataError
from cyclenet.data.transforms import TrainTransform
from cyclenet.processes import loader_worker

Batch = dict[str, Any]


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def derive(*key: int | str) -> int:
    """Hash a key to an integer in 0..2**32 - 1, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest(), "little")


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


def check_sizes(name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """Raise `DataError` where an image and its mask differ in size."""
    if image.shape[:2] != mask.shape:
        sizes = f"{image.shape[1]}x{image.shape[0]} and {mask.shape[1]}x{mask.shape[0]}"
        raise DataError(f"The image and the mask of {name} differ in size: {sizes} (width x height).")


def collate(samples: list[Batch]) -> Batch:
    """Stack to ``image`` (N, 3, H, W) uint8 in channels-last layout, ``mask`` (N, H, W) uint8 and ``name``."""
    image: Tensor = torch.from_numpy(np.stack([sample["image"] for sample in samples])).permute(0, 3, 1, 2)
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

    The data module saves its position. (Lightning would, if this had a ``state_dict``; but 2.6 drops the position of a
    checkpoint that was written at the end of an epoch, or where the loader was made to count the steps.)

    Attributes:
        epoch: number of the epoch that is being read.
        seen: batches of it that were handed out; the same for all processes.
    """

    batch_sampler: KeyedBatchSampler

    def __init__(self, dataset: TrainDataset, sampler: KeyedBatchSampler, **kwargs: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, collate_fn=collate, **kwargs)
        self.epoch = self.seen = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # Lightning stops at len(loader) and never exhausts an iterator, so an epoch ends where the next begins.
        if self.seen >= len(self):
            self.epoch, self.seen = self.epoch + 1, 0
        self.batch_sampler.start(self.epoch, self.seen)
        for batch in super().__iter__():
            self.seen += 1
            yield batch


def eval_loader(source: Source, rank: int, world_size: int, **kwargs: Any) -> DataLoader[Batch]:
    """Load image by image: process r takes every world_size-th, so that none is counted twice and none is dropped."""
    indices = range(rank, len(source), world_size)
    kwargs |= {"batch_size": 1, "sampler": indices, "collate_fn": collate, "worker_init_fn": loader_worker}
    return DataLoader(EvalDataset(source), **kwargs)
