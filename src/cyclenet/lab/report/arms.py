"""Group runs into arms, and name the arms."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

from cyclenet.config.identity import flatten, result_affecting
from cyclenet.config.naming import arm_label
from cyclenet.config.schema import TrainConfig
from cyclenet.lab.paper import find_row
from cyclenet.lab.report.evaluations import Evaluation, join_folds
from cyclenet.lab.report.runs import Run

T = TypeVar("T")

OF_BACKBONE = {
    f"model.{key}"
    for key in (
        "backbone",
        "backbone_weights",
        "output_stride",
        "first_block_dilation",
        "multi_grid",
        "strip_pooling",
        "freeze_backbone",
        "freeze_norm",
        "aux_head",
    )
}

NOT_IN_ALL = "is not compared, for not all arms have its fold and seed"


@dataclass
class Arm:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: its parts; in brackets, the keys in which it differs from others of the same parts.
        cfg: the configuration of its first run.
        runs: the finished ones, by seed; in cross-validation by seed and fold, and only those of
            folds and seeds that all arms have.
    """

    label: str
    cfg: TrainConfig
    runs: list[Run]

    def evaluations(self, protocol: str) -> list[Evaluation]:
        """Return an evaluation for each seed that has one; those of its folds are joined."""
        return [
            join_folds(parts) if len(parts) > 1 else parts[0]
            for parts in self._by_seed(protocol).values()
        ]

    def seeds(self, protocol: str) -> list[int]:
        """Return the seeds of `evaluations`."""
        return list(self._by_seed(protocol))

    def folds(self, protocol: str) -> list[int]:
        """Return the number of images of each fold; [] where there is no cross-validation."""
        if self.cfg.dataset.fold is None:
            return []
        parts = next(iter(self._by_seed(protocol).values()))
        return [part.scores.images for part in parts]

    def _by_seed(self, protocol: str) -> dict[int, list[Evaluation]]:
        found: dict[int, list[Evaluation]] = {}
        for run in self.runs:
            if protocol in run.evaluations:
                found.setdefault(run.config.seed, []).append(run.evaluations[protocol])
        return found

    @property
    def protocols(self) -> list[str]:
        """Names of the protocols, the runs' own first."""
        names = dict.fromkeys(name for run in self.runs for name in run.evaluations)
        return sorted(names, key=lambda name: name != self.cfg.protocol.name)


class Row(NamedTuple):
    """A row of the report: an arm, and the protocol that it was evaluated by."""

    arm: Arm
    protocol: str

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.arm.label}, {self.protocol}"

    @property
    def evaluations(self) -> list[Evaluation]:
        """One evaluation a seed."""
        return self.arm.evaluations(self.protocol)

    @property
    def scores(self) -> list[float]:
        """The mIoU of each seed."""
        return [each.scores.mIoU for each in self.evaluations]

    @property
    def papers(self) -> float | None:
        """The paper's mIoU of the arm, percent, whatever its backbone, widths and training."""
        model = self.arm.cfg.model
        found = find_row(model, self.protocol) if self.arm.label == arm_label(model) else None
        return found.miou if found else None


def group_arms(runs: list[Run]) -> list[Arm]:
    """Group finished runs by all but their seed, in the order given.

    Of runs with one configuration, seed and fold only the one with the most evaluations is
    compared. In cross-validation only folds and seeds are compared that all arms have, and of an
    arm only protocols that all its folds have. What is left out gets the reason as its problem.
    Without a fold that all arms have finished there is nothing to compare: [].

    Raises:
        ValueError: the runs are of different data sets.
    """
    groups: dict[str, list[Run]] = {}
    configs: dict[str, TrainConfig] = {}
    for run in runs:
        if run.finished and run.cfg is not None:
            key = _arm_key(run.cfg)
            configs.setdefault(key, run.cfg)
            group = groups.setdefault(key, [])
            first = next((each for each in group if _cell(each) == _cell(run)), None)
            if first is None:
                group.append(run)
                continue
            if len(run.evaluations) > len(first.evaluations):
                group[group.index(first)], first, run = run, run, first
            run.problem = f"is not compared, for it repeats {first.folder}"
    compared = [run for group in groups.values() for run in group]
    _refuse_other_data(compared, list(configs.values()))
    _tell_rules_apart(compared)
    # An arm's name must not depend on which others have finished, so all count.
    labels = _tell_apart(configs | {_arm_key(run.cfg): run.cfg for run in runs if run.cfg})
    cells = complete_cells(list(groups.values()))
    if not cells:
        return []
    arms = []
    for key, group in groups.items():
        for run in group:
            if _cell(run) not in cells:
                run.problem = NOT_IN_ALL
        used = sorted((run for run in group if _cell(run) in cells), key=_cell)
        if configs[key].dataset.fold is not None:
            _keep_common_protocols(used)
        if used[0].evaluations:  # Otherwise its folds share no protocol.
            arms.append(Arm(labels[key], used[0].config, used))
    return arms


def _refuse_other_data(runs: list[Run], configs: list[TrainConfig]) -> None:
    """Raise `ValueError` where runs are of different data sets, splits or classes."""
    found = [each.scores for run in runs for each in run.evaluations.values()]
    if len({tuple(scores.IoU) for scores in found}) > 1:
        raise ValueError(
            "These runs have different classes, or another order of them, and cannot be compared; "
            "give those of one data set."
        )
    data = {
        (cfg.dataset.name, str(cfg.dataset.val_split), cfg.dataset.fold is None) for cfg in configs
    }
    if len(data) > 1:
        names = ", ".join(
            sorted(f"{name} {split if whole else 'folds'}" for name, split, whole in data)
        )
        raise ValueError(
            f"These runs are of different data ({names}) and cannot be compared; "
            "give those of one, such as runs/ablation/camvid-*."
        )


