"""Checkpoints of a training: written whole or not at all, and continued from."""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cyclenet.config.identity import PROCESSES, differences
from cyclenet.config.schema import TrainConfig
from cyclenet.devices import count_devices
from cyclenet.files import atomic_write
from cyclenet.models.stored import Checkpoint, is_old_layout, load_checkpoint, stored_config


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, flush to the disk, then rename: a kill leaves the old or the new.

    Lightning writes to $TMPDIR and moves, which copies where that is another file system. The
    ``last.ckpt`` before is kept as ``previous.ckpt``. Where the disk is full, the old file stays,
    training continues, and a warning says so.
    """

    def save_checkpoint(
        self, checkpoint: Checkpoint, path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            ValueError: its weights are not finite, so it would replace one that can be used.
        """
        target = Path(path)
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(
                    f"{name} is not finite at step {checkpoint['global_step']}: training has "
                    f"diverged, lower optim.lr. {target} is from before."
                )
        try:
            with atomic_write(target) as part:
                with part.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if target.name == "last.ckpt":
                    keep_previous(target)
            _flush_folder(target.parent)
        except (OSError, RuntimeError) as error:
            # torch's writer hides the system's error: it says that the position in the file is not
            # the expected one.
            if not isinstance(error, OSError) and "inline_container" not in str(error):
                raise
            reason = (isinstance(error, OSError) and error.strerror) or "is the disk full?"
            warnings.warn(
                f"{target} could not be written ({reason}). Training continues; the one before "
                "stays.",
                stacklevel=1,
            )


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_previous(last: Path) -> None:
    """Keep ``last.ckpt`` as ``previous.ckpt`` before it is replaced: one of them always exists."""
    if not last.exists():
        return
    with atomic_write(last.with_name("previous.ckpt")) as part:
        try:
            os.link(last, part)
        except OSError:  # The file system has no links.
            shutil.copyfile(last, part)


def load_newest(folder: Path) -> tuple[Path, Checkpoint] | None:
    """Read the last checkpoint of a checkpoints folder, or the one before where it is damaged.

    Returns:
        Its path and its content; None where the run has none.

    Raises:
        ValueError: all that there are are damaged.
    """
    paths = (folder / "last.ckpt", folder / "previous.ckpt")
    found = [path for path in paths if path.exists()]
    for path in found:
        try:
            return path, load_checkpoint(path)
        except ValueError as error:
            back = " Going back to the one before." if path != found[-1] else ""
            warnings.warn(f"{error}{back}", stacklevel=1)
    if found:
        raise ValueError(
            f"The checkpoints in {folder} are damaged: start afresh with resume=never."
        )
    return None


def check_resumable(checkpoint: Checkpoint, path: Path, cfg: TrainConfig) -> None:
    """Refuse to continue from a checkpoint that does not fit.

    Raises:
        ValueError: an earlier version wrote it, or something differs that changes the result; the
            message names what.
    """
    if is_old_layout(checkpoint):
        raise ValueError(
            f"{path} is from version 0.1, whose parameters have another order: its weights can be "
            "evaluated, but its training cannot be continued. Start afresh with resume=never."
        )
    found = differences(stored_config(checkpoint), cfg)
    processes = checkpoint.get("run", {}).get("processes")
    if processes is not None:  # It says more than the words, of which `auto` is one.
        words = tuple(f"trainer.{key} " for key in PROCESSES)
        found = [each for each in found if not each.startswith(words)]
        wanted = count_devices(cfg.trainer.accelerator, cfg.trainer.devices) * cfg.trainer.num_nodes
        if not cfg.trainer.sync_batchnorm and processes != wanted:
            found.append(f"number of processes ({processes} there, {wanted} here)")
    if found and not cfg.force:
        raise ValueError(
            f"{path} was made with another {', '.join(found)}: give force=true to continue from it "
            "anyway."
        )
