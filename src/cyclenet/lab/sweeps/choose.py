"""What a sweep chose: the best value of one key for each network, as a file for later runs."""

from pathlib import Path

import numpy as np
import yaml

from cyclenet.config.identity import flatten, network_name, result_affecting
from cyclenet.files import write_text
from cyclenet.lab.report.runs import Run


def write_chosen(runs: list[Run], key: str, path: Path) -> str:
    """Write the best value of a key for each network, by mean mIoU over the runs of all values.

    ``${chosen:PATH}`` reads it (`cyclenet.config.load`).

    Args:
        runs: runs of a sweep; those that have not finished do not count.
        key: what was swept over beside the networks, for instance ``optim.lr``.
        path: the YAML file.

    Returns:
        What to say of it: where it is, and networks whose best value is the last that was tried.
    """
    scores: dict[str, dict[float, dict[str, float]]] = {}
    splits: set[str] = set()
    for run in runs:
        if run.cfg is None or not run.finished:
            continue
        own = run.cfg.protocol.describe()
        each = next((e for e in run.evaluations.values() if e.scores.protocol == own), None)
        if each is None:  # Its file is damaged: another protocol's score is no substitute.
            continue
        found = each.scores
        values = result_affecting(run.cfg)
        tried = scores.setdefault(network_name(values["model"]), {})
        by_run = tried.setdefault(flatten(values)[key], {})
        same = {k: v for k, v in flatten(values).items() if k != key and k.split(".")[0] != "model"}
        by_run[repr(sorted(same.items()))] = found.mIoU
        splits.add(f"{found.dataset} {found.split} ({found.protocol})")
    if not scores:
        return f"Nothing was chosen for {key}: no run has finished."
    where = ", ".join(sorted(splits))
    lines, at_the_end = [f"# {key} with the best mIoU on {where}; behind it, mIoU by value."], []
    for name, tried in scores.items():
        # A value must not win because it was tried on the easy fold alone.
        common = set.intersection(*map(set, tried.values()))
        if not common:
            lines.append(f"# {name}: no seed and fold has runs of all values.")
            continue
        means = {
            value: float(np.mean([tried[value][run] for run in sorted(common)]))
            for value in sorted(tried)
        }
        best = max(means, key=lambda value: means[value])
        shown = ", ".join(f"{value:g}: {100 * mean:.2f} %" for value, mean in means.items())
        number = yaml.safe_dump(float(best)).split()[0]  # It writes 6e-05 as 6.0e-05, a number.
        most = max(map(len, tried.values()))
        by = f", by {len(common)} of {most} seeds and folds" if len(common) < most else ""
        lines.append(f"{name}: {number}  # {shown}{by}")
        if best in (min(means), max(means)):
            at_the_end.append(f"{name} ({best:g})")
    write_text(path, "\n".join(lines) + "\n")
    said = f"Chosen: {path}"
    if at_the_end:
        said += (
            f". The best {key} is the lowest or the highest that was tried for "
            f"{', '.join(at_the_end)}: try one more."
        )
    return said
