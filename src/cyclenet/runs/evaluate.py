"""Evaluate a trained model on a split, image by image.

Models can then be compared on the same images.
"""

import re
import sys
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from rich.progress import track

from cyclenet.config.choices import FOLDER_KEYS
from cyclenet.config.commands import EvaluateConfig
from cyclenet.config.restore import PLACES
from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import Limited, Source
from cyclenet.data.loader import eval_loader
from cyclenet.data.meaning import digest_names, digest_root
from cyclenet.data.open import check_classes, count_shared, open_split, open_validation
from cyclenet.deploy.model import Model
from cyclenet.environment import loader_problem
from cyclenet.files import atomic_write, read_json, safe_name, write_json
from cyclenet.models.cyclenet import CycleNet
from cyclenet.plots.charts import confusion_chart, trimap_chart
from cyclenet.runs.features import open_features
from cyclenet.runs.results import data_root, describe_move, read_result
from cyclenet.scoring.boundary import TRIMAP_WIDTHS, boundary_counts, trimap_counts
from cyclenet.scoring.metrics import ConfusionMatrix, scores, triples
from cyclenet.scoring.results import Counts, EvaluationResult, boundary_scores, trimap_scores
from cyclenet.seeding import derive

SCORES = "scores.json"
PICTURES = ("confusion.png", "trimap.png")


def evaluate(
    model: Model, cfg: EvaluateConfig, run: Path, rank: int = 0, world_size: int = 1
) -> tuple[EvaluationResult, Path]:
    """Evaluate a model and write the result.

    Args:
        model: the trained network of ``cfg.ckpt_path``, on the device where to predict.
        cfg: what to evaluate on, and how; the precision is the model's.
        run: the run folder, whose ``evaluate/`` receives the result unless ``cfg.output`` is set.
        rank: number of this process; the first writes.
        world_size: number of processes that share the images.

    Returns:
        What ``scores.json`` holds, and its folder.

    Raises:
        ValueError: the data set has other classes than the model, or ``cfg.output`` holds a file
            of the user's that would be replaced.
    """
    cfg = replace(cfg, precision=model.precision)
    source = open_validation(cfg.dataset, cfg.split)
    check_classes(source, model.classes, cfg.dataset.name, cfg.ckpt_path)
    moved = bool(describe_move(read_result(run).data_root, cfg.dataset))
    folder = Path(cfg.output or run / "evaluate" / _folder_name(cfg, len(source), moved))
    there = folder / SCORES
    # In the run's own folder a damaged file is replaced, as reports ask for; elsewhere it may be
    # the user's.
    if cfg.output and read_json(EvaluationResult, there) is None:
        cut_off = any(folder.glob("images-*.npz"))  # Counts are written first.
        for path in [there] if cut_off else [there, *(folder / name for name in PICTURES)]:
            if path.is_file():
                raise ValueError(f"{path} is of no evaluation: give another output.")
    seen = trained_on(model.cfg.dataset, cfg.dataset, source, model.train_images)
    counts = count(model, source, cfg, rank, world_size)
    counts["names"] = np.array([source.name(index) for index in range(len(source))])
    result = summarise(counts, source.classes, cfg)
    result.trained_on, result.elsewhere = seen, moved
    if rank == 0:
        write(folder, counts, result)
    return result, folder


def trained_on(
    trained: DatasetConfig,
    cfg: DatasetConfig,
    source: Source,
    digests: tuple[int, int] | None = None,
) -> int | None:
    """Count the evaluated images that a network was trained on, as far as files tell.

    Args:
        trained: the data set of the training.
        cfg: the data set that is evaluated; it says where files are.
        source: its evaluated split.
        digests: of the names of the training images and of their folder; None where they are not
            known.

    Returns:
        None where the training split has other images now.
    """
    if trained.name != cfg.name:
        return 0
    try:
        here = replace(trained, **{key: getattr(cfg, key) for key in PLACES})
        images = open_split(here, here.training_split)
    except (ValueError, OSError):  # The training images are not here.
        return 0
    images = Limited(images, here.train_limit or len(images))
    # Elsewhere there is another data set, whose images may have any names.
    if digests and digests[1] == digest_root(cfg) and digests[0] != digest_names(images):
        return None
    return count_shared(source, images)


def _folder_name(cfg: EvaluateConfig, images: int, moved: bool) -> str:
    """Name the folder of an evaluation by all that its numbers depend on.

    Where the data have moved since the training, they may be others than in the run's own one.
    """
    dataset, split = cfg.dataset, cfg.dataset.split_or_usual(cfg.split)
    lower = [cfg.precision] if cfg.precision != "32-true" else []
    ratio = str(dataset.boundary_ratio)
    protocol = cfg.protocol.describe()
    usual, data = DatasetConfig(), asdict(dataset)
    keys = (*FOLDER_KEYS, "scenes_seed", "scenes_size")
    other = [f"{key}={data[key]}" for key in keys if data[key] != getattr(usual, key)]
    other += [data_root(dataset) or ""] if moved else []
    number = derive(protocol, dataset.root or "", images, cfg.boundary, ratio, *lower, *other)
    checkpoint = Path(cfg.ckpt_path).name.removesuffix(".ckpt")
    return safe_name(f"{checkpoint}-{dataset.name}-{split}-{cfg.protocol.name}-{number:08x}")


