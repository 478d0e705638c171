"""How cost grows: time and peak memory against crop size, rates, feedback passes, windows and
images; ``growth.png``.
"""

import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
IN_PIXELS = ("pixels of a crop", "windows of an image", "images")


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Do a work once; return its result, the seconds it took, and the MiB that it added to this
    process at its peak.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    before, start = _status("VmRSS"), time.perf_counter()
    result = work()
    return result, time.perf_counter() - start, _status("VmHWM") - before


def measure(work: Callable[[], Any], rounds: int = 3) -> tuple[float, float]:
    """Return the median of the seconds, and the largest of the MiB, of some rounds after one that
    does not count.
    """
    work()
    _, seconds, peaks = zip(*(measured(work) for _ in range(rounds)), strict=True)
    return statistics.median(seconds), max(peaks)


def _status(key: str) -> float:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) / 1024


def growth() -> dict[str, Any]:
    """Measure all axes with `cyclenet_lite`, draw them, and return the steepest growth in pixels,
    as a power of them.
    """
    axes = {
        "pixels of a crop": [(side * side, _train(side)) for side in (128, 192, 256, 384, 512)],
        "windows of an image": [(count, _windows(count)) for count in (1, 2, 4, 8, 16)],
        "images": [(count, _images(count)) for count in (1, 2, 4, 8)],
        "rates (J)": [(j, _context(j, 1)) for j in (2, 3, 4, 5, 6)],
        "feedback passes (k)": [(k, _context(5, k)) for k in (0, 1, 2, 3)],
    }
    found = {name: [(x, *measure(work)) for x, work in points] for name, points in axes.items()}
    for name, points in found.items():
        for x, seconds, mib in points:
            print(f"  {name} {x}: {seconds:.3f} s, {mib:.0f} MiB", flush=True)
    _draw(found)
    powers = []
    for name in IN_PIXELS:
        x, seconds, mib = np.array(found[name]).T
        for values in (seconds, np.maximum(mib, 1)):
            powers.append(float(np.polyfit(np.log(x), np.log(values), 1)[0]))
    shown = ", ".join(f"{power:.2f}" for power in powers)
    print(f"  powers of time and memory in {', in '.join(IN_PIXELS)}: {shown}")
    return {
        "ours": round(max(powers), 2),
        "peer": 1.0,
        "unit": "power",
        "ratio": round(1 / max(powers), 3),
        "target": 0.9,
        "peer_name": "linear in pixels",
        "spread": [round(1 / max(powers), 3)] * 2,
    }


def _net(**changes: Any) -> Any:
    import torch
    from peaks import MODELS

    from cyclenet.config.model import ModelConfig
    from cyclenet.models.cyclenet import build_model

    torch.manual_seed(0)
    return build_model(ModelConfig(**(MODELS["lite"] | changes)), 19)


def _train(side: int) -> Callable[[], Any]:
    import torch

    from cyclenet.config.schema import LossConfig
    from cyclenet.training.losses import SegmentationLoss

    net = _net().train()
    criterion = SegmentationLoss(LossConfig(), 19, net.grid)
    image = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    mask = torch.randint(0, 19, (2, side, side), dtype=torch.uint8)

    def work() -> None:
        logits, extras = net(image)
        (criterion(logits, mask) + criterion(extras["aux"], mask)).backward()
        net.zero_grad()

    return work


def _windows(count: int) -> Callable[[], Any]:
    import torch

    from cyclenet.config.schema import ProtocolConfig
    from cyclenet.scoring.inference import predict

    net, image = _net().eval(), torch.randint(0, 256, (1, 3, 192, 192 * count), dtype=torch.uint8)
    protocol = ProtocolConfig(window=192, stride=192)
    return lambda: predict(lambda view: net(view)[0], image, protocol, net.grid)


def _images(count: int) -> Callable[[], Any]:
    import torch

    from cyclenet.config.schema import ProtocolConfig
    from cyclenet.scoring.inference import predict
    from cyclenet.scoring.metrics import ConfusionMatrix

    net, image = _net().eval(), torch.randint(0, 256, (1, 3, 256, 512), dtype=torch.uint8)
    mask, matrix = torch.zeros(1, 256, 512, dtype=torch.uint8), ConfusionMatrix(19)

    def work() -> None:
        for _ in range(count):
            labels = predict(lambda view: net(view)[0], image, ProtocolConfig(), net.grid)
            matrix.update(labels, mask)

    return work


def _context(rates: int, feedback: int) -> Callable[[], Any]:
    import torch

    from cyclenet.models.contexts.cycleaspp import CycleASPP

    widths = {
        "reduce_channels": 256,
        "bottleneck_channels": 128,
        "growth_channels": 64,
        "head_channels": 64,
    }
    torch.manual_seed(0)
    module = CycleASPP(256, [3, 6, 12, 18, 24, 30][:rates], feedback, **widths)
    module = module.to(memory_format=torch.channels_last).train()
    x = torch.randn(1, 256, 65, 65).contiguous(memory_format=torch.channels_last)
    return lambda: module(x).sum().backward()


def _draw(found: dict[str, list[tuple[float, float, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(found), figsize=(3.2 * len(found), 5.2), layout="constrained"
    )
    for column, (name, points) in enumerate(found.items()):
        x, *values = np.array(points).T
        for row, (label, y) in enumerate(zip(("seconds", "peak MiB"), values, strict=True)):
            axis = axes[row, column]
            axis.plot(x, y, "o-", color="#0072B2")
            if name in IN_PIXELS:
                axis.plot(x, y[0] * x / x[0], "--", color="#888888", label="linear")
                axis.legend(frameon=False, fontsize=8)
            axis.set(xlabel=name, ylabel=label if column == 0 else None, ylim=(0, None))
            axis.locator_params(axis="x", nbins=4)
            axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("cyclenet_lite and CycleASPP on CPU: time and memory that a work adds")
    figure.savefig(HERE / "growth.png", dpi=80)
    plt.close(figure)
