"""Evaluate a checkpoint on its data set's validation split, or on another."""

import json
import sys
from pathlib import Path

import numpy as np

from cyclenet.cli import compose_config, parse_overrides, store_checkpoint_defaults, user_errors
from cyclenet.config import EvaluateConfig

USAGE = """
python src/evaluate.py ckpt_path=FILE [protocol=NAME] [dataset.root=DIR] [KEY=VALUE ...]

  ckpt_path      a run's checkpoints/last.ckpt or best.ckpt; the model needs nothing else
  protocol       whole, sliding, paper_ms, mmseg_ms_flip (default: the one the run was validated by);
                 or its parts: protocol.window=769 protocol.stride=513 'protocol.scales=[0.75,1,1.25]' protocol.flip=true
  dataset        another data set with the same classes; dataset.root is where it lies (default: the run's)
  split          default: the data set's validation split
  accelerator    auto, cpu, gpu
  output         folder for scores.json and confusion.png (default: one in evaluate/, in the run folder)
"""


def main() -> None:
    """Compose the configuration over the checkpoint's own, evaluate, and write the scores."""
    overrides = parse_overrides(USAGE)
    with user_errors():
        store_checkpoint_defaults(EvaluateConfig, overrides)
        cfg: EvaluateConfig = compose_config("evaluate", EvaluateConfig, overrides)
        evaluate(cfg)


def evaluate(cfg: EvaluateConfig) -> dict:
    """Return the scores of `cyclenet.metrics.scores` and what they were computed by; write them to ``cfg.output``."""
    import torch
    from rich.progress import track

    from cyclenet.checkpoint import load_checkpoint, load_task
    from cyclenet.data.datamodule import Limited
    from cyclenet.data.loader import derive, eval_loader
    from cyclenet.data.source import build_source
    from cyclenet.engine import choose_device
    from cyclenet.inference import predict
    from cyclenet.metrics import ConfusionMatrix, scores
    from cyclenet.pictures import confusion_picture, score_table

    device = choose_device(cfg.accelerator)
    task = load_task(load_checkpoint(cfg.ckpt_path)).to(device)
    split = cfg.split or cfg.dataset.val_split
    source = build_source(cfg.dataset, split)
    if cfg.dataset.val_limit:
        source = Limited(source, cfg.dataset.val_limit)
    if source.classes != task.classes:
        raise ValueError(f"{cfg.ckpt_path} was trained on other classes than {cfg.dataset.name} has; choose its own data set.")

    confusion = ConfusionMatrix(len(source.classes)).to(device)
    loader = eval_loader(source, 0, 1, num_workers=1)
    align_corners = task.cfg.model.align_corners
    for batch in track(loader, f"{cfg.dataset.name} {split}", disable=not sys.stderr.isatty()):
        probabilities = predict(task.net.predict_logits, batch["image"].to(device), cfg.protocol, align_corners)
        confusion.update(probabilities.max(1).indices, batch["mask"].to(device))

    counts = confusion.compute().cpu()
    protocol = cfg.protocol.describe()
    result = {
        "protocol": protocol,
        "dataset": cfg.dataset.name,
        "split": split,
        "images": len(source),
        "checkpoint": str(cfg.ckpt_path),
        "precision": str(torch.get_default_dtype()).removeprefix("torch."),
        **scores(counts, source.classes),
        "confusion": counts.tolist(),
    }
    if cfg.output:
        output = Path(cfg.output)
    else:
        checkpoint = Path(cfg.ckpt_path).resolve()
        run = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint.parent
        # One folder an evaluation: what else it depends on is in the number.
        number = derive(protocol, cfg.dataset.root or "", len(source))
        output = run / "evaluate" / f"{checkpoint.stem}-{cfg.dataset.name}-{split}-{cfg.protocol.name}-{number:08x}"
    output.mkdir(parents=True, exist_ok=True)
    title = f"{cfg.dataset.name} {split}: mIoU {100 * result['mIoU']:.2f} %, {protocol}"
    confusion_picture(output / "confusion.png", result, np.asarray(counts), title)
    (output / "scores.json").write_text(json.dumps(result, indent=1))
    print(score_table(result))
    print(f"{cfg.dataset.name} {split}, {len(source)} images. Protocol: {protocol}. Written to {output}")
    return result


if __name__ == "__main__":
    main()
