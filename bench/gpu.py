"""What a GPU must show, in one run of under eight minutes: ``make gpu-check``.

Every part has a time of its own and prints as it goes; what was measured until then is in
``bench/gpu.json`` and ``bench/gpu.md`` at every moment. ``SMALL=1`` runs all parts at toy size, on
the CPU where there is no GPU.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "bench")]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import torchvision.ops  # noqa: E402
from torch import Tensor, nn  # noqa: E402

SMALL = os.environ.get("SMALL") == "1"
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
FOLDER = Path(os.environ.get("OUT") or ROOT / "bench")
LEARN_SECONDS = 8 if SMALL else 150
CLASSES = 19


def seconds(work: Callable[[], Any], rounds: int = 5) -> float:
    """Return the median time of a work, after two that do not count."""
    times = []
    for turn in range(rounds + 2):
        started = _now()
        work()
        if turn > 1:
            times.append(_now() - started)
    return statistics.median(times)


def _now() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def peaks() -> dict[str, Any]:
    """Measure the card's own limits: bfloat16 matrix products, and copies."""
    side = 512 if SMALL else 8192
    a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(2**22 if SMALL else 2**30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return {
        "bf16_tflops": 2 * side**3 / seconds(lambda: a @ b) / 1e12,
        "copy_tb_s": 2 * len(source) / seconds(lambda: target.copy_(source)) / 1e12,
    }


def right() -> dict[str, Any]:
    """Run the tests that are marked gpu."""
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-m", "gpu", "tests"]
    command += ["-p", "no:cacheprovider", "-k", "loss or labels"] if SMALL else []
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=170)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {"result": (done.stdout.strip().splitlines() or ["nothing"])[-1], "failed": lines}


def adc() -> dict[str, Any]:
    """Race the operators of ADC on a crop of 769: forward and backward."""
    from cyclenet.models.deform import gather_conv, grid_sample_conv

    side, channels = (13, 16) if SMALL else (193, 256)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    x, offset = draw(2, channels, side, side), 2 * draw(2, 18, side, side)
    mask, weight = draw(2, 9, side, side).sigmoid(), 0.02 * draw(channels, channels, 3, 3)
    leaves = [tensor.requires_grad_() for tensor in (x, offset, mask, weight)]

    def gather(dtype: torch.dtype, call: Any = gather_conv) -> Callable[[], Tensor]:
        return lambda: call(x.to(dtype), offset, mask, weight.to(dtype), 1)

    compiled: Any = torch.compile(gather_conv)
    entries = {
        "torchvision, float32": lambda: torchvision.ops.deform_conv2d(
            x, offset, weight, padding=1, mask=mask
        ),
        "gather, float32": gather(torch.float32),
        "gather, bfloat16": gather(torch.bfloat16),
        "grid_sample, bfloat16": gather(torch.bfloat16, grid_sample_conv),
        "gather compiled, bfloat16": gather(torch.bfloat16, compiled),
    }
    if SMALL:
        del entries["gather compiled, bfloat16"]
    found: dict[str, Any] = {}
    torch.backends.cudnn.allow_tf32 = False  # It would give the gathered product fewer bits.
    wanted = entries["torchvision, float32"]().detach()
    for name, forward in entries.items():
        try:

            def work(forward: Callable[[], Tensor] = forward) -> None:
                out = forward()
                torch.autograd.grad(out, leaves, torch.ones_like(out))

            error = (forward().detach().float() - wanted).abs().max() / wanted.abs().max()
            found[name] = {"ms": 1000 * seconds(work), "error": float(error)}
        except Exception as problem:
            found[name] = {"problem": _short(problem)}
        print(f"  {name}: {found[name]}", flush=True)
    torch.backends.cudnn.allow_tf32 = True
    return found


def _model(**changes: Any) -> Any:
    from cyclenet.config.model import ModelConfig

    values: dict[str, Any] = {"backbone_weights": "none"}
    if SMALL:
        widths = ("reduce_channels", "bottleneck_channels", "growth_channels", "head_channels")
        values |= dict.fromkeys(widths, 16) | {"backbone": "resnet10t", "atrous_rates": [1, 2, 3]}
    return ModelConfig(**(values | changes))


