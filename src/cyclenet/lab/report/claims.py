"""Claims that were written down before the runs, and what the runs say of each."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cyclenet.files import read_yaml
from cyclenet.lab.intervals import Difference, holm
from cyclenet.lab.markdown import NONE, Markup, interval, markdown_table
from cyclenet.lab.report.arms import Row
from cyclenet.lab.report.compare import MEASURES, compare, fold_gains


class Comparison(NamedTuple):
    """One arm beside another, by one score.

    Attributes:
        arm: name of a row or its arm, or a part that `find_named` takes.
        than: the same of the other row.
        score: one of `cyclenet.lab.report.compare.MEASURES`.
    """

    arm: str
    than: str
    score: str


class Claim(NamedTuple):
    """A hypothesis that was written down before the runs: one arm scores higher than another.

    Attributes:
        text: the claim, in words.
        needs: the comparisons that must all show it.
        seeds: seeds planned for each arm; with fewer, the verdict is provisional.
        over_folds: folds planned for each arm; with fewer, the verdict is provisional.
        holm: whether its p values are adjusted for the number of all that are (Holm 1979).
        folds: folds in which the first comparison must have its sign.
        refuted_below: points; where the interval's upper bound lies below, the claim is refuted
            in this regime. With None it cannot be.
        refuted_in: whether the bound of ``any`` comparison refutes it, of ``all``, or of the
            ``first``.
    """

    text: str
    needs: list[Comparison]
    seeds: int = 2
    over_folds: int = 0
    holm: bool = False
    folds: int = 0
    refuted_below: float | None = None
    refuted_in: str = "first"


def read_plan(path: Path) -> list[Claim]:
    """Read claims from a YAML list of mappings.

    Each has ``claim`` and either arm, than and score, or ``needs``, a list of such; and what
    `Claim` has beside.

    Raises:
        ValueError: the file is not such a list.
    """
    try:
        claims = [_read_claim(dict(row)) for row in read_yaml(path)]
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(
            f"{path} is not a list of claims with the keys claim, arm, than and score: {problem}."
        ) from error
    for claim in claims:
        if claim.refuted_in not in ("any", "all", "first"):
            raise ValueError(
                f"{path}: refuted_in must be any, all or first; got {claim.refuted_in!r}."
            )
        for need in claim.needs:
            if need.score not in MEASURES:
                raise ValueError(
                    f"{path}: score must be one of {', '.join(MEASURES)}; got {need.score!r}."
                )
    return claims


def _read_claim(row: dict[str, Any]) -> Claim:
    needs = row.pop("needs", None)
    if needs is None:
        needs = [{key: row.pop(key) for key in Comparison._fields}]
    comparisons = [Comparison(*(str(need[key]) for key in Comparison._fields)) for need in needs]
    return Claim(str(row.pop("claim")), comparisons, **row)


class Judged(NamedTuple):
    """A comparison of a claim, with what came of it; no change where it could not be tested.

    ``p`` is 1 where it cannot be decided: a single seed says nothing of training anew.
    """

    need: Comparison
    row: Row | None
    other: Row | None
    change: Difference | None
    p: float = 1.0

    @property
    def in_folds(self) -> bool:
        """Whether the arms were cross-validated."""
        return self.row is not None and self.row.arm.cfg.dataset.fold is not None

    @property
    def folds(self) -> int:
        """Number of folds that are compared; 0 without cross-validation."""
        return len(self.row.arm.folds(self.row.protocol)) if self.row else 0

    @property
    def seeds(self) -> list[int]:
        """Number of seeds of both arms."""
        return [len(each.evaluations) for each in (self.row, self.other) if each]


def describe_claims(plan: list[Claim], rows: list[Row], block: int) -> str:
    """Judge each claim: it held, the opposite was seen, or the runs cannot tell."""
    folds = any(row.arm.cfg.dataset.fold is not None for row in rows)
    # In cross-validation blocks are the rule: neighbours of a fold are frames of one drive.
    first_block = block if folds else 1
    judged = [[_compare(need, rows, first_block) for need in claim.needs] for claim in plan]
    # A comparison that several claims need is one test.
    family = {
        one.need: one.p
        for claim, found in zip(plan, judged, strict=True)
        for one in found
        if claim.holm
    }
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    judged = [
        [one._replace(p=adjusted[one.need]) for one in found] if claim.holm else found
        for claim, found in zip(plan, judged, strict=True)
    ]
    wider = block if block > 1 and not folds else 0
    lines = [
        line
        for claim, found in zip(plan, judged, strict=True)
        for line in _lines(claim, found, wider)
    ]
    columns = ["claim", "score", "seeds", "paper's gap", "difference [95 %]"]
    columns += [f"in blocks of {block}"] if wider else []
    columns += ["p, Holm"] if family else []
    note = _note(plan, rows, block, bool(wider), len(family))
    return markdown_table([*columns, "what follows"], lines) + "\n\n" + note


def _note(plan: list[Claim], rows: list[Row], block: int, wider: bool, family: int) -> str:
    note = (
        "A claim held where its whole 95 % interval lies above 0, the opposite was seen where it "
        "lies below; else the runs do not decide, nor does a single seed. A claim is not tested "
        "where an arm has no finished run. Differences are percentage points; the paper's are of "
        "Cityscapes val, one run each. "
    )
    if family:
        note += (
            f"The p values of {family} comparisons are adjusted by Holm's procedure, and a claim "
            "holds, or its opposite, only where they are below 0.05; a refutation is read off the "
            "interval, without a correction. "
        )
    else:
        note += f"{len(plan)} claims are judged, without a correction for their number. "
    if wider:
        images = rows[0].evaluations[0].scores.images
        note += (
            f"In blocks, stretches of {block} neighbouring images are drawn instead of single "
            "ones, because neighbours may be frames of one video; the verdict is that of the first "
            f"interval. {images} images hold about {images // block} such stretches; with so "
            "few, this interval too is narrower than it should be."
        )
    elif block > 1:
        note += (
            f"Intervals draw stretches of {block} neighbouring images within each fold, and add "
            "what another training changes, pooled over folds."
        )
    return note.strip()


def _compare(need: Comparison, rows: list[Row], block: int) -> Judged:
    row, other = find_named(need.arm, rows), find_named(need.than, rows)
    if row is None or other is None:
        return Judged(need, row, other, None)
    told = need.arm.endswith(f", {row.protocol}") and need.than.endswith(f", {other.protocol}")
    if row.protocol != other.protocol and not told:  # An evaluation of the own one is missing.
        return Judged(need, row, other, None)
    found = Judged(need, row, other, compare(row, other, need.score, block=block))
    if found.change and min(found.seeds) > 1:
        return found._replace(p=found.change.p)
    return found


def _lines(claim: Claim, found: list[Judged], wider: int) -> list[list[str]]:
    """Return the table's lines of a claim: a line for each comparison, the verdict in the first."""
    lines = []
    for number, one in enumerate(found):
        text = claim.text if number == 0 else f"and {one.need.arm} above {one.need.than}"
        second = None
        if wider and one.row and one.other:
            second = compare(one.row, one.other, one.need.score, block=wider)
        change = interval(one.change) + _largest_class(one)
        numbers = [" / ".join(map(str, one.seeds)) or NONE, _papers_gap(one), change]
        numbers += [interval(second)] if wider else []
        if claim.holm:
            numbers.append(f"{one.p:.3f}" if one.change and min(one.seeds) > 1 else NONE)
        follows: str = Markup(_judge(claim, found)) if number == 0 else ""
        if second and one.change and number == 0 and min(one.seeds) > 1:
            decided = one.change.low * one.change.high > 0
            if decided and second.low * second.high <= 0:
                follows = Markup(f"{follows}; by blocks of {wider} images it would not be decided")
        lines.append([text, one.need.score, *numbers, follows])
    return lines


