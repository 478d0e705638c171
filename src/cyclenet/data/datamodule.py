"""The LightningDataModule: from a DatasetConfig to loaders."""

import os

import lightning as L
from torch.utils.data import DataLoader

from cyclenet.config import DatasetConfig
from cyclenet.data.base import Source, build_source
from cyclenet.data.cache import cached
from cyclenet.data.images import DataError
from cyclenet.data.loader import Batch, KeyedBatchSampler, TrainDataset, TrainLoader, cores, eval_loader
from cyclenet.data.transforms import TrainTransform
from cyclenet.processes import loader_worker


class Limited(Source):
    """The first ``limit`` pairs of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.classes, self.palette = source.classes, source.palette

    def __len__(self) -> int:
        return min(self.limit, len(self.source))

    def name(self, index: int) -> str:
        return self.source.name(index)

    def image(self, index: int):
        return self.source.image(index)

    def mask(self, index: int):
        return self.source.mask(index)


class SegmentationData(L.LightningDataModule):
    """Training crops and whole validation images.

    Args:
        cfg: the data set.
        seed: of shuffling and augmentation.
        num_workers: loader processes of each device, -1 for as many as the cores allow, 4 at most.
        pin_memory: copy batches to page-locked memory (for a GPU).

    Raises:
        DataError: in `setup`, where data is missing or a split has fewer images than a batch.
    """

    def __init__(self, cfg: DatasetConfig, seed: int, num_workers: int = 0, pin_memory: bool = False) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.loader: TrainLoader | None = None
        self.position = {"epoch": 0, "seen": 0}
        self.prepared = False

    def prepare_data(self) -> None:
        """Write the cache of the training split (`cyclenet.data.cache`)."""
        if self.prepared:  # Lightning calls it again, for each of its loops.
            return
        self.prepared = True
        # Not of a whole split for a trial on a few images.
        if not self.cfg.train_limit or self.cfg.cache == "always":
            cached(build_source(self.cfg, self.cfg.train_split), self.cfg, self.cfg.train_split, build=True)

    def setup(self, stage: str | None = None) -> None:
        cfg = self.cfg
        if stage in (None, "fit"):
            train = cached(build_source(cfg, cfg.train_split), cfg, cfg.train_split)
            self.train_source = Limited(train, cfg.train_limit) if cfg.train_limit else train
            if len(self.train_source) < cfg.batch_size:
                count = f"{cfg.train_split} has {len(self.train_source)} images"
                raise DataError(f"dataset.batch_size is {cfg.batch_size}, but {count}: lower it.")
        val = build_source(cfg, cfg.val_split)
        self.val_source = Limited(val, cfg.val_limit) if cfg.val_limit else val

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in the training split, the same for any number of processes."""
        return len(self.train_source) // self.cfg.batch_size

    def _workers(self) -> int:
        if self.num_workers >= 0:
            return self.num_workers
        # The processes of this machine share its cores, unless each has been given some of its own (SLURM).
        sharing = self.trainer.num_devices if self.trainer and cores() == os.cpu_count() else 1
        return min(4, max(cores() // sharing, 1))

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> TrainLoader:
        rank, world_size = self._ranks()
        if self.cfg.batch_size % world_size:
            raise ValueError(f"dataset.batch_size ({self.cfg.batch_size}) must be divisible by the {world_size} processes.")
        sampler = KeyedBatchSampler(len(self.train_source), self.cfg.batch_size, self.seed, rank, world_size)
        dataset = TrainDataset(self.train_source, TrainTransform(self.cfg), self.seed)
        self.loader = TrainLoader(
            dataset,
            sampler,
            num_workers=self._workers(),
            pin_memory=self.pin_memory,
            persistent_workers=self._workers() > 0,
            worker_init_fn=loader_worker,
        )
        self.loader.epoch, self.loader.seen = self.position["epoch"], self.position["seen"]
        return self.loader

    def state_dict(self) -> dict[str, int]:
        """Return the position in the training data, for the checkpoint."""
        return {"epoch": self.loader.epoch, "seen": self.loader.seen} if self.loader else self.position

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.position = state_dict

    def val_dataloader(self) -> DataLoader[Batch]:
        workers = min(self._workers(), 1)
        return eval_loader(self.val_source, *self._ranks(), num_workers=workers, pin_memory=self.pin_memory)