def _training_step(net: nn.Module, size: int, batch: int, classes: int) -> Callable[[], None]:
    from cyclenet.config.schema import LossConfig, OptimConfig
    from cyclenet.training.losses import SegmentationLoss
    from cyclenet.training.optim import build_optimizer

    inner: Any = net
    optimizer = build_optimizer(net, OptimConfig(lr=1e-4), fused=True)
    criterion = SegmentationLoss(LossConfig(), classes, inner.grid)
    image = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=DEVICE)
    mask = torch.randint(0, classes, (batch, size, size), dtype=torch.uint8, device=DEVICE)

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=not SMALL):
            logits, extras = net(image)
            loss = criterion(logits, mask) + 0.4 * criterion(extras["aux"], mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _peer_step(kind: str, size: int, batch: int) -> Callable[[], None]:
    if kind == "torchvision":
        from torchvision.models.segmentation import deeplabv3_resnet101

        net = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=CLASSES)
    else:
        import segmentation_models_pytorch as smp

        options = {"encoder_weights": None, "encoder_output_stride": 8, "classes": CLASSES}
        net = smp.DeepLabV3Plus("resnet18" if SMALL else "resnet101", **options)
    net = net.to(DEVICE, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), 1e-4, 0.9, fused=True)
    side = size // 16 * 16  # smp wants multiples of its stride.
    image = torch.randn(batch, 3, side, side, device=DEVICE).to(memory_format=torch.channels_last)
    mask = torch.randint(0, CLASSES, (batch, side, side), device=DEVICE)

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=not SMALL):
            out = net(image)
            loss = F.cross_entropy(out["out"] if isinstance(out, dict) else out, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def steps() -> dict[str, Any]:
    """Time training steps: batches, layouts, compiled, recomputed; and two other libraries."""
    from cyclenet.lab.cost.gpu_model import count_work
    from cyclenet.models.cyclenet import build_model

    size = 65 if SMALL else 769
    small_crop = 64 if SMALL else 512
    peak = RESULTS.get("peaks", {}).get("bf16_tflops", float("nan"))
    cases: list[tuple[str, int, int, int, dict[str, Any]]] = [
        (f"batch {n}", size, n, CLASSES, {}) for n in ((2,) if SMALL else (1, 2, 4, 8))
    ]
    cases += [
        ("ADE20K's classes, batch 4", small_crop, 4, 150, {}),
        ("batch 4, contiguous", size, 4, CLASSES, {"layout": torch.contiguous_format}),
        ("batch 4, recompute", size, 4, CLASSES, {"recompute": True}),
        ("batch 4, compiled", size, 4, CLASSES, {"compiled": True}),
    ]
    found: dict[str, Any] = {}
    for name, side, batch, classes, options in cases[: 3 if SMALL else None]:
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            cfg = _model(recompute=options.get("recompute", False), align_corners=side % 2 == 1)
            net: Any = build_model(cfg, classes, (side, side)).to(DEVICE).train()
            net = net.to(memory_format=options.get("layout", torch.channels_last))
            if options.get("compiled"):
                net.compile()
            took = seconds(_training_step(net, side, batch, classes), rounds=2 if SMALL else 5)
            flops = batch * count_work(cfg, side, classes).flops
            memory = torch.cuda.max_memory_allocated() / 1e9 if CUDA else float("nan")
            found[name] = {
                "images_s": batch / took,
                "ms": 1000 * took,
                "gb": memory,
                "share_of_peak": flops / took / 1e12 / peak,
            }
        except Exception as problem:
            found[name] = {"problem": _short(problem)}
        print(f"  {name}: {found[name]}", flush=True)
    for kind in ("torchvision", "segmentation_models_pytorch"):
        name = f"{kind}'s DeepLabV3, batch 4"
        try:
            took = seconds(_peer_step(kind, size, 4), rounds=1 if SMALL else 5)
            found[name] = {"images_s": 4 / took, "ms": 1000 * took}
        except Exception as problem:
            found[name] = {"problem": _short(problem)}
        print(f"  {kind}: {found[name]}", flush=True)
    return found


def evaluation() -> dict[str, Any]:
    """Time an image of 1024 x 2048 by three protocols, in two precisions."""
    from cyclenet.config.restore import load_protocol
    from cyclenet.models.cyclenet import build_model
    from cyclenet.scoring.inference import computing, predict

    net = build_model(_model(align_corners=True), CLASSES).to(DEVICE).eval()
    height, width = (64, 128) if SMALL else (1024, 2048)
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, device=DEVICE)
    found = {}
    for name in ("whole", "sliding", "paper_ms"):
        for low in (True, False):

            def work(name: str = name, low: bool = low) -> None:
                with computing("bf16-mixed" if low else "32-true", torch.device(DEVICE)):
                    predict(lambda view: net(view)[0], image, load_protocol(name), net.grid)

            key = f"{name}, {'bfloat16' if low else 'float32'}"
            found[key] = {"s_an_image": seconds(work, rounds=2)}
            print(f"  {key}: {found[key]}", flush=True)
    return found


