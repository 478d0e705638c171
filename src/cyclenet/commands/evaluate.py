"""Evaluate a checkpoint on its data set's validation split, or on another.

  python src/evaluate.py ckpt_path=FILE [protocol=NAME] [dataset.root=DIR]

The rule may also be given by its parts, for instance protocol.window=769 protocol.stride=513
protocol.scales=[0.75,1,1.25] protocol.flip=true. Another data set must have the same classes.
"""

from cyclenet.config.commands import EvaluateConfig


def run(cfg: EvaluateConfig) -> None:
    """Evaluate and print the scores."""
    from cyclenet.deploy.load import find
    from cyclenet.deploy.model import Model
    from cyclenet.devices import choose_device
    from cyclenet.runs.evaluate import evaluate
    from cyclenet.runs.open_model import open_model
    from cyclenet.scoring.results import boundary_line, score_table
    from cyclenet.training.checkpoint import run_of

    cfg.ckpt_path = str(find(cfg.ckpt_path))  # It may be a run folder.
    task = open_model(cfg.ckpt_path, cfg.precision)
    device = task.device if isinstance(task, Model) else choose_device(cfg.accelerator)
    result, output = evaluate(task, cfg, run_of(cfg.ckpt_path), device)
    print(score_table(result))
    print(boundary_line(result))
    print(
        f"{result.dataset} {result.split}, {result.images} images. Protocol: {result.protocol}, "
        f"{result.precision}. Written to {output}"
    )
