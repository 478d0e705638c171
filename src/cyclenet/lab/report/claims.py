"""Claims that were written down before the runs, and what the runs say of each."""

from pathlib import Path
from typing import NamedTuple

from cyclenet.files import read_yaml
from cyclenet.lab.markdown import NONE, Markup, interval, markdown_table
from cyclenet.lab.report.arms import Row, compare
from cyclenet.scoring.intervals import Difference

BAND = 1
"""Number of the trimap's band that tables show; the plot has all."""

SCORES: dict[str, tuple[str, int | None]] = {
    "mIoU": ("pixels", None),
    "boundary": ("boundary", None),
    "edges": ("trimap", BAND),
}


class Claim(NamedTuple):
    """A hypothesis that was written down before the runs: one arm scores higher than another.

    Attributes:
        text: the claim, in words.
        arm: name of the arm, or a part of it that no arm before it has; followed by
            ``, <protocol>`` where it has several.
        than: name of the other arm.
        score: ``mIoU``, ``boundary`` (IoU) or ``edges`` (mIoU within a narrow band around them).
        seeds: seeds planned for each of the two; with fewer, the verdict is provisional.
    """

    text: str
    arm: str
    than: str
    score: str
    seeds: int = 2


def read_plan(path: Path) -> list[Claim]:
    """Read claims from a YAML list of mappings: claim, arm, than, score, and optionally seeds.

    Raises:
        ValueError: the file is not such a list.
    """
    try:
        rows = read_yaml(path)
        claims = [
            Claim(
                str(r["claim"]), str(r["arm"]), str(r["than"]), r["score"], int(r.get("seeds", 2))
            )
            for r in rows
        ]
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(
            f"{path} is not a list of claims with the keys claim, arm, than and score: {problem}."
        ) from error
    for claim in claims:
        if claim.score not in SCORES:
            raise ValueError(
                f"{path}: score must be one of {', '.join(SCORES)}; got {claim.score!r}."
            )
    return claims


def describe_claims(plan: list[Claim], rows: list[Row], block: int) -> str:
    """Judge each claim: it held, the opposite was seen, or the runs cannot tell."""
    lines = [_judge(claim, rows, block) for claim in plan]
    note = (
        "A claim held where its whole 95 % interval lies above 0, the opposite was seen where it "
        "lies below; else the runs do not decide, nor does a single seed. A claim is not tested "
        "where an arm has no finished run. Differences are percentage points; the paper's are of "
        f"Cityscapes val, one run each. {len(plan)} claims are judged, without a correction for "
        "their number."
    )
    columns = ["claim", "score", "seeds", "paper's gap", "difference [95 %]"]
    if block > 1:
        columns.append(f"in blocks of {block}")
        images = rows[0].evaluations[0].scores.images
        note += (
            f" In blocks, stretches of {block} neighbouring images are drawn instead of single "
            "ones, because neighbours may be frames of one video; the verdict is that of the first "
            f"interval. {images} images hold about {images // block} such stretches; the fewer "
            "they are, the more this interval is too narrow as well."
        )
    return markdown_table([*columns, "what follows"], lines) + "\n\n" + note


def _judge(claim: Claim, rows: list[Row], block: int) -> list[str]:
    row, other = find_named(claim.arm, rows), find_named(claim.than, rows)
    counts = SCORES[claim.score]
    change = compare(row, other, *counts) if row and other else None
    if row is None or other is None or change is None:
        empty = [NONE] * (4 if block > 1 else 3)
        return [claim.text, claim.score, *empty, Markup("**not tested**")]
    seeds = [len(each.evaluations) for each in (row, other)]
    # The interval of a single seed says nothing about training again.
    follows = verdict(change) if min(seeds) > 1 else "**not decided**: one seed"
    wider = []
    second = compare(row, other, *counts, block=block) if block > 1 else None
    if second:
        wider = [interval(second)]
        decided = change.low * change.high > 0
        if min(seeds) > 1 and decided and second.low * second.high <= 0:
            follows += f"; by blocks of {block} images it would not be decided"
    if 1 < min(seeds) < claim.seeds:
        follows = f"so far ({claim.seeds} seeds are planned): {follows}"
    gap = _papers_gap(claim, row, other)
    numbers = [" / ".join(map(str, seeds)), gap, interval(change), *wider]
    return [claim.text, claim.score, *numbers, Markup(follows)]


def _papers_gap(claim: Claim, row: Row, other: Row) -> str:
    ours, theirs = row.papers, other.papers
    if claim.score != "mIoU" or ours is None or theirs is None:
        return NONE
    return f"{ours - theirs:+.2f}"


def verdict(change: Difference) -> str:
    """Say in a sentence what follows from an interval, and what it rules out."""
    value, low, high = (100 * abs(number) for number in change)
    if change.low > 0:
        return f"**held**: higher by {value:.2f}, by no less than {low:.2f}"
    if change.high < 0:
        return f"**the opposite was seen**: lower by {value:.2f}, by no less than {high:.2f}"
    return f"**not decided**: a gain above {high:.2f} and a loss above {low:.2f} are ruled out"


def find_named(name: str, rows: list[Row]) -> Row | None:
    """Find a row by its name, by its arm's label, or by a part of its name."""
    exact = [row for row in rows if name in (row.arm.label, row.name)]
    partly = [row for row in rows if name in row.name]
    return next(iter(exact + partly), None)
