"""Atrous filters whose outer taps lie outside the map that they are trained on."""

from collections.abc import Sequence

from cyclenet.config.choices import CONTEXTS
from cyclenet.config.schema import TrainConfig

OUTER = 8  # Taps of a 3x3 filter beside its centre.


def untrained_taps(cfg: TrainConfig, image_sizes: Sequence[tuple[int, int]] = ()) -> str:
    """Say which taps of the atrous filters training never reaches; "" where it reaches all.

    Such a tap has no gradient and keeps its random value. Where the maps of an evaluation are
    larger, it reads features, and the score holds its noise.

    Args:
        cfg: a training's configuration.
        image_sizes: (height, width) of images that are evaluated whole or in windows.
    """
    choice = CONTEXTS[cfg.model.context]
    rates = [rate * 8 // cfg.model.output_stride for rate in choice.fixed.get("rates_at_8", ())]
    what, less = f"the rates of {choice.label}", ""
    if "atrous_rates" in choice.keys:
        rates = list(cfg.model.atrous_rates)
        what, less = "model.atrous_rates", ", or lower the rates"
    height, width = training_map(cfg)
    dead = {rate: OUTER - taps_inside(rate, height, width) for rate in rates}
    dead = {rate: taps for rate, taps in dead.items() if taps}
    if not dead:
        return ""
    told = ", ".join(f"{taps} of 9 at rate {rate}" for rate, taps in dead.items())
    text = (
        f"A training crop has {height} x {width} features, too few for {what}: taps "
        f"that are never inside, and keep their random values, are {told}."
    )
    maps = [_evaluated_map(cfg, size) for size in image_sizes]
    reached = [each for each in maps if any(taps_inside(r, *each) > OUTER - dead[r] for r in dead)]
    if reached:
        tall, wide = max(reached)
        text += (
            f" Evaluation has maps of {tall} x {wide}, where they read features: scores hold noise."
        )
    return f"{text} Enlarge dataset.crop_size{less}."


def training_map(cfg: TrainConfig) -> tuple[int, int]:
    """Return the (height, width) of a training crop in context features."""
    height, width = (_cells(cfg, side) for side in cfg.dataset.crop_size)
    return height, width


def taps_inside(rate: int, height: int, width: int) -> int:
    """Count the outer taps of a 3x3 filter that lie inside a map at one position at least."""
    down, across = rate < height, rate < width
    return 2 * down + 2 * across + 4 * (down and across)


def _cells(cfg: TrainConfig, side: int) -> int:
    extra = int(cfg.model.align_corners)
    return -(-(side - extra) // cfg.model.output_stride) + extra


def _evaluated_map(cfg: TrainConfig, size: tuple[int, int]) -> tuple[int, int]:
    largest = max(cfg.protocol.scales)
    sides = [round(side * largest) for side in size]
    if cfg.protocol.window:
        sides = [min(side, cfg.protocol.window) for side in sides]
    return _cells(cfg, sides[0]), _cells(cfg, sides[1])
