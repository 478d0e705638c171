"""Benchmarks, each printed as a line and written to ``bench/results.json``: ``make bench [ROWS=name,name]``."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

# Memory of one prediction, in a process of its own: MiB above what it held before, and the seconds it took.
PREDICT = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import torch
from cyclenet.config import ModelConfig, ProtocolConfig
from cyclenet.inference import predict
from cyclenet.models.cyclenet import build_model
torch.manual_seed(0)
model, scales = json.loads(sys.argv[2]), json.loads(sys.argv[3])
net = build_model(ModelConfig(**model), 19).eval()
image = torch.randint(0, 256, (1, 3, 1024, 2048), dtype=torch.uint8)
before = int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 2**20
start = time.time()
predict(net.predict_logits, image, ProtocolConfig(scales=scales))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([peak - before, time.time() - start]))
"""


def eval_ms_memory(rounds: int, model: dict[str, Any]) -> dict[str, Any]:
    """Peak memory of `paper_ms` at 1024 x 2048 against that of its largest scale alone."""
    from cyclenet.config import load_protocol

    scales = list(load_protocol("paper_ms").scales)
    peaks: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        for who, chosen in (("ours", scales), ("peer", [max(scales)])):
            command = [sys.executable, "-c", PREDICT, str(HERE.parent / "src"), json.dumps(model), json.dumps(chosen)]
            peak, seconds = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"  scales {chosen}: {peak:.0f} MiB, {seconds:.0f} s", flush=True)
            peaks[who].append(peak)
    ours, peer = statistics.median(peaks["ours"]), statistics.median(peaks["peer"])
    ratios = [b / a for a, b in zip(*peaks.values(), strict=True)]
    return {
        "ours": round(ours),
        "peer": round(peer),
        "unit": "MiB",
        "ratio": round(peer / ours, 3),
        "target": 0.625,  # Under 1.6 times.
        "peer_name": f"scale {max(scales)} alone",
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }


MODELS = {
    "full": {"backbone_weights": "none"},
    "lite": {
        "backbone": "tf_efficientnet_lite0",
        "backbone_weights": "none",
        "output_stride": 16,
        "atrous_rates": [2, 3, 6, 9, 12],
        "reduce_channels": 128,
        "bottleneck_channels": 64,
        "growth_channels": 32,
        "head_channels": 64,
    },
}


def exactness(steps: int = 40, save_every: int = 20) -> dict[str, Any]:
    """Seconds of a training step with all that makes a run exact and safe to stop, and without what that costs.

    One real training is timed, and in it each part: the seeds of a step, the check of the loss, the rows and progress that are
    written, the keyed sampler (against PyTorch's own) and the atomic save with fsync (against Lightning's own). To these comes
    the processor time of the launcher's loop while a job runs.
    """
    import lightning as L
    from lightning.pytorch.plugins.io import TorchCheckpointIO
    from torch.utils.data import BatchSampler, RandomSampler

    from cyclenet import callbacks
    from cyclenet.checkpoint import AtomicCheckpointIO
    from cyclenet.config import DatasetConfig, LoggerConfig, ModelConfig, TrainConfig, TrainerConfig
    from cyclenet.data.datamodule import SegmentationData
    from cyclenet.data.loader import KeyedBatchSampler
    from cyclenet.engine import build_trainer, quiet
    from cyclenet.task import SegmentationTask
    from hydra_plugins.process_launcher import Job, run_all

    quiet()
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

    def save_both(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        start = time.perf_counter()
        save(self, checkpoint, path)
        middle = time.perf_counter()
        TorchCheckpointIO().save_checkpoint(checkpoint, f"{path}.stock")
        spent.setdefault("atomic save", []).append(middle - start)
        stock.append(time.perf_counter() - middle)

    AtomicCheckpointIO.save_checkpoint = save_both  # type: ignore[method-assign]
    hooks = ("on_train_batch_start", "on_train_batch_end", "on_before_backward")
    parts = {"seeds": callbacks.SeedPerStep, "loss check": callbacks.StopAtNonFinite, "progress": callbacks.ProgressFile}
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
                accelerator="cpu", num_workers=0, max_epochs=1, checkpoint_every_steps=save_every, progress_bar=False
            ),
            logger=LoggerConfig(wandb="disabled"),
        )
        trainer = build_trainer(cfg, folder, 0)
        trainer.callbacks.insert(0, Clock())  # Its clock runs from before all other hooks to before all other ends.
        data = SegmentationData(cfg.dataset, 0)
        data.setup("fit")
        trainer.fit(SegmentationTask(cfg, data.train_source.classes, data.train_source.palette.tolist()), data)

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
        print(f"  {key}: {1e6 * value:.0f} us a step of {step:.3f} s, {100 * value / step:.3f} %", flush=True)
    print(f"  a save: {statistics.median(spent['atomic save']):.3f} s, Lightning's own {statistics.median(stock):.3f} s")
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


ROWS = {
    "exactness": exactness,
    "eval_ms_memory": lambda: eval_ms_memory(1, MODELS["full"]),
    "eval_ms_memory_lite": lambda: eval_ms_memory(3, MODELS["lite"]),
}


def main() -> None:
    """Run the rows that were asked for, and keep the results of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="comma-separated; default: all")
    names = [name for name in parser.parse_args().rows.split(",") if name] or list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise SystemExit(f"error: there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}.")
    path = HERE / "results.json"
    results = {row["name"]: row for row in json.loads(path.read_text())} if path.is_file() else {}
    for name in names:
        print(name, flush=True)
        results[name] = {"name": name, **ROWS[name]()}
        path.write_text(json.dumps(list(results.values()), indent=1) + "\n")
    print(f"{'name':<22}{'ours':>10}{'peer':>10} {'unit':<6}{'peer / ours':>12}{'target':>8}  peer")
    for name in names:
        r = results[name]
        print(f"{name:<22}{r['ours']:>10}{r['peer']:>10} {r['unit']:<6}{r['ratio']:>12}{r['target']:>8}  {r['peer_name']}")


if __name__ == "__main__":
    main()