def count(
    model: Model, source: Source, cfg: EvaluateConfig, rank: int = 0, world_size: int = 1
) -> Counts:
    """Predict every image of a split once and count pixels on masks of original size.

    Process r takes every ``world_size``-th image. All get the counts of all images, in the order of
    the source, and the counts do not depend on the number of processes.

    Returns:
        ``confusion`` (C, C), int64, true classes in rows. Image by image, int32: ``pixels``
        (images, C, 3) right, true and predicted ones; with ``cfg.boundary`` the same in boundaries,
        ``boundary`` (images, C, 3), and in bands around edges, ``trimap`` (images, widths, C, 3),
        as `cyclenet.scoring.boundary` defines them.
    """
    classes, device = len(source.classes), model.device
    confusion = ConfusionMatrix(classes).to(device)
    shapes: dict[str, tuple[int, ...]] = {"pixels": (classes, 3)}
    if cfg.boundary:
        shapes |= {"boundary": (classes, 3), "trimap": (len(TRIMAP_WIDTHS), classes, 3)}
    rows: dict[str, list[np.ndarray]] = {key: [] for key in shapes}
    workers = 0 if loader_problem(1, 0) else 1
    features = None
    kept = cfg.protocol.looks_once and cfg.precision == "32-true"  # What a cache holds.
    if isinstance(model.net, CycleNet) and kept:
        features = open_features(model.net, model.cfg, cfg.dataset)
    loader = eval_loader(source, rank, world_size, features, num_workers=workers)
    title, quiet = f"{cfg.dataset.name}, {cfg.protocol.name}", rank > 0 or not sys.stderr.isatty()
    for batch in track(loader, title, disable=quiet):
        image, mask = batch["image"].to(device), batch["mask"].to(device)
        maps = [level.to(device) for level in batch["features"]] if "features" in batch else None
        prediction = model.labels(image, cfg.protocol, maps)
        before = confusion.counts.clone()
        confusion.update(prediction, mask)
        rows["pixels"].append(triples((confusion.counts - before).cpu().numpy()))
        if cfg.boundary:
            pair = prediction[0].cpu().numpy(), mask[0].cpu().numpy()
            ratio = cfg.dataset.boundary_ratio
            rows["boundary"].append(boundary_counts(*pair, classes, ratio).astype(np.int32))
            rows["trimap"].append(trimap_counts(*pair, classes).astype(np.int32))
    # The counts are reshaped, because a process may have no image at all.
    counts: Counts = {
        key: np.array(rows[key], np.int32).reshape(-1, *shape) for key, shape in shapes.items()
    }
    counts["confusion"] = confusion.counts.cpu().numpy()
    return counts if world_size == 1 else _gather(counts, world_size)


def _gather(counts: Counts, world_size: int) -> Counts:
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, counts)
    joined = {"confusion": sum(part.pop("confusion") for part in parts)}
    for key in parts[0]:
        shape = parts[0][key].shape[1:]
        joined[key] = np.empty((sum(len(part[key]) for part in parts), *shape), np.int32)
        for rank, part in enumerate(parts):
            joined[key][rank::world_size] = part[key]
    return joined


def summarise(counts: Counts, classes: list[str], cfg: EvaluateConfig) -> EvaluationResult:
    """Derive the scores of a split from its counts.

    Raises:
        ValueError: no pixel counts.
    """
    if not counts["confusion"].any():
        raise ValueError(
            f"No pixel of {cfg.dataset.name}'s masks counts (all are 255), so there is no score: "
            "run src/check_data.py."
        )
    usual = scores(counts["confusion"], classes)
    result = EvaluationResult(
        **vars(usual),
        protocol=cfg.protocol.describe(),
        protocol_name=cfg.protocol.name,
        dataset=cfg.dataset.name,
        split=cfg.dataset.split_or_usual(cfg.split),
        images=len(counts["pixels"]),
        checkpoint=str(cfg.ckpt_path),
        precision=cfg.precision,
        confusion=counts["confusion"].tolist(),
    )
    if "boundary" in counts:
        result.boundary = boundary_scores(counts["boundary"], classes, cfg.dataset.boundary_ratio)
        result.trimap = trimap_scores(counts["trimap"], classes, TRIMAP_WIDTHS)
    return result


def write(folder: Path, counts: Counts, result: EvaluationResult) -> None:
    """Write counts and pictures, and last ``scores.json``, which names the counts.

    ``images-<checksum>.npz`` holds the counts and the names of the images. An evaluation that is
    there already stands until the new one is whole.
    """
    before = read_json(EvaluationResult, folder / SCORES)
    checksum = 0  # It is of the arrays: the file itself, a zip, holds the time.
    for key in sorted(counts):
        checksum = zlib.crc32(counts[key].tobytes(), checksum)
    result.counts = f"images-{checksum:08x}.npz"
    with atomic_write(folder / result.counts) as part, part.open("wb") as file:
        np.savez_compressed(file, **counts)  # type: ignore[arg-type]
    score = f"{result.dataset} {result.split}: mIoU {100 * result.mIoU:.2f} %"
    title = f"{score}, {result.protocol}"
    confusion_chart(folder / "confusion.png", result, title)
    if result.trimap:
        trimap_chart(folder / "trimap.png", result.trimap, title)
    else:  # An earlier evaluation may have left one.
        (folder / "trimap.png").unlink(missing_ok=True)
    write_json(folder / SCORES, result)
    old = before.counts if before else ""
    if old != result.counts and re.fullmatch(r"images(-[0-9a-f]{8})?\.npz", old):
        (folder / old).unlink(missing_ok=True)
