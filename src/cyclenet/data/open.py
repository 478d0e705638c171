"""From ``dataset.name`` to an opened split."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from cyclenet.config.choices import DATASETS
from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import FolderSource, Limited, Pair, Source
from cyclenet.data.images import DataError


def find_root(cfg: DatasetConfig) -> Path:
    """Return the data's folder: ``dataset.root``, else ``$<NAME>_ROOT``, else ``data/<name>``.

    Raises:
        DataError: it does not exist, and is not to be downloaded.
    """
    choice, variable = DATASETS[cfg.name], f"{cfg.name.upper()}_ROOT"
    root = Path(cfg.root or os.environ.get(variable) or Path("data") / cfg.name)
    if "root" in choice.keys and not cfg.download and not root.is_dir():
        raise DataError(
            f"There is no folder {root}: set dataset.root or ${variable}, or {choice.how_to_get}."
        )
    return root


def open_split(cfg: DatasetConfig, split: str) -> Source:
    """Open a split of the data set that ``cfg.name`` names, or several as ``train+val``.

    It is fetched first if ``dataset.download`` asks for it.

    Raises:
        DataError: it is missing, empty, or could not be fetched.
    """
    choice = DATASETS[cfg.name]
    arguments = choice.arguments(cfg)
    if "root" in choice.keys:
        arguments["root"] = find_root(cfg)
        if cfg.download:
            from cyclenet.data.download import download

            download(cfg.name, arguments["root"])
    sources: list[Source] = [choice.load()(name, **arguments) for name in split.split("+")]
    source = sources[0]
    if isinstance(source, FolderSource):
        parts = [part for part in sources if isinstance(part, FolderSource)]
        names = [pair.name for part in parts for pair in part.pairs]
        if len(set(names)) < len(names):  # Names must be unique.
            for name, part in zip(split.split("+"), parts, strict=True):
                part.pairs = [pair._replace(name=f"{name}/{pair.name}") for pair in part.pairs]
        source.pairs = [pair for part in parts for pair in part.pairs]
        if len(parts) > 1:
            _refuse_twice(source.pairs, split)
        source.masks = [mask for part in parts for mask in part.masks]
    elif len(sources) > 1:
        raise DataError(f"{cfg.name} has no files, so its splits cannot be joined: give one split.")
    return source


def _refuse_twice(pairs: list[Pair], split: str) -> None:
    """Raise `DataError` where an image is in two of the splits that are joined."""
    files = Counter(pair.image.resolve() for pair in pairs)
    if twice := [path for path, times in files.items() if times > 1]:
        raise DataError(
            f"{twice[0]} is in two splits of {split}, so it would count twice: leave it in one."
        )


def open_validation(cfg: DatasetConfig, split: str | None = None) -> Source:
    """Open a split for evaluation: the validation split unless another is given, cut to its limit.

    Raises:
        DataError: as `open_split`.
    """
    source = open_split(cfg, cfg.split_or_usual(split))
    return Limited(source, cfg.val_limit) if cfg.val_limit else source


def count_shared(source: Source, trained: Source) -> int:
    """Count the images of a split that a training split has, too."""
    seen = set(_images(trained))
    return sum(image in seen for image in _images(source))


def _images(source: Source) -> list[Any]:
    """Return what images are told apart by: their files, or what they are drawn from."""
    if source.pairs:
        return [pair.image.resolve() for pair in source.pairs]
    try:
        return [tuple(source.stamp(index)) for index in range(len(source))]
    except ValueError:  # A source that someone added may have no stamps.
        return []


def check_classes(source: Source, classes: list[str], dataset: str, checkpoint: str) -> None:
    """Raise `ValueError` where a checkpoint was trained on other classes than a data set has."""
    if source.classes != classes:
        raise ValueError(
            f"{checkpoint} was trained on other classes than {dataset} has; "
            "choose its own data set."
        )
