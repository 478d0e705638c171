"""Score a checkpoint as it is, and with the taps that training never reached set to 0.

  python bench/untrained_taps.py ckpt_path=runs/.../checkpoints/last.ckpt [KEY=VALUE of evaluate]

Filters whose rate exceeds the map of a training crop have taps without a gradient, which keep their
random values (`cyclenet.config.reach`). Maps that are larger let them read features: what they add
to a score is noise, and this command tells how much.
"""

import sys
from pathlib import Path

import torch

from cyclenet.commands.cli import store_checkpoint_defaults
from cyclenet.config.commands import EvaluateConfig
from cyclenet.config.load import compose_config
from cyclenet.config.reach import training_map, untrained_taps
from cyclenet.data.open import open_validation
from cyclenet.deploy.load import load
from cyclenet.deploy.model import Model
from cyclenet.runs.evaluate import count, summarise


def set_untrained_taps_to_zero(model: Model) -> int:
    """Set the taps of atrous filters to 0 that no position of the training map has inside.

    Returns:
        How many taps of 3x3 filters these are, each filter counted once.
    """
    height, width = training_map(model.cfg)
    found = 0
    for layer in model.net.context.modules():
        if not isinstance(layer, torch.nn.Conv2d) or layer.kernel_size != (3, 3):
            continue
        rate, weight = layer.dilation[0], layer.weight.data
        dead = torch.zeros(3, 3, dtype=torch.bool)
        dead[[0, 2]] |= rate >= height
        dead[:, [0, 2]] |= rate >= width
        weight[..., dead] = 0
        found += int(dead.sum())
    return found


def main() -> None:
    """Evaluate twice and print both scores."""
    words = sys.argv[1:]
    path = next((word.split("=", 1)[1] for word in words if word.startswith("ckpt_path=")), "")
    if not Path(path).is_file():
        sys.exit(__doc__)
    model = load(path)
    store_checkpoint_defaults(EvaluateConfig, words)
    cfg = compose_config("evaluate", [*words, "boundary=false"])
    source = open_validation(cfg.dataset, cfg.split)
    print(untrained_taps(model.cfg, [source.mask(0).shape]) or "Training reaches all taps.")
    for what in ("as trained", ""):
        if not what:
            what = f"{set_untrained_taps_to_zero(model)} taps set to 0"
        score = summarise(count(model, source, cfg), source.classes, cfg).mIoU
        print(f"{what}: {100 * score:.10f} % mIoU, {cfg.protocol.describe()}")


if __name__ == "__main__":
    main()