def loader() -> dict[str, Any]:
    """Time the windows of 769 that one loader process gives, from the cache."""
    import sides

    threads = torch.get_num_threads()
    work = sides.data(True, cache="always")
    work()
    milliseconds = statistics.median(work()["ms"] for _ in range(2 if SMALL else 5))
    torch.set_num_threads(threads)
    cores = len(os.sched_getaffinity(0))
    one = 1000 / milliseconds
    return {"windows_s_a_process": one, "windows_s_all_cores": one * cores, "cores": cores}


def _words(folder: Path) -> list[str]:
    words = ["dataset=scenes", "logger=csv", "trainer.devices=1", f"hydra.run.dir={folder}"]
    words += ["trainer.progress_bar=false", "model.backbone_weights=none", "trainer.max_epochs=200"]
    words += ["trainer.checkpoint_every_minutes=0.5", "trainer.val_every_epochs=2"]
    if SMALL:
        words += ["trainer=cpu", "model.backbone=resnet10t", "model.atrous_rates=[1,2,3]"]
        words += ["model.reduce_channels=16", "model.bottleneck_channels=12"]
        words += ["model.growth_channels=8", "model.head_channels=16", "dataset.crop_size=[64,64]"]
        words += ["dataset.scenes_train=8", "dataset.scenes_val=2", "dataset.scenes_size=[64,96]"]
        return [*words, "dataset.batch_size=2"]
    return [*words, "model=cyclenet", "dataset.batch_size=8", "dataset.scenes_train=800"]


