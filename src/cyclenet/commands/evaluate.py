"""Evaluate a checkpoint on its data set's validation split, or on another."""

from cyclenet.commands.cli import compose_config, parse_overrides, store_checkpoint_defaults, user_errors
from cyclenet.config import EvaluateConfig

USAGE = """
python src/evaluate.py ckpt_path=FILE [protocol=NAME] [dataset.root=DIR] [KEY=VALUE ...]

  ckpt_path      a run's checkpoints/last.ckpt or best.ckpt; the model needs nothing else
  protocol       whole, sliding, paper_ms, semseg_ss, mmseg_ms_flip (default: the one the run was validated by);
                 or its parts: protocol.window=769 protocol.stride=513 'protocol.scales=[0.75,1,1.25]' protocol.flip=true
  dataset        another data set with the same classes; dataset.root is where it lies (default: the run's)
  split          default: the data set's validation split
  boundary       boundary IoU and scores near edges too (default: true)
  precision      32-true (default), or bf16-mixed: faster, and said beside the scores
  accelerator    auto, cpu, gpu
  output         folder for scores.json, images.npz and pictures (default: one in evaluate/, in the run folder)
"""


def main() -> None:
    """Compose the configuration over the checkpoint's own, evaluate, and write the scores."""
    overrides = parse_overrides(USAGE)
    with user_errors():
        store_checkpoint_defaults(EvaluateConfig, overrides)
        run(compose_config("evaluate", EvaluateConfig, overrides))


def run(cfg: EvaluateConfig) -> None:
    """Evaluate and print the scores."""
    from cyclenet.plots.pictures import score_table
    from cyclenet.runs.evaluate import boundary_line, evaluate
    from cyclenet.training.checkpoint import load_checkpoint, load_task, run_of
    from cyclenet.training.trainer import choose_device

    device = choose_device(cfg.accelerator)
    task = load_task(load_checkpoint(cfg.ckpt_path))
    result, output = evaluate(task, cfg, run_of(cfg.ckpt_path), device)
    print(score_table(result))
    print(boundary_line(result) or "boundary scores left out")
    print(
        f"{cfg.dataset.name} {result['split']}, {result['images']} images. Protocol: {result['protocol']}, "
        f"{result['precision']}. Written to {output}"
    )


if __name__ == "__main__":
    main()