def _largest_class(one: Judged) -> str:
    """Tell how much of a difference is one class's, of scores that rare classes may sway."""
    measure, means = MEASURES[one.need.score], []
    if measure.by_class is None or not (one.change and one.row and one.other):
        return ""
    for row in (one.row, one.other):
        sums = [measure.counts(each.counts).sum(0, dtype=np.int64) for each in row.evaluations]
        means.append(measure.by_class(np.stack(sums)).mean(0))
    gains = 100 * (means[0] - means[1])
    largest = int(np.abs(gains).argmax())
    name = list(one.row.evaluations[0].scores.IoU)[largest]
    return f"; {name} alone {gains[largest]:+.2f}"


def _judge(claim: Claim, found: list[Judged]) -> str:
    changes = [one.change for one in found if one.change]
    if len(changes) < len(found):
        return "**not tested**"
    seeds = min(min(one.seeds) for one in found)
    # The interval of a single seed says nothing about training again.
    if seeds < 2:
        return "**not decided**: one seed"
    planned = [f"{claim.seeds} seeds"] if seeds < claim.seeds else []
    folds = min(one.folds for one in found)
    planned += [f"{claim.over_folds} folds"] if folds < claim.over_folds else []
    so_far = f"so far ({' and '.join(planned)} are planned): " if planned else ""
    if len(found) == 1 and claim.refuted_below is None and not (claim.holm or claim.folds):
        return so_far + verdict(changes[0])
    sure = all(one.p < 0.05 for one in found)
    above = sure and all(change.low > 0 for change in changes)
    agree = _folds_agreeing(found[0])
    if above and agree >= claim.folds:
        return f"{so_far}**held**: higher by no less than {100 * min(c.low for c in changes):.2f}"
    least = -100 * max(change.high for change in changes)
    opposite = f"lower by no less than {least:.2f}" if sure and least > 0 else ""
    if claim.refuted_below is not None:
        bounds = [100 * change.high < claim.refuted_below for change in changes]
        ways = {"first": bounds[0], "any": any(bounds), "all": all(bounds)}
        if ways[claim.refuted_in]:
            seen = f"; the opposite was seen, {opposite}" if opposite else ""
            ruled_out = f"a gain above {claim.refuted_below:g} is ruled out"
            if claim.refuted_in == "any" and len(bounds) > 1:
                ruled_out += f" in {sum(bounds)} of {len(bounds)} comparisons"
            return f"{so_far}**refuted here**: {ruled_out}{seen}"
    if opposite:
        return f"{so_far}**the opposite was seen**: {opposite}"
    reason = ""
    if above:  # It fails by the folds.
        seen = f"the first has its sign in {agree}" if found[0].in_folds else "the runs have none"
        reason = f"; {claim.folds} folds of its sign are asked for, and {seen}"
    highest = 100 * changes[0].high
    return f"{so_far}**not decided**: gains above {highest:.2f} are ruled out{reason}"


