"""Evaluate a trained model on a split, image by image, so that models can be compared on the same images."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from rich.progress import track

from cyclenet.config import EvaluateConfig
from cyclenet.data.base import Source, build_source
from cyclenet.data.datamodule import Limited
from cyclenet.data.loader import derive, eval_loader
from cyclenet.plots.charts import confusion_picture, trimap_picture
from cyclenet.scoring.boundary import TRIMAP_WIDTHS, boundary_counts, trimap_counts
from cyclenet.scoring.metrics import ConfusionMatrix, by_class, class_iou, mean_iou, scores, triples
from cyclenet.training.task import SegmentationTask

Counts = dict[str, np.ndarray]
"""Pixel counts of a split, as `count` returns them."""


def evaluate(
    task: SegmentationTask,
    cfg: EvaluateConfig,
    run: Path,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[dict[str, Any], Path]:
    """Evaluate a model and write the result.

    Args:
        task: the model, with the weights of ``cfg.ckpt_path``.
        cfg: what to evaluate on, and how.
        run: the run folder, whose ``evaluate/`` receives the result unless ``cfg.output`` says where.
        device: where to predict.
        rank: number of this process; the first writes.
        world_size: number of processes that share the images.

    Returns:
        What ``scores.json`` holds, and its folder.

    Raises:
        ValueError: the data set has other classes than the model.
    """
    split = cfg.split or cfg.dataset.val_split
    source = build_source(cfg.dataset, split)
    if cfg.dataset.val_limit:
        source = Limited(source, cfg.dataset.val_limit)
    if source.classes != task.classes:
        raise ValueError(f"{cfg.ckpt_path} was trained on other classes than {cfg.dataset.name} has; choose its own data set.")
    protocol = cfg.protocol.describe()
    # What else the numbers depend on is in the folder's name.
    lower = [cfg.precision] if cfg.precision != "32-true" else []
    number = derive(protocol, cfg.dataset.root or "", len(source), cfg.boundary, str(cfg.dataset.boundary_ratio), *lower)
    name = f"{Path(cfg.ckpt_path).stem}-{cfg.dataset.name}-{split}-{cfg.protocol.name}-{number:08x}"
    folder = Path(cfg.output) if cfg.output else run / "evaluate" / name
    counts = count(task, source, cfg, device, rank, world_size)
    counts["names"] = np.array([source.name(index) for index in range(len(source))])
    result = {
        "protocol": protocol,
        "protocol_name": cfg.protocol.name,
        "dataset": cfg.dataset.name,
        "split": split,
        "images": len(source),
        "checkpoint": str(cfg.ckpt_path),
        "precision": cfg.precision,
        **summarise(counts, source.classes, cfg.dataset.boundary_ratio),
    }
    if rank == 0:
        write(folder, counts, result)
    return result, folder


def count(
    task: SegmentationTask,
    source: Source,
    cfg: EvaluateConfig,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> Counts:
    """Predict every image of a split once and count pixels on masks of original size.

    Process r takes every ``world_size``-th image; all get the counts of all images, in the order of the source, and the counts
    do not depend on the number of processes.

    Returns:
        ``confusion`` (C, C), int64, true classes in rows; and image by image, int32: ``pixels`` (images, C, 3) right, true and
        predicted ones, and with ``cfg.boundary`` the same in boundaries, ``boundary`` (images, C, 3), and in bands around
        edges, ``trimap`` (images, widths, C, 3), as `cyclenet.scoring.boundary` defines them.
    """
    classes = len(source.classes)
    task = task.to(device).eval()
    confusion = ConfusionMatrix(classes).to(device)
    shapes: dict[str, tuple[int, ...]] = {"pixels": (classes, 3)}
    if cfg.boundary:
        shapes |= {"boundary": (classes, 3), "trimap": (len(TRIMAP_WIDTHS), classes, 3)}
    rows: dict[str, list[np.ndarray]] = {key: [] for key in shapes}
    loader = eval_loader(source, rank, world_size, num_workers=1)
    title = f"{cfg.dataset.name}, {cfg.protocol.name}"
    for batch in track(loader, title, disable=rank > 0 or not sys.stderr.isatty()):
        image, mask = batch["image"].to(device), batch["mask"].to(device)
        prediction = task.predict(image, cfg.protocol, cfg.precision)
        before = confusion.counts.clone()
        confusion.update(prediction, mask)
        rows["pixels"].append(triples((confusion.counts - before).cpu().numpy()))
        if cfg.boundary:
            pair = prediction[0].cpu().numpy(), mask[0].cpu().numpy()
            rows["boundary"].append(boundary_counts(*pair, classes, cfg.dataset.boundary_ratio).astype(np.int32))
            rows["trimap"].append(trimap_counts(*pair, classes).astype(np.int32))
    # Reshaped, for a process may have no image at all.
    counts = {key: np.array(rows[key], np.int32).reshape(-1, *shape) for key, shape in shapes.items()}
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


def summarise(counts: Counts, classes: list[str], boundary_ratio: float) -> dict[str, Any]:
    """Derive the scores of a split: `cyclenet.scoring.metrics.scores`, and ``boundary`` and ``trimap`` if they were counted."""
    result = {**scores(counts["confusion"], classes), "confusion": counts["confusion"].tolist()}
    if "boundary" in counts:
        boundary, trimap = counts["boundary"].sum(0, dtype=np.int64), counts["trimap"].sum(0, dtype=np.int64)
        iou = by_class(class_iou(boundary), classes)
        result["boundary"] = {"ratio": boundary_ratio, "mIoU": float(mean_iou(boundary)), "IoU": iou}
        curves = [by_class(row, classes) for row in class_iou(trimap)]
        result["trimap"] = {
            "widths": list(TRIMAP_WIDTHS),
            "mIoU": mean_iou(trimap).tolist(),
            "IoU": {name: [curve[name] for curve in curves] for name in classes},
        }
    return result


def write(folder: Path, counts: Counts, result: dict[str, Any]) -> None:
    """Write ``images.npz`` (counts and names of the images), pictures, and last ``scores.json``: the sign of a complete one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").unlink(missing_ok=True)
    with (folder / "images.npz").open("wb") as file:
        np.savez_compressed(file, **counts)  # type: ignore[arg-type]
    title = f"{result['dataset']} {result['split']}: mIoU {100 * result['mIoU']:.2f} %, {result['protocol']}"
    confusion_picture(folder / "confusion.png", result, counts["confusion"], title)
    if "trimap" in result:
        trimap_picture(folder / "trimap.png", result["trimap"], title)
    part = folder / "scores.json.tmp"
    part.write_text(json.dumps(result, indent=1))
    part.replace(folder / "scores.json")


def boundary_line(result: dict[str, Any]) -> str:
    """Format the boundary scores for a terminal, "" if there are none."""
    if "trimap" not in result:
        return ""
    points = zip(result["trimap"]["widths"], result["trimap"]["mIoU"], strict=True)
    curve = ", ".join(f"{width} px {100 * value:.2f}" for width, value in points)
    boundary = result["boundary"]
    return f"boundary IoU {100 * boundary['mIoU']:.2f} % (ratio {boundary['ratio']:g}) | mIoU near edges, %: {curve}"
