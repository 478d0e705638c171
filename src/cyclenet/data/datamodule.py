"""The LightningDataModule: from a DatasetConfig to loaders."""

import os
from functools import cached_property
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import Limited, Source
from cyclenet.data.cache import cached
from cyclenet.data.features import FeatureCache
from cyclenet.data.images import DataError
from cyclenet.data.loader import (
    Batch,
    KeyedBatchSampler,
    TrainDataset,
    TrainLoader,
    ViewDataset,
    eval_loader,
)
from cyclenet.data.meaning import (
    NAMES,
    check_meaning,
    describe_change,
    describe_meaning,
    digest_root,
)
from cyclenet.data.open import open_split, open_validation
from cyclenet.data.transforms import TrainTransform
from cyclenet.data.views import Views
from cyclenet.devices import cores
from cyclenet.environment import loader_problem
from cyclenet.processes import start_loader_worker


class SegmentationData(L.LightningDataModule):
    """Training crops and whole validation images; both splits are opened at once.

    Args:
        cfg: the data set.
        seed: seed of shuffling and augmentation.
        num_workers: loader processes of each device; -1 for as many as the cores allow, 4 at most.
        pin_memory: copy batches to page-locked memory (for a GPU).
        views: for a frozen backbone, the views whose windows the crops are; None for crops of
            images.
        limit: batches of an epoch; 0 for all.
        force: continue from a checkpoint also where images have other names now.

    Attributes:
        feature_cache: cached features of the views; None where the network computes them.
        val_feature_cache: cached features of the validation images; None where the network
            computes them.

    Raises:
        DataError: data is missing, or the training split has fewer images than a batch.
    """

    def __init__(
        self,
        cfg: DatasetConfig,
        seed: int,
        num_workers: int = 0,
        pin_memory: bool = False,
        views: Views | None = None,
        limit: int = 0,
        force: bool = False,
    ) -> None:
        super().__init__()
        self.views, self.limit, self.force = views, limit, force
        self.feature_cache: FeatureCache | None = None
        self.val_feature_cache: FeatureCache | None = None
        self.cfg, self.seed = cfg, seed
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.loader: TrainLoader | None = None
        self.position = {"epoch": 0, "seen": 0}
        self.train_source = self._open_training()
        if cfg.validation_split is None:
            self.val_source: Source = Limited(self.train_source, 0)
        else:
            self.val_source = open_validation(cfg)
        for source in (self.train_source, self.val_source):
            if len(source):
                check_meaning(source)

    def _open_training(self) -> Source:
        """Open the training split, and write the cache of its pixels where there is none."""
        cfg, split = self.cfg, self.cfg.training_split
        # A trial on a few images does not write the cache of a whole split.
        build = not cfg.train_limit or cfg.cache == "always"
        source = cached(open_split(cfg, split), cfg, split, build)
        if cfg.train_limit:
            source = Limited(source, cfg.train_limit)
        if len(source) < cfg.batch_size:
            raise DataError(
                f"dataset.batch_size is {cfg.batch_size}, but {split} has {len(source)} images: "
                "lower it."
            )
        return source

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch, the same for any number of processes."""
        whole = len(self.train_source) // self.cfg.batch_size
        return min(whole, self.limit or whole)

    def _workers(self) -> int:
        if self.num_workers >= 0:
            return self.num_workers
        # The processes of this machine share its cores, unless SLURM has given each its own.
        sharing = self._processes_here() if cores() == os.cpu_count() else 1
        return min(4, max(cores() // sharing, 1))

    def _processes_here(self) -> int:
        return self.trainer.num_devices if self.trainer else 1

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> TrainLoader:
        rank, world_size = self._ranks()
        size = self.cfg.batch_size
        if size % world_size:
            raise ValueError(
                f"dataset.batch_size ({size}) must be divisible by the {world_size} processes."
            )
        height, width = self.cfg.crop_size
        batch_bytes = size // world_size * height * width * 4
        if problem := loader_problem(self._workers() * self._processes_here(), batch_bytes):
            raise ValueError(problem)
        length = len(self.train_source)
        sampler = KeyedBatchSampler(length, size, self.seed, rank, world_size, self.limit)
        source, seed = self.train_source, self.seed
        dataset: Dataset[Batch]
        if self.views:
            dataset = ViewDataset(source, self.views, self.feature_cache, seed)
        else:
            dataset = TrainDataset(source, TrainTransform(self.cfg), seed)
        self.loader = TrainLoader(
            dataset,
            sampler,
            num_workers=self._workers(),
            pin_memory=self.pin_memory,
            persistent_workers=self._workers() > 0,
            worker_init_fn=start_loader_worker,
        )
        self.loader.epoch, self.loader.seen = self.position["epoch"], self.position["seen"]
        return self.loader

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the training data and what the data mean, for the checkpoint."""
        position = self.position
        if self.loader is not None:
            position = {"epoch": self.loader.epoch, "seen": self.loader.seen}
        return position | {"meaning": self.meaning, "root": self.root}

    @cached_property
    def meaning(self) -> dict[str, Any]:
        """What the images are, and what their ids mean."""
        return describe_meaning(self.train_source, self.val_source)

    @cached_property
    def root(self) -> int:
        """A digest of the folder of the data."""
        return digest_root(self.cfg)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a position.

        Raises:
            ValueError: the data mean something else than when the checkpoint was written.
        """
        self.position = {key: state_dict[key] for key in ("epoch", "seen")}
        self.check_same(state_dict)

    def check_same(self, state_dict: dict[str, Any]) -> None:
        """Raise `ValueError` where the data mean something else than in a checkpoint's state."""
        left_out = NAMES if self.force else {}
        now = {key: value for key, value in self.meaning.items() if key not in left_out}
        if change := describe_change(state_dict.get("meaning", {}), now):
            forced = ", or give force=true" if "other names" in change else ""
            raise ValueError(
                f"The data have changed since the checkpoint was written: {change}. Restore them, "
                f"or train anew in another hydra.run.dir{forced}."
            )

    def val_dataloader(self) -> DataLoader[Batch]:
        workers = min(self._workers(), 1)
        rank, world_size = self._ranks()
        if 0 < len(self.val_source) < world_size:
            raise ValueError(
                f"{world_size} processes cannot share {len(self.val_source)} validation images: "
                "use fewer devices, or more images."
            )
        return eval_loader(
            self.val_source,
            rank,
            world_size,
            self.val_feature_cache,
            num_workers=workers,
            pin_memory=self.pin_memory,
        )
