"""What a training step of each compared system takes beside CycleASPP's: time here, and memory.

Times are of `cyclenet_lite`'s backbone and widths on small crops, turn by turn. Memory is counted,
for ResNet-101 and the papers' widths at 512 x 512: what a float32 step keeps, and four bytes each
for a parameter, its gradient and its momentum.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIDE, BATCH, CLASSES = 256, 2, 19
OWN = ("baseline", "denseaspp", "cycleaspp", "cycleaspp_adc")
CARD = 8e9
"""Bytes of the card that the table asks about."""


def zoo(rounds: int = 5) -> dict[str, Any]:
    """Measure all arms, print a table, and return CycleASPP's time beside the median of the others.

    A system fits where two images do, which a batch norm of a single cell needs.
    """
    arms = [*OWN, *sorted(f"zoo/{path.stem}" for path in ROOT.glob("conf/arm/zoo/*.yaml"))]
    steps = {arm: _step(arm) for arm in arms}
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(rounds + 1):
        for arm, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:  # The first does not count.
                seconds[arm].append(time.perf_counter() - started)
    own = seconds["cycleaspp"]
    found = []
    print(f"{'arm':<22}{'step, s':>9}{'x CycleASPP':>13}{'GB an image':>13}{'GB fixed':>10}  8 GB")
    for arm in arms:
        kept, fixed = _memory(arm)
        most = int((CARD - fixed) // kept)
        ratio = statistics.median(b / a for a, b in zip(own, seconds[arm], strict=True))
        median = statistics.median(seconds[arm])
        fits = f"{most} images" if most > 1 else "one image" if most else "none"
        print(
            f"{arm:<22}{median:>9.3f}{ratio:>13.2f}{kept / 1e9:>13.2f}{fixed / 1e9:>10.2f}  {fits}"
        )
        found.append(
            {"arm": arm, "s": median, "ratio": ratio, "bytes_an_image": kept, "bytes_fixed": fixed}
        )
    others = [one["s"] for one in found if one["arm"].startswith("zoo/")]
    middle = statistics.median(own)
    return {
        "ours": round(middle, 4),
        "peer": round(statistics.median(others), 4),
        "unit": "s",
        "ratio": round(statistics.median(others) / middle, 3),
        "target": 0,
        "peer_name": "the median of the compared systems",
        "spread": [
            round(min(others) / statistics.median(own), 3),
            round(max(others) / statistics.median(own), 3),
        ],
        "arms": found,
    }


def _step(arm: str) -> Callable[[], None]:
    import torch

    from cyclenet.config.load import compose_config
    from cyclenet.models.cyclenet import build_model
    from cyclenet.models.resize import Grid
    from cyclenet.training.losses import SegmentationLoss

    overrides = [f"arm={arm}", "model.backbone_weights=none"]
    cfg = compose_config("train", [*overrides, f"dataset.crop_size=[{SIDE},{SIDE}]"])
    torch.manual_seed(0)
    net = build_model(cfg.model, CLASSES, (SIDE, SIDE)).train()
    loss = SegmentationLoss(cfg.loss, CLASSES, Grid(cfg.model.output_stride, False))
    image = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    mask = torch.randint(0, CLASSES, (BATCH, SIDE, SIDE), dtype=torch.uint8)

    def step() -> None:
        logits, extras = net(image)
        total = loss(logits, mask)
        for value in extras.values():
            total = total + (value.square().mean() if value.ndim == 2 else loss(value, mask))
        total.backward()
        net.zero_grad()

    return step


def _memory(arm: str) -> tuple[int, int]:
    """Return the bytes that a training step keeps for an image, and those that it always has."""
    from cyclenet.config.load import compose_config
    from cyclenet.lab.cost.count import meta_model, training_memory

    cfg = compose_config(
        "train", ["model=cyclenet", "dataset=ade20k", f"arm={arm}", "model.backbone_weights=none"]
    )
    kept = sum(training_memory(cfg.model, 512, 512, CLASSES).values())
    net = meta_model(cfg.model, CLASSES, (512, 512))
    return kept, 12 * sum(parameter.numel() for parameter in net.parameters())
