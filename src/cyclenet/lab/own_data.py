"""Look at a strange folder of images and masks, and propose the keys of ``dataset`` that fit it."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import find_files
from cyclenet.data.images import IMAGE_ENDINGS, DataError, read_colors, read_values
from cyclenet.data.open import open_split
from cyclenet.lab.own_labels import Proposal, propose_labels
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
    (layout, pairs), *others = find_layouts(root, images, labelled)
    found = Proposal()
    found.seen.append(
        f"{len(files)} pictures: {len(images)} images and {len(labelled)} masks, of which "
        f"{len(pairs)} belong together by name; for instance {pairs[0][0].relative_to(root)} and "
        f"{pairs[0][1].relative_to(root)}."
    )
    usual = DatasetConfig()
    found.keys = {key: v for key, v in layout._asdict().items() if v != getattr(usual, key)}
    found.keys = {"root": str(root)} | found.keys
    for other, theirs in others:
        if len(theirs) == len(pairs) and other.images == layout.images:
            found.unknown.append(
                f"Which masks are meant: {other.masks}/*{other.mask_suffix}.png fit as well."
            )
    _propose_splits(found, root, layout, pairs)
    step = max(len(pairs) // LOOKED_AT, 1)
    masks = [mask for _, mask in pairs[::step]]
    propose_labels(found, root, masks, len(pairs), output)
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


def find_layouts(
    root: Path, images: list[Path], masks: list[Path]
) -> list[tuple[Layout, list[tuple[Path, Path]]]]:
    """Find the layouts that masks agree with, and their pairs; that of most masks comes first.

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
    return sorted(votes.items(), key=lambda item: -len(item[1]))


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
            "{split}" if n < before and p.casefold() in (*TRAIN, *VAL) else p
            for n, p in enumerate(parts)
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
    written = {name.casefold(): name for name in names}
    train = next((written[name] for name in TRAIN if name in written), None)
    val = next((written[name] for name in VAL if name in written), None)
    if train and val:
        found.seen.append(f"Splits by folder: {', '.join(f'{n} ({c})' for n, c in names.items())}.")
        found.keys |= {"train_split": train} if train != "train" else {}
        found.keys |= {"val_split": val} if val != "val" else {}
        if val.casefold() == "test":
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
