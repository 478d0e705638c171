"""Look at a strange folder of images and masks, and propose the keys of ``dataset`` that fit it."""

import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import find_files
from cyclenet.data.images import IMAGE_ENDINGS, DataError, read_colors, read_values
from cyclenet.data.legend import read_legend
from cyclenet.data.open import open_split
from cyclenet.files import write_text
from cyclenet.labels import IGNORE
from cyclenet.plots.pictures import PanelRow, panel, save_png
from cyclenet.seeding import spread

TRAIN, VAL = ("train", "training"), ("val", "valid", "validation", "test")
"""Names that splits usually have, the first of each preferred."""

MOST_LABELS = 64  # Different values of a picture up to which it is taken for a mask.
LOOKED_AT = 200  # So many masks, or up to twice as many, are read: every n-th.

SHOWN = 6


class Layout(NamedTuple):
    """Where images and masks are: keys of ``dataset``, and how splits are told."""

    images: str
    masks: str
    image_suffix: str
    mask_suffix: str


@dataclass
class Proposal:
    """What was seen, the keys that fit, and what could not be told.

    Attributes:
        seen: sentences.
        keys: keys of ``dataset`` and their values.
        unknown: sentences about what the user has to say.
    """

    seen: list[str] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def text(self, command: str) -> str:
        """Write it for a terminal."""
        words = ["dataset=folder"]
        for key, value in self.keys.items():
            text = {"None": "null", "True": "true"}.get(str(value), value)
            text = f"[{','.join(value)}]" if isinstance(value, list) else text
            words.append(shlex.quote(f"dataset.{key}={text}"))
        lines = ["", "What this folder looks like:", *(f"  {line}" for line in self.seen)]
        lines += ["Proposed:", f"  {command} {' '.join(words)}"]
        if self.unknown:
            lines += ["What could not be told:", *(f"  {line}" for line in self.unknown)]
        return "\n".join(lines)


