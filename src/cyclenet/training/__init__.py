"""The training loop: task, losses, trainer, checkpoints, loggers."""