def _tell_rules_apart(runs: list[Run]) -> None:
    """Let no two rules have one name, and no boundary IoU stand beside one of another ratio.

    Where one name stands for several rules, evaluations are called by their whole rule. Boundary
    IoU is kept with the ratio that most evaluations have.
    """
    found = [each.scores for run in runs for each in run.evaluations.values()]
    rules = {(scores.protocol_name, scores.protocol) for scores in found}
    names = [name for name, _ in rules]
    ratios = sorted(scores.boundary.ratio for scores in found if scores.boundary)
    usual = max(ratios, key=ratios.count, default=None)
    for run in runs:
        kept: dict[str, Evaluation] = {}
        for name, each in run.evaluations.items():
            boundary = each.scores.boundary
            if boundary and boundary.ratio != usual:
                run.problem = f"boundary IoU with boundary_ratio={boundary.ratio:g} is left out"
                counts = {key: value for key, value in each.counts.items() if key != "boundary"}
                each = Evaluation(replace(each.scores, boundary=None), counts)
            several = names.count(each.scores.protocol_name) > 1
            kept[each.scores.protocol if several else name] = each
        run.evaluations = kept


def _keep_common_protocols(runs: list[Run]) -> None:
    """Leave an arm's folds only the protocols that all of them were evaluated by."""
    common = set.intersection(*(set(run.evaluations) for run in runs))
    for run in runs:
        if lost := [name for name in run.evaluations if name not in common]:
            run.problem = f"{', '.join(lost)} left out, for not all folds and seeds have it"
            kept = {name: each for name, each in run.evaluations.items() if name in common}
            run.evaluations = kept


def complete_cells(groups: list[list[Run]]) -> set[tuple[int, int]]:
    """Return the (seed, fold) whose runs are compared; without folds, all.

    In cross-validation arms must be compared on the same images. Of the seed for which all arms
    share the most folds, those folds are kept, and every seed for which all arms have all of them.
    """
    cells = [{_cell(run) for run in group} for group in groups]
    every = set().union(*cells)
    if all(fold < 0 for _, fold in every):
        return every
    common = set.intersection(*cells)
    by_seed = {seed: {f for s, f in common if s == seed} for seed, _ in common}
    folds = max((by_seed[seed] for seed in sorted(by_seed)), key=len, default=set())
    return {(seed, fold) for seed in by_seed if folds <= by_seed[seed] for fold in folds}


def _cell(run: Run) -> tuple[int, int]:
    fold = run.config.dataset.fold
    return run.config.seed, -1 if fold is None else fold


def _arm_key(cfg: TrainConfig) -> str:
    """Write down all that makes an arm: what changes the result, but for seed and fold."""
    values = result_affecting(cfg)
    for key in ("seed", "name", "ckpt_path"):
        values.pop(key)
    values["dataset"].pop("fold")
    return json.dumps(values, sort_keys=True)


def training_differences(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Return the keys in which arms differ beside their networks, each with its values.

    Keys of the backbone are among them, which labels do not tell.
    """
    values = [flatten(json.loads(_arm_key(arm.cfg))) for arm in arms]
    told = [
        key
        for key in dict.fromkeys(key for each in values for key in each)
        if not key.startswith("model.") or key in OF_BACKBONE
    ]
    found = {key: list(dict.fromkeys(str(each.get(key)) for each in values)) for key in told}
    return {key: shown for key, shown in found.items() if len(shown) > 1}


def _tell_apart(configs: dict[str, TrainConfig]) -> dict[str, str]:
    """Label arms; those made of the same also get the values in which they differ.

    A value is named if it differs from another arm with the same parts and from `_usual`. Nothing
    depends on the order of the arms, because which of two parallel runs ends first is chance.
    """
    labels = {key: arm_label(cfg.model) for key, cfg in configs.items()}
    values = {key: flatten(json.loads(key)) for key in configs}
    # Where the networks differ, the other keys need not be told: each arm may have its own rate.
    told = {key: labels[key] + _extra(key, values, labels, "model.") for key in configs}
    if len(set(told.values())) < len(told):
        told = {key: labels[key] + _extra(key, values, labels, "") for key in configs}
    return told


def _extra(key: str, values: dict[str, dict[str, Any]], labels: dict[str, str], prefix: str) -> str:
    own = values[key]
    alike = [values[other] for other in values if labels[other] == labels[key]]
    extra = [
        f"{name}={own[name]}"
        for name in own
        if name.startswith(prefix)
        and any(each.get(name) != own[name] for each in alike)
        and own[name] != _usual(name, values)
    ]
    return f" [{', '.join(extra)}]" if extra else ""


def _usual(name: str, arms: dict[str, dict[str, Any]]) -> Any:
    """Return a key's value that needs no telling: the default if an arm has it, else the commonest.

    A network counts once, however many arms of other rates it has.
    """
    networks: dict[str, Any] = {}
    for values in arms.values():
        own = {k: v for k, v in values.items() if k.startswith("model.") or k == name}
        networks[repr(sorted(own.items()))] = values.get(name)
    found = list(networks.values())
    default = flatten(asdict(TrainConfig())).get(name)
    return default if default in found else min(found, key=lambda v: (-found.count(v), repr(v)))


def pick_by_name(name: str, items: Sequence[T], names: Sequence[str]) -> T | None:
    """Return the item of a name, else the first that has it as a word, else as any part."""
    word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])")
    pairs = list(zip(items, names, strict=True))
    exact = [item for item, own in pairs if own == name]
    words = [item for item, own in pairs if word.search(own)]
    partly = [item for item, own in pairs if name in own]
    return next(iter(exact + words + partly), None)
