"""Evaluate a checkpoint on its data set's validation split, or on another.

  python src/evaluate.py ckpt_path=FILE [protocol=NAME] [dataset.root=DIR]

The rule may also be given by its parts, for instance protocol.window=769 protocol.stride=513
protocol.scales=[0.75,1,1.25] protocol.flip=true. Another data set must have the same classes.
"""

from cyclenet.config.commands import EvaluateConfig


def run(cfg: EvaluateConfig) -> None:
    """Evaluate and print the scores."""
    from cyclenet.deploy.load import find, load, run_of
    from cyclenet.runs.evaluate import evaluate
    from cyclenet.scoring.results import boundary_line, score_table

    cfg.ckpt_path = str(find(cfg.ckpt_path))  # It may be a run folder.
    model = load(cfg.ckpt_path, device=cfg.accelerator, precision=cfg.precision)
    result, output = evaluate(model, cfg, run_of(cfg.ckpt_path))
    print(score_table(result))
    if result.trained_on:
        print(
            f"Warning: the network was trained on {result.trained_on} of these {result.images} "
            "images, so the scores on them say nothing about others."
        )
    if result.trained_on is None:
        print(
            "Warning: the training split has other images now than in the training, so it is not "
            "known on which of these the network was trained."
        )
    print(boundary_line(result))
    print(
        f"{result.dataset} {result.split}, {result.images} images. Protocol: {result.protocol}, "
        f"{result.precision}. Written to {output}"
    )
