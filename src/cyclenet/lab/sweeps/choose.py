"""What a sweep chose: the best value of one key for each network, as a file for later runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from cyclenet.config.identity import flatten, network_name, result_affecting
from cyclenet.files import write_text
from cyclenet.lab.report.runs import Run


def write_chosen(runs: list[Run], key: str, path: Path, earlier: Sequence[Run] = ()) -> str:
    """Write the best value of a key for each network, by mean mIoU over the runs of all values.

    ``${chosen:PATH}`` reads it (`cyclenet.config.load`).

    Args:
        runs: runs of a sweep; those that have not finished do not count.
        key: what was swept over beside the networks, for instance ``optim.lr``.
        path: the YAML file.
        earlier: runs of earlier sweeps, for values may be tried one by one. Those count that differ
            from one of ``runs`` in the network, the key, the seed or the fold alone.

    Returns:
        What to say of it: where it is, and networks whose best value is the last that was tried.
    """
    splits: set[str] = set()
    alike = {_setting(run, key, "seed", "dataset.fold") for run in runs if run.cfg}
    scores = _scores(runs, key, splits)
    like = [r for r in earlier if r.cfg and _setting(r, key, "seed", "dataset.fold") in alike]
    before = _scores(like, key, splits)
    if not scores:
        return f"Nothing was chosen for {key}: no run has finished."
    where = ", ".join(sorted(splits))
    lines, at_the_end = [f"# {key} with the best mIoU on {where}; behind it, mIoU by value."], []
    for name in before | scores:
        new, old = scores.get(name, {}), before.get(name, {})
        every = {value: old.get(value, {}) | new.get(value, {}) for value in old | new}
        # A value must not win because it was tried on the easy fold alone.
        own = {value: every[value] for value in new or every}
        common = set.intersection(*map(set, own.values()))
        # Earlier values must not take seeds from a sweep that compares several.
        tried = own | {value: found for value, found in every.items() if common <= found.keys()}
        if not common or len(tried) == 1:
            tried, common = every, set.intersection(*map(set, every.values()))
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


def _scores(
    runs: Sequence[Run], key: str, splits: set[str]
) -> dict[str, dict[float, dict[str, float]]]:
    """Return mIoU by network, value of the key, and setting; add the evaluated splits."""
    scores: dict[str, dict[float, dict[str, float]]] = {}
    for run in runs:
        if run.cfg is None or not run.finished:
            continue
        own = run.cfg.protocol.describe()
        each = next((e for e in run.evaluations.values() if e.scores.protocol == own), None)
        if each is None:  # Its file is damaged: another protocol's score is no substitute.
            continue
        values = result_affecting(run.cfg)
        tried = scores.setdefault(network_name(values["model"]), {})
        tried.setdefault(flatten(values)[key], {})[_setting(run, key)] = each.scores.mIoU
        splits.add(f"{each.scores.dataset} {each.scores.split} ({each.scores.protocol})")
    return scores


def _setting(run: Run, *without: str) -> str:
    """Return all that affects a run's result but its network and some keys, as text."""
    values = flatten(result_affecting(run.config))
    same = {k: v for k, v in values.items() if k not in without and not k.startswith("model.")}
    return repr(sorted(same.items()))
