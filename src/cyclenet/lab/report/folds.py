"""The report's section on cross-validation: the score of each fold, and of each group of images."""

import numpy as np

from cyclenet.lab.markdown import markdown_table, plain
from cyclenet.lab.report.arms import NOT_IN_ALL, Row
from cyclenet.lab.report.runs import Run
from cyclenet.scoring.metrics import mean_iou


def describe_folds(rows: list[Row], runs: list[Run]) -> str:
    """Describe mIoU by fold and by drive, over the mean counts of the seeds; "" without folds."""
    if all(row.arm.cfg.dataset.fold is None for row in rows):
        return ""
    left_out = sum(run.problem == NOT_IN_ALL for run in runs)
    text = "Scores above are of counts that are summed over the folds."
    if left_out:
        text += (
            f" {left_out} finished runs are left out, because not all arms have their fold and "
            "seed."
        )
    first = rows[0]
    folds = [run.config.dataset.fold for run in first.arm.runs]
    fold_of = np.repeat(list(dict.fromkeys(folds)), first.arm.folds(first.protocol))
    names = [str(name).split("_")[0] for name in first.evaluations[0].counts["names"]]
    parts = [text, _table(rows, "fold", list(map(str, fold_of)))]
    if len(set(names)) < min(len(names), 20):  # Names begin with the drive, as CamVid's do.
        parts.append(_table(rows, "drive", names))
    return "\n\n".join(parts)


def _table(rows: list[Row], what: str, groups: list[str]) -> str:
    kinds = list(dict.fromkeys(groups))
    members: dict[str, np.ndarray] = {kind: np.array(groups) == kind for kind in kinds}
    head = ["mIoU, %", *(f"{what} {plain(kind)} ({members[kind].sum()})" for kind in kinds)]
    lines = []
    for row in rows:
        mean: np.ndarray = np.stack([e.counts["pixels"] for e in row.evaluations]).mean(0)
        scores = [100 * float(mean_iou(mean[members[kind]].sum(0))) for kind in kinds]
        lines.append([row.name, *(f"{score:.2f}" for score in scores)])
    return markdown_table(head, lines)
