"""Evaluations that are read back: scores with the counts of each image, and folds joined."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cyclenet.files import parse_json, safe_name
from cyclenet.scoring.metrics import scores
from cyclenet.scoring.results import Counts, EvaluationResult, boundary_scores, trimap_scores


class Evaluation(NamedTuple):
    """What an evaluation left: its scores, and the counts of each image."""

    scores: EvaluationResult
    counts: Counts


def read_evaluation(folder: Path) -> Evaluation:
    """Read ``scores.json``, and the counts that it names.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file does not hold what it should, or is damaged.
    """
    result = parse_json(EvaluationResult, (folder / "scores.json").read_bytes())
    path = folder / safe_name(result.counts)
    try:
        with np.load(path) as arrays:
            return Evaluation(result, dict(arrays))
    except OSError:
        raise
    except Exception as error:  # numpy raises many kinds for a damaged file.
        raise ValueError(f"{path} is damaged ({type(error).__name__})") from error


def join_folds(parts: list[Evaluation]) -> Evaluation:
    """Join evaluations of folds to one of all their images: counts are summed, not scores.

    Raises:
        ValueError: an image is in two folds.
    """
    first = parts[0].scores
    common = set.intersection(*(set(part.counts) for part in parts))
    counts = {key: np.concatenate([part.counts[key] for part in parts]) for key in sorted(common)}
    names, times = np.unique(counts["names"], return_counts=True)
    if (times > 1).any():
        raise ValueError(
            f"The image {names[times > 1][0]} is in two folds, so folds.csv was another for some "
            "runs: report those apart, or train them again."
        )
    counts["confusion"] = np.sum([part.counts["confusion"] for part in parts], 0)
    classes = list(first.IoU)
    joined = replace(
        first,
        **vars(scores(counts["confusion"], classes)),
        split=", ".join(part.scores.split for part in parts),
        images=sum(part.scores.images for part in parts),
        confusion=counts["confusion"].tolist(),
    )
    joined.boundary = None
    if first.boundary and "boundary" in counts:
        joined.boundary = boundary_scores(counts["boundary"], classes, first.boundary.ratio)
    if first.trimap and "trimap" in counts:
        joined.trimap = trimap_scores(counts["trimap"], classes, first.trimap.widths)
    return Evaluation(joined, counts)
