"""The networks, the images and the points that ``visualize`` and ``explore`` show."""

import csv
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cyclenet.config.commands import VisualizeConfig
from cyclenet.data.base import Source, find_files, name_files
from cyclenet.data.images import IMAGE_ENDINGS, DataError, read_image
from cyclenet.data.open import open_split
from cyclenet.deploy.load import find_weights, load
from cyclenet.deploy.model import Model
from cyclenet.lab.explain.canvas import Point

EVERY_IMAGE = ""  # Key of the points that belong to all images.


class Input(NamedTuple):
    """An image: its name, and how to read it and its truth, if it has one."""

    name: str
    image: Callable[[], np.ndarray]
    truth: Callable[[], np.ndarray | None]


def open_models(paths: Sequence[str | Path], device: str) -> list[Model]:
    """Return the trained networks of checkpoints, which must know the same classes.

    Raises:
        ValueError: one is missing, damaged, or not of this project; it is an ONNX file, whose
            features cannot be seen; or its classes are not those of the first.
    """
    models: list[Model] = []
    for path in paths:
        model = load(find_weights(path), device=device)
        if models and model.classes != models[0].classes:
            raise ValueError(f"{path} was trained on other classes than {paths[0]}.")
        models.append(model)
    return models


def bare_name(name: str) -> str:
    """Return an image's name without its ending."""
    path = Path(name)
    known = path.suffix.lower() in IMAGE_ENDINGS
    return path.with_suffix("").as_posix() if known else path.as_posix()


def read_points(cfg: VisualizeConfig) -> dict[str, list[Point]]:
    """Return the points of each image by its name; `EVERY_IMAGE` holds those of all.

    Raises:
        ValueError: they are not whole numbers, or the file has not the columns.
    """
    if cfg.points:
        return _read_table(Path(cfg.points))
    if not cfg.point:
        return {}
    try:
        pairs = [[int(number) for number in part.split(",")] for part in cfg.point.split("/")]
        return {EVERY_IMAGE: [(x, y) for x, y in pairs]}
    except ValueError:
        raise ValueError(
            f"point must be x,y in whole pixels, several as 10,20/30,40; got {cfg.point!r}."
        ) from None


def _read_table(path: Path) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                points = found.setdefault(bare_name(row["image"]), [])
                points.append((int(row["x"]), int(row["y"])))
    except OSError as error:
        raise ValueError(f"points: {path} cannot be read ({error.strerror}).") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"points: {path} must have the columns image, x, y, whole pixels; found {error}."
        ) from error
    return found


def find_inputs(cfg: VisualizeConfig, output: Path, classes: list[str]) -> list[Input]:
    """Return the images that ``cfg.image`` names, with the truth where the data set has it.

    Raises:
        ValueError: there is neither such a file nor an image of that name in the split.
    """
    assert cfg.image is not None
    split = cfg.dataset.split_or_usual(cfg.split)
    source, problem = None, ""
    try:
        source = open_split(cfg.dataset, split)
    except DataError as error:
        problem = str(error)
    same = source is not None and source.classes == classes
    if source is not None and not same:
        print(
            f"{cfg.dataset.name} has other classes than the checkpoint: its masks are not used.",
            file=sys.stderr,
        )
    path = Path(cfg.image)
    if path.exists():
        return _inputs_of_files(path, output, source if same else None)
    if source is not None:
        inputs = inputs_of_split(source, classes)
        if found := [each for each in inputs if each.name == cfg.image]:
            return found[:1]
        problem = f"{cfg.dataset.name} {split} has images such as {inputs[0].name}"
    raise ValueError(f"image: there is no file {cfg.image}, and no image of that name ({problem}).")


def _inputs_of_files(path: Path, output: Path, source: Source | None) -> list[Input]:
    found = find_files(path, IMAGE_ENDINGS) if path.is_dir() else [path]
    made = output.resolve()
    # An output of "." holds the images themselves.
    inside = path.resolve().is_relative_to(made)
    files = [file for file in found if inside or not file.resolve().is_relative_to(made)]
    if not files:
        endings = " ".join(sorted(IMAGE_ENDINGS))
        raise ValueError(f"image: {path} holds no images ({endings}).")
    pairs = source.pairs if source else []
    known = {pair.image.resolve(): index for index, pair in enumerate(pairs)}
    root = path if path.is_dir() else path.parent
    inputs = []
    for name, file in zip(name_files(files, root), files, strict=True):
        index = known.get(file.resolve())
        truth: Callable[[], np.ndarray | None] = no_truth
        if source is not None and index is not None:
            truth = partial(source.mask, index)
        inputs.append(Input(name, partial(read_image, file), truth))
    return inputs


def inputs_of_split(source: Source, classes: list[str]) -> list[Input]:
    """Return the images of a split, with their truth where the classes are those of the network."""
    known = source.classes == classes
    return [
        Input(
            source.name(index),
            partial(source.image, index),
            partial(source.mask, index) if known else no_truth,
        )
        for index in range(len(source))
    ]


def no_truth() -> np.ndarray | None:
    """Stand for the truth of an image that has none."""
    return None