def propose(root: Path, output: Path) -> Proposal:
    """Look at a folder and write a picture of some pairs, and class names where there are none.

    Args:
        root: the user's folder, which is only read.
        output: the folder that is written to. What is there already stays.

    Raises:
        DataError: no images and masks that belong together were found, or the output would become
            a part of the data.
    """
    if output.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{output} lies in the data's folder: give output=DIR elsewhere.")
    files = find_files(root, IMAGE_ENDINGS)
    is_mask = find_masks(files)
    labelled = [path for path in files if is_mask[group_of(path)]]
    images = [path for path in files if not is_mask[group_of(path)]]
    layout, pairs = find_layout(root, images, labelled)
    found = Proposal()
    found.seen.append(
        f"{len(files)} pictures: {len(images)} images and {len(labelled)} masks, of which "
        f"{len(pairs)} belong together by name; for instance {pairs[0][0].relative_to(root)} and "
        f"{pairs[0][1].relative_to(root)}."
    )
    usual = DatasetConfig()
    found.keys = {key: v for key, v in layout._asdict().items() if v != getattr(usual, key)}
    found.keys = {"root": str(root)} | found.keys
    _propose_splits(found, root, layout, pairs)
    step = max(len(pairs) // LOOKED_AT, 1)
    masks = [mask for _, mask in pairs[::step]]
    _propose_labels(found, root, masks, len(pairs), output)
    _draw(found, output)
    return found


def group_of(path: Path) -> tuple[Path, str, str]:
    """Return what files of one kind share: their folder, ending, and the words at their end."""
    return path.parent, path.suffix.lower(), suffix_of(path.stem)


def suffix_of(stem: str) -> str:
    """Return the last word of a name of several; it may have numbers inside, as leftImg8bit has."""
    found = re.search(r"(?<=[\w])[_\-. ][A-Za-z]+(\d+[A-Za-z]+)*$", stem)
    return found[0] if found else ""


def find_masks(files: list[Path]) -> dict[tuple[Path, str, str], bool]:
    """Tell for each group of files whether they look like masks: PNGs of few values."""
    groups: dict[tuple[Path, str, str], list[Path]] = {}
    for path in files:
        groups.setdefault(group_of(path), []).append(path)
    return {key: key[1] == ".png" and _look_like_masks(some) for key, some in groups.items()}


def _look_like_masks(files: list[Path]) -> bool:
    few = {_few_values(path) for path in files[:: len(files) // 3 + 1]}
    return False not in few and True in few


def _few_values(path: Path) -> bool | None:
    """Tell whether a picture has as few values as a mask; None where it is damaged."""
    try:
        values = read_colors(path)
        values = read_values(path) if values is None else values
    except DataError as error:
        return None if isinstance(error.__cause__, Exception) else False
    return len(np.unique(values)) <= MOST_LABELS


def find_layout(
    root: Path, images: list[Path], masks: list[Path]
) -> tuple[Layout, list[tuple[Path, Path]]]:
    """Find the layout that most masks agree with, and the pairs of it.

    Raises:
        DataError: no mask belongs to an image by its name.
    """
    by_stem: dict[str, list[Path]] = {}
    for path in images:
        for stem in {path.stem, path.stem.removesuffix(suffix_of(path.stem))}:
            by_stem.setdefault(stem, []).append(path)
    votes: dict[Layout, list[tuple[Path, Path]]] = {}
    for mask in masks:
        stems = [mask.stem[:end] for end in range(len(mask.stem), 0, -1)]
        stem = next((stem for stem in stems if stem in by_stem), "")
        for image in by_stem.get(stem, []):
            layout = _layout_of(image.relative_to(root), mask.relative_to(root), stem)
            if layout:
                votes.setdefault(layout, []).append((image, mask))
    if not votes:
        raise DataError(
            f"{root} has {len(images)} images and {len(masks)} pictures that look like masks (PNGs "
            f"of at most {MOST_LABELS} values), but none belong together by name."
        )
    return max(votes.items(), key=lambda item: len(item[1]))


def _layout_of(image: Path, mask: Path, stem: str) -> Layout | None:
    """Return the layout in which a mask is an image's; None where there is none."""
    ours, theirs = image.parent.parts, mask.parent.parts
    before = 0
    while before < min(len(ours), len(theirs)) and ours[before] == theirs[before]:
        before += 1
    after = 0
    while after < min(len(ours), len(theirs)) - before and ours[-1 - after] == theirs[-1 - after]:
        after += 1
    if ours == theirs:
        before = after = 0
    part = [parts[: len(parts) - after] if ours != theirs else () for parts in (ours, theirs)]
    folders = []
    for parts in part:
        names = [
            "{split}" if n < before and p in (*TRAIN, *VAL) else p for n, p in enumerate(parts)
        ]
        folders.append("/".join(names) or ".")
    suffixes = image.stem.removeprefix(stem), mask.stem.removeprefix(stem)
    if folders[0] == folders[1] and suffixes[0] == suffixes[1] and image.suffix.lower() == ".png":
        return None
    # Numbers inside a word belong to it; others are another image's.
    if any(re.search(r"\d(?!\d*[A-Za-z])", suffix) for suffix in suffixes):
        return None
    return Layout(folders[0], folders[1], *suffixes)


def _propose_splits(
    found: Proposal, root: Path, layout: Layout, pairs: list[tuple[Path, Path]]
) -> None:
    if "{split}" in layout.images:
        place = layout.images.split("/").index("{split}")
        names = Counter(image.relative_to(root).parts[place] for image, _ in pairs)
    else:
        depth = 0 if layout.images == "." else len(Path(layout.images).parts)
        names = Counter(
            image.relative_to(root).parts[depth]
            for image, _ in pairs
            if len(image.relative_to(root).parts) > depth + 1
        )
    train = next((name for name in TRAIN if names[name]), None)
    val = next((name for name in VAL if names[name]), None)
    if train and val:
        found.seen.append(f"Splits by folder: {', '.join(f'{n} ({c})' for n, c in names.items())}.")
        found.keys |= {"train_split": train} if train != "train" else {}
        found.keys |= {"val_split": val} if val != "val" else {}
        if val == "test":
            found.unknown.append(
                "Whether test may be validated on, which chooses the best checkpoint: "
                "dataset.val_split=null leaves it for the end."
            )
    elif all((root / f"{name}.txt").is_file() for name in ("train", "val")):
        found.seen.append("Splits by the lists train.txt and val.txt.")
    elif train:
        found.keys |= {"train_split": train, "val_split": None}
        found.unknown.append(f"There is no folder to validate on beside {train}.")
    else:
        found.keys["val_share"] = 0.1
        found.unknown.append(
            "No split was found: a tenth of the images is held out, whole folders or stretches."
        )


def _propose_labels(found: Proposal, root: Path, masks: list[Path], of: int, output: Path) -> None:
    colors: Counter[int] = Counter()
    numbers: Counter[int] = Counter()
    damaged = 0
    for mask in masks:
        try:
            packed = _colors_of(mask)
            stored = read_values(mask) if packed is None else packed
        except DataError:
            damaged += 1
            continue
        values, counts = np.unique(stored, return_counts=True)
        into = numbers if packed is None else colors
        into.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if not colors and not numbers:
        raise DataError(f"None of {len(masks)} masks can be read; the first is {masks[0]}.")
    _describe_labels(found, colors or numbers, bool(colors), len(masks) - damaged)
    if damaged:
        found.unknown.append(f"What {damaged} masks hold that cannot be read.")
    if colors and numbers:
        found.unknown.append("Some masks hold numbers; the proposal is for those with colours.")
    if len(masks) < of:
        found.unknown.append(f"Whether other masks hold more: {len(masks)} of {of} were looked at.")
    if known := _known_legend(root, colors, numbers):
        found.seen.append(f"Their classes are in {known}.")
        found.keys |= {"classes": known} if known != "classes.txt" else {}
    elif colors:
        lines = [f"class_{n} {_show(value, True)}" for n, value in enumerate(sorted(colors))]
        _write_classes(found, root, output, lines)
    else:
        _propose_numbers(found, set(numbers), root, output)


def _describe_labels(found: Proposal, what: Counter[int], colored: bool, masks: int) -> None:
    total = sum(what.values())
    shown = what.most_common(8)
    listed = ", ".join(f"{_show(value, colored)} ({count / total:.1%})" for value, count in shown)
    more = f" and {len(what) - len(shown)} more" if len(what) > len(shown) else ""
    kind = "colours" if colored else "numbers"
    found.seen.append(f"{len(what)} {kind} in {masks} masks: {listed}{more}.")


def _propose_numbers(found: Proposal, numbers: set[int], root: Path, output: Path) -> None:
    there = sorted(numbers - {IGNORE})
    if numbers <= {0, IGNORE}:
        found.keys["ids"] = ["0:background", "255:object"]
        found.unknown.append("Whether 0 is the background and 255 the object, as is proposed.")
        return
    if there[-1] > 254 or len(there) < (there[-1] + 1) / 2:
        found.keys["ids"] = [f"{n}:class_{n}" for n in there]
        found.unknown.append("The names of the classes; a number is left out as NUMBER:ignore.")
    else:
        first = 0 if 0 in numbers else 1
        lines = [f"class_{n}" for n in range(first, there[-1] + 1)]
        _write_classes(found, root, output, lines)
        found.keys |= {"reduce_zero_label": True} if first else {}
        found.unknown.append(
            "Whether 0 means unlabelled, as is proposed: no mask has it."
            if first
            else "Whether 0 is a class: if it is unlabelled, remove its line and add "
            "dataset.reduce_zero_label=true."
        )
    if IGNORE in numbers:
        found.seen.append("255 is left out.")


def _colors_of(mask: Path) -> np.ndarray | None:
    """Return the colours of a colour mask; None of one that stores numbers."""
    try:
        read_values(mask)
    except DataError:
        return read_colors(mask)
    return None


def _show(value: int, is_color: bool) -> str:
    return " ".join(str(value >> s & 255) for s in (16, 8, 0)) if is_color else str(value)


def _known_legend(root: Path, colors: Counter[int], numbers: Counter[int]) -> str | None:
    """Return the text file in the root that names all that the masks hold."""
    for path in sorted(root.glob("*.txt"), key=lambda path: path.name != "classes.txt"):
        try:
            legend = read_legend(path, [], IGNORE, False)
        except (DataError, ValueError):
            continue
        if colors and colors.keys() <= legend.colors.keys():
            return path.name
        legal = {n for n, train_id in enumerate(legend.ids.tolist()) if train_id >= 0}
        if not colors and path.name == "classes.txt" and numbers.keys() <= legal:
            return path.name
    return None


def _write_classes(found: Proposal, root: Path, output: Path, lines: list[str]) -> None:
    path = output / f"{root.resolve().name}-classes.txt"  # Several data sets may be looked at.
    if path.exists():
        found.seen.append(f"{path} was there, and stays as it is.")
    else:
        write_text(path, "\n".join(lines) + "\n")
    found.keys["classes"] = str(path)
    found.unknown.append(f"The names of the {len(lines)} classes: write them into {path}.")


def _draw(found: Proposal, output: Path) -> None:
    """Draw some pairs as the proposed keys read them."""
    cfg = DatasetConfig(name="folder", **found.keys)
    try:
        source = open_split(cfg, cfg.training_split)
    except DataError as error:
        found.unknown.append(f"This is not read so yet: {error}")
        return
    rows = []
    for index in spread(len(source), SHOWN):
        try:
            rows.append(PanelRow(source.image(index), source.mask(index), []))
        except DataError as error:
            found.unknown.append(f"This pair is not read so: {error}")
    if rows:
        save_png(output / "pairs.png", panel(rows, [], source.classes, source.palette))
        drawn = f"{len(rows)} are drawn in {output / 'pairs.png'}"
        found.seen.append(f"{len(source)} training pairs are read so; {drawn}.")
