"""Checkpoints: written whole or not at all, read without executing anything in them."""

import json
import os
import re
import shutil
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from cyclenet.config.identity import differences
from cyclenet.config.load import restore
from cyclenet.config.schema import TrainConfig
from cyclenet.files import atomic_write, parse_json
from cyclenet.training.task import SegmentationTask

Byte = Annotated[int, Ge(0), Le(255)]

Checkpoint = dict[str, Any]
"""What a checkpoint file holds; Lightning defines most of its keys."""


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
    """Give ``last.ckpt``, which is about to be replaced, its second name.

    At no moment is there neither.
    """
    if not last.exists():
        return
    with atomic_write(last.with_name("previous.ckpt")) as part:
        try:
            os.link(last, part)
        except OSError:  # The file system has no links.
            shutil.copyfile(last, part)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this project. Nothing in it is executed, and every byte is checked.

    Raises:
        ValueError: there is no such file, or it is damaged, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"There is no checkpoint {path}: give the .ckpt file in a run's checkpoints folder as "
            "ckpt_path."
        )
    try:
        with zipfile.ZipFile(path) as file:  # torch.load takes no notice of the checksums.
            damaged = file.testzip()
        if damaged:
            raise ValueError(damaged)
        checkpoint: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint["hyper_parameters"]["cfg"]["model"], dict):
            raise ValueError("no configuration")
        checkpoint["state_dict"].keys()
    except (OSError, MemoryError):  # They are of this moment, not of the file.
        raise
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{path} is not a whole checkpoint of this project ({kind}).") from error
    return checkpoint


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
            warnings.warn(f"{error} Going back to the one before.", stacklevel=1)
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
    if found and not cfg.force:
        raise ValueError(
            f"{path} was made with another {', '.join(found)}: give force=true to continue from it "
            "anyway."
        )


def stored_config(checkpoint: Checkpoint) -> TrainConfig:
    """Return the configuration that a checkpoint was trained with.

    Raises:
        ValueError: this version does not know it.
    """
    try:
        return restore(checkpoint["hyper_parameters"]["cfg"])
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The checkpoint was made by another version: {reason}.") from error
    except ValueError as error:
        raise ValueError(f"The checkpoint cannot be used: {error}") from error


def load_task(checkpoint: Checkpoint) -> SegmentationTask:
    """Rebuild the trained model from the checkpoint alone, in evaluation mode.

    Raises:
        ValueError: the weights do not fit this version of the model.
    """
    cfg = stored_config(checkpoint)
    cfg.model.backbone_weights = "none"  # They are in the checkpoint.
    classes, palette = stored_classes(checkpoint)
    weights = checkpoint["state_dict"]
    weights = rename_old_weights(weights) if is_old_layout(checkpoint) else weights

    def build() -> SegmentationTask:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return SegmentationTask(cfg, classes, palette)

    try:
        # First without memory: a configuration may ask for a network that no file of weights fits.
        with torch.device("meta"):
            wanted = {key: value.shape for key, value in build().state_dict().items()}
        if wanted != {key: value.shape for key, value in weights.items()}:
            raise RuntimeError("names or shapes differ")
        task = build()
        task.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            "The checkpoint's weights do not fit this version of the model; use the version it was "
            "made by."
        ) from error
    return task.eval()


def stored_classes(checkpoint: Checkpoint) -> tuple[list[str], list[list[int]]]:
    """Return the class names and the palette that a checkpoint was trained with.

    Raises:
        ValueError: they are none.
    """
    hyper = checkpoint["hyper_parameters"]
    try:
        stored = parse_json(_Classes, json.dumps(hyper))
        if not 2 <= len(stored.classes) <= 255 or len(stored.palette) != len(stored.classes):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise ValueError("The checkpoint names no classes with a colour each.") from error
    return stored.classes, [list(color) for color in stored.palette]


@dataclass
class _Classes:
    classes: list[str]
    palette: list[tuple[Byte, Byte, Byte]]


# How version 0.1 called the weights of context modules, and how they are called now.
OLD_NAMES = (
    (r"context\.reduce\.", r"context.reduce_conv."),
    (r"context\.fuse\.", r"context.fuse_conv."),
    (r"context\.project\.(\d+)\.(\d+)\.", r"context.layers.\2.project.\1."),
    (r"context\.atrous\.(\d+)\.", r"context.layers.\1.atrous."),
    (r"context\.(project|atrous)_norm\.(\d+)\.(\d+)\.", r"context.layers.\3.\1_norm.\2."),
    (r"context\.([012])\.", r"context.conv.\1."),
)


def is_old_layout(checkpoint: Checkpoint) -> bool:
    """Tell whether version 0.1 wrote a checkpoint whose weights have other names today."""
    if "layout" in checkpoint.get("run", {}):
        return False
    weights = checkpoint["state_dict"]
    return any(re.match(rf"net\.{old}", name) for name in weights for old, _ in OLD_NAMES)


def rename_old_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of a task of version 0.1 their present names; others stay as they are."""
    renamed = {}
    for name, value in weights.items():
        for old, new in OLD_NAMES:
            name = re.sub(rf"^net\.{old}", f"net.{new}", name)
        renamed[name] = value
    return renamed


def run_of(path: str | Path) -> Path:
    """Return the run folder of a checkpoint, or the folder it lies in."""
    path = Path(path).resolve()
    return path.parents[1] if path.parent.name == "checkpoints" else path.parent
