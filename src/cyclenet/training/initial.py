"""Begin a training from a trained network, which may know other classes, or from the masks."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cyclenet.config.model import ModelConfig
from cyclenet.data.base import Source
from cyclenet.deploy.load import read_weights
from cyclenet.labels import IGNORE
from cyclenet.models.cyclenet import build_model
from cyclenet.models.stored import stored, stored_weights
from cyclenet.seeding import derive
from cyclenet.training.task import SegmentationTask

# What a classifier is fitted to: squares of labels, as many from each of these masks.
MASKS, SQUARES_A_MASK = 128, 16


def begin_from(task: SegmentationTask, source: str) -> str:
    """Copy all weights of a trained network that fit; return a sentence that says which.

    Weights of a class are copied to the class of the same name.

    Args:
        task: the training's, with weights of its own.
        source: a run folder, a checkpoint, an exported .safetensors, a shared folder, or
            ``user/name`` of the hub.

    Raises:
        ValueError: there is no such network, or its backbone is another.
    """
    path, checkpoint = read_weights(source, hub=True)
    cfg, classes, _ = stored(checkpoint)
    there = stored_weights(checkpoint)
    here = task.net.state_dict()
    for name in sorted({n for n in (*here, *there) if n.startswith("backbone.")}):
        if not (name in here and name in there and there[name].shape == here[name].shape):
            raise ValueError(
                f"init_from: {path} has the backbone {cfg.model.backbone}, and {name} does not fit "
                f"{task.cfg.model.backbone}: give model.backbone={cfg.model.backbone}."
            )
    pairs = [(classes.index(name), new) for new, name in enumerate(task.classes) if name in classes]
    by_class = class_axes(task.cfg.model, task.cfg.dataset.crop_size)
    left = []
    with torch.no_grad():
        for name, value in here.items():
            found, axis = there.get(name), by_class.get(name)
            if found is not None and axis is not None and task.classes != classes:
                if not _copy_classes(found, value, axis, len(classes), pairs):
                    left.append(name)
            elif found is not None and found.shape == value.shape:
                value.copy_(found)
            else:
                left.append(name)
    said = f"Began from {path}: {len(here) - len(left)} of {len(here)} tensors fit"
    if task.classes != classes:
        said += f", {len(pairs)} of {len(task.classes)} classes were known"
    if left:
        parts = sorted({".".join(name.split(".")[:2]) for name in left})
        said += f"; {len(left)} begin anew ({', '.join(parts[:8])}{', ...' if parts[8:] else ''})"
    return said + "."


def fit_to_masks(task: SegmentationTask, source: Source) -> str:
    """Fit the classifier of a decoder that wants it to squares of the training masks.

    Masks and squares are drawn by the training's seed.

    Returns:
        A sentence that says how well it reconstructs them; "" where nothing is fitted.
    """
    side = task.net.decoder.squares
    if not side:
        return ""
    random = np.random.default_rng(derive(task.cfg.seed, "squares"))
    found = []
    for index in random.permutation(len(source))[:MASKS]:
        mask = source.mask(int(index))
        missing = [(0, max(0, side - length)) for length in mask.shape]
        mask = np.pad(mask, missing, constant_values=IGNORE)
        for _ in range(SQUARES_A_MASK):
            row, column = (random.integers(length - side + 1) for length in mask.shape)
            found.append(mask[row : row + side, column : column + side])
    classifier: Any = task.net.classifier
    share = classifier.fit(torch.from_numpy(np.stack(found)))
    return (
        f"The classifier was fitted to {len(found)} squares of {side} x {side} labels, and "
        f"reconstructs {100 * share:.1f} % of their pixels."
    )


def class_axes(cfg: ModelConfig, crop_size: list[int]) -> dict[str, int]:
    """Return the tensors whose size follows the number of classes, and their axis of classes."""

    def shapes(num_classes: int) -> dict[str, torch.Size]:
        with torch.device("meta"):
            net = build_model(replace(cfg, backbone_weights="none"), num_classes, crop_size)
        return {name: value.shape for name, value in net.state_dict().items()}

    few, more = shapes(7), shapes(8)
    return {
        name: next(axis for axis in range(len(few[name])) if few[name][axis] != more[name][axis])
        for name in few
        if few[name] != more[name]
    }


def _copy_classes(
    found: Tensor, value: Tensor, axis: int, known: int, pairs: list[tuple[int, int]]
) -> bool:
    """Copy what belongs to classes of the same name; tell whether there was any."""
    there, here = list(found.shape), list(value.shape)
    if there[axis] != known or there[:axis] + there[axis + 1 :] != here[:axis] + here[axis + 1 :]:
        return False
    for old, new in pairs:
        value.select(axis, new).copy_(found.select(axis, old))
    return bool(pairs)