def _folds_agreeing(one: Judged) -> int:
    """Count the folds in which a comparison has the sign that it has over all."""
    if one.row is None or one.other is None or one.change is None:
        return 0
    gains = fold_gains(one.row, one.other, one.need.score)
    return sum(gain * one.change.value > 0 for gain in gains)


def _papers_gap(one: Judged) -> str:
    if one.need.score != "mIoU" or one.row is None or one.other is None:
        return NONE
    ours, theirs = one.row.papers, one.other.papers
    if ours is None or theirs is None:
        return NONE
    return f"{ours - theirs:+.2f}"


def verdict(change: Difference) -> str:
    """Say in a sentence what follows from an interval, and what it rules out."""
    value, low, high = (100 * abs(number) for number in change[:3])
    if change.low > 0:
        return f"**held**: higher by {value:.2f}, by no less than {low:.2f}"
    if change.high < 0:
        return f"**the opposite was seen**: lower by {value:.2f}, by no less than {high:.2f}"
    return f"**not decided**: a gain above {high:.2f} and a loss above {low:.2f} are ruled out"


def find_named(name: str, rows: list[Row]) -> Row | None:
    """Find a row by its name, its arm's label, its network, or a setting in its label.

    Another network is never taken for one that has no finished run: ``CycleASPP(3,6)`` is not
    ``CycleASPP(3,6) + ADC``, nor its twin of other widths. Rates may be left out (``CycleASPP``).
    A name that fits several arms fits none.
    """
    exact = next((row for row in rows if name in (row.name, row.arm.label)), None)
    found = [row for row in rows if _has_part(row, name)]
    one = len({row.arm.label for row in found}) == 1
    return exact or (found[0] if one else None)


def _has_part(row: Row, name: str) -> bool:
    name, label = name.removesuffix(f", {row.protocol}"), row.arm.label
    if re.fullmatch(r"\[?[\w.]+=.*", name):
        word = rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"
        return re.search(word, label) is not None
    network, _, settings = label.partition(" [")
    return "model." not in settings and name in (network, re.sub(r"\([\d,]*\)", "", network))