def learn() -> dict[str, Any]:
    """Train the full model on drawn scenes for minutes, stop it, and let it continue."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        command = [sys.executable, str(ROOT / "src/train.py"), *_words(folder)]
        for part, limit in (("first", LEARN_SECONDS), ("resumed", LEARN_SECONDS / 3)):
            log = Path(place) / f"{part}.log"
            (folder / "progress.json").unlink(missing_ok=True)
            with log.open("w") as file:
                process = subprocess.Popen(command, stdout=file, stderr=file, cwd=place)
                began, reached = time.monotonic(), 0
                # Start-up does not count, so that a slow disk cuts nothing.
                while process.poll() is None and time.monotonic() - began < limit + 60:
                    if (folder / "progress.json").exists() and not reached:
                        reached, began = 1, time.monotonic() - 60
                    time.sleep(0.2)
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                finally:
                    process.kill()
            told = [
                line for line in log.read_text().splitlines() if "step" in line or "err" in line
            ]
            found[part] = {"said": told[-4:]}
        if (folder / "metrics.csv").is_file():
            found["curve"] = _curve((folder / "metrics.csv").read_text().splitlines())
    return found


def _curve(rows: list[str]) -> dict[str, list[list[float]]]:
    header = rows[0].split(",")
    curve: dict[str, list[list[float]]] = {}
    for name in ("train/loss", "val/mIoU"):
        if name not in header:
            continue
        step, place = header.index("step"), header.index(name)
        cells = [row.split(",") for row in rows[1:]]
        curve[name] = [[float(c[step]), float(c[place])] for c in cells if c[place]]
    return curve


def syncs() -> dict[str, Any]:
    """Count the host's waits for the GPU in a training's steps between logged ones."""
    from lightning import Callback

    from cyclenet.config.load import compose_config
    from cyclenet.runs.train import open_data
    from cyclenet.training.task import SegmentationTask
    from cyclenet.training.trainer import build_trainer, silence_lightning

    first, last = 3, 6 if SMALL else 9

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            if CUDA:
                torch.cuda.set_sync_debug_mode("warn" if first <= index < last else "default")

    silence_lightning()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        words = [word for word in _words(Path(place)) if not word.startswith("hydra")]
        words += [f"trainer.max_steps={last + 1}", "logger.every_n_steps=100"]
        words += ["dataset.scenes_train=40", "dataset.val_split=null"]
        words += ["dataset.scenes_size=[64,96]", "dataset.crop_size=[64,64]"]
        cfg = compose_config("train", words + ([] if SMALL else ["dataset.batch_size=2"]))
        trainer = build_trainer(cfg, Path(place), 0)
        trainer.callbacks.insert(0, Watch())
        data = open_data(cfg, trainer)
        source = data.train_source
        task = SegmentationTask(cfg, source.classes, source.palette.tolist())
        trainer.fit(task, data)
    if CUDA:
        torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in caught if "synchroniz" in str(one.message)]
    places = sorted({f"{Path(one.filename).name}:{one.lineno}" for one in waits})
    return {"waits_a_step": len(waits) / (last - first) if CUDA else None, "places": places}


def _short(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "peaks": peaks,
    "adc": adc,
    "steps": steps,
    "evaluation": evaluation,
    "loader": loader,
    "syncs": syncs,
    "learn": learn,
    "right": right,
}
RESULTS: dict[str, Any] = {}


def table(results: dict[str, Any]) -> str:
    """Write what was measured as Markdown."""
    lines = [
        f"Measured on {results['machine']}.",
        "",
        "| part | what | figures |",
        "| --- | --- | --- |",
    ]
    for part in PARTS:
        found = results.get(part, {})
        rows = found if all(isinstance(v, dict) for v in found.values()) else {"": found}
        for name, figures in rows.items():
            if part == "learn" and name == "curve":
                figures = {
                    key: f"{c[0][1]:.3g} to {c[-1][1]:.3g}" for key, c in figures.items() if c
                }
            shown = "; ".join(f"{key} {_figure(value)}" for key, value in figures.items())
            lines.append(f"| {part} | {name} | {shown} |")
    return "\n".join(lines) + "\n"


def _figure(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "/")


def main() -> None:
    """Run all parts, or those that are named; keep what each has found at once."""
    if not CUDA and not SMALL:
        print("There is no CUDA device, so nothing was measured. SMALL=1 tries the script out.")
        return
    card = (
        torch.cuda.get_device_name() if CUDA else "the CPU, at toy size: no figure means anything"
    )
    versions = f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}"
    RESULTS["machine"] = f"{card}; {versions}; Python {sys.version.split()[0]}"
    for name in sys.argv[1:] or PARTS:
        started = time.monotonic()
        print(f"{name}:", flush=True)
        try:
            RESULTS[name] = PARTS[name]()
        except Exception as problem:  # The other parts are run all the same.
            RESULTS[name] = {"problem": _short(problem)}
        print(f"{name}: {RESULTS[name]} ({time.monotonic() - started:.0f} s)", flush=True)
        (FOLDER / "gpu.json").write_text(json.dumps(RESULTS, indent=1) + "\n")
        (FOLDER / "gpu.md").write_text(table(RESULTS))


if __name__ == "__main__":
    main()
