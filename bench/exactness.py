"""What it costs that a run is exact and safe to stop, of a training step."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from peaks import MODELS


def exactness(steps: int = 40, save_every: int = 20) -> dict[str, Any]:
    """Seconds of a training step with all that makes a run exact and safe to stop, and without what
    that costs.

    One real training is timed, and in it each part: the seeds of a step, the check of the loss, the
    rows and progress that are written, the keyed sampler (against PyTorch's own) and the atomic
    save with fsync (against Lightning's own). To these comes the processor time of the launcher's
    loop while a job runs.
    """
    import lightning as L
    from lightning.pytorch.plugins.io import TorchCheckpointIO
    from torch.utils.data import BatchSampler, RandomSampler

    from cyclenet.config.model import ModelConfig
    from cyclenet.config.schema import DatasetConfig, LoggerConfig, TrainConfig, TrainerConfig
    from cyclenet.data.datamodule import SegmentationData
    from cyclenet.data.loader import KeyedBatchSampler
    from cyclenet.lab.sweeps.run_jobs import Job, run_all
    from cyclenet.training.callbacks import ProgressFile, SeedPerBatch
    from cyclenet.training.checkpoint import AtomicCheckpointIO
    from cyclenet.training.non_finite import StopAtNonFinite
    from cyclenet.training.task import SegmentationTask
    from cyclenet.training.trainer import build_trainer, silence_lightning

    silence_lightning()
    spent: dict[str, list[float]] = {}

    def timed(owner: Any, name: str, key: str) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent.setdefault(key, []).append(time.perf_counter() - start)

        setattr(owner, name, outer)

    stock: list[float] = []
    save = AtomicCheckpointIO.save_checkpoint

    def save_both(
        self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        start = time.perf_counter()
        save(self, checkpoint, path)
        middle = time.perf_counter()
        TorchCheckpointIO().save_checkpoint(checkpoint, f"{path}.stock")
        spent.setdefault("atomic save", []).append(middle - start)
        stock.append(time.perf_counter() - middle)

    AtomicCheckpointIO.save_checkpoint = save_both  # type: ignore[method-assign]
    hooks = ("on_train_batch_start", "on_train_batch_end", "on_before_backward")
    hooks += ("on_before_optimizer_step",)
    parts = {"seeds": SeedPerBatch, "loss check": StopAtNonFinite, "progress": ProgressFile}
    for key, callback in parts.items():
        for name in set(hooks) & set(vars(callback)):
            timed(callback, name, key)

    class Clock(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, *args: Any) -> None:
            spent.setdefault("step", []).append(time.perf_counter() - self.start)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg = TrainConfig(
            model=ModelConfig(**MODELS["lite"]),
            dataset=DatasetConfig(scenes_train=4 * steps, scenes_val=1, batch_size=4),
            trainer=TrainerConfig(
                accelerator="cpu",
                num_workers=0,
                max_epochs=1,
                checkpoint_every_steps=save_every,
                progress_bar=False,
            ),
            logger=LoggerConfig(wandb="disabled"),
        )
        trainer = build_trainer(cfg, folder, 0)
        trainer.callbacks.insert(
            0, Clock()
        )  # Its clock runs from before all other hooks to before all other ends.
        data = SegmentationData(cfg.dataset, 0)
        trainer.fit(
            SegmentationTask(cfg, data.train_source.classes, data.train_source.palette.tolist()),
            data,
        )

        def batches(sampler: Any) -> float:
            start = time.perf_counter()
            return len(list(sampler)) and (time.perf_counter() - start) / len(sampler)

        length = 2975  # Cityscapes.
        keyed = batches(KeyedBatchSampler(length, 8, 0, 0, 1))
        plain = batches(BatchSampler(RandomSampler(range(length)), 8, True))
        before = time.process_time()
        run_all([Job("sleep", ["sleep", "5"], folder / "job", cfg)], 1, [], 1)
        launcher = (time.process_time() - before) / 5

    step = statistics.median(spent["step"][2:])
    costs = {key: sum(spent[key]) / steps for key in parts}
    costs["sampler"] = keyed - plain
    costs[f"atomic save, every {save_every} steps"] = (
        statistics.median(spent["atomic save"]) - statistics.median(stock)
    ) / save_every
    costs["launcher"] = launcher * step
    for key, value in costs.items():
        print(
            f"  {key}: {1e6 * value:.0f} us a step of {step:.3f} s, {100 * value / step:.3f} %",
            flush=True,
        )
    ours, theirs = statistics.median(spent["atomic save"]), statistics.median(stock)
    print(f"  a save: {ours:.3f} s, Lightning's own {theirs:.3f} s")
    ratio = 1 - sum(costs.values()) / step
    return {
        "ours": round(step, 4),
        "peer": round(step * ratio, 4),
        "unit": "s",
        "ratio": round(ratio, 4),
        "target": 0.98,
        "peer_name": "the same without it",
        "spread": [round(ratio, 4), round(ratio, 4)],
    }
