"""Draw the paper's figures of images, or measure over a split: the program of ``visualize``."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cyclenet.config.choices import FOLDER_KEYS
from cyclenet.config.commands import VisualizeConfig
from cyclenet.config.naming import arm_labels
from cyclenet.config.restore import PLACES
from cyclenet.data.images import DataError
from cyclenet.data.open import open_validation
from cyclenet.deploy.load import find, run_of
from cyclenet.deploy.model import Model
from cyclenet.files import safe_name, write_json, write_text
from cyclenet.lab.explain.analysis import TOPICS, analyse
from cyclenet.lab.explain.canvas import Point, save_formats
from cyclenet.lab.explain.features import Explained
from cyclenet.lab.explain.image_figures import Predicted, feedback_figure, figure3, offsets_figure
from cyclenet.lab.explain.inputs import EVERY_IMAGE, Input, find_inputs, open_models, read_points
from cyclenet.lab.explain.measure import edge_and_middle
from cyclenet.lab.explain.pixel_figures import (
    PixelMaps,
    figure4,
    grad_cam_figure,
    pixel_maps,
    probabilities_figure,
    receptive_field_figure,
    similarity_figure,
)
from cyclenet.lab.explain.split_figures import split_figures
from cyclenet.lab.explain.text import describe_analysis
from cyclenet.runs.results import data_root, describe_move, read_result
from cyclenet.scoring.boundary import label_distance
from cyclenet.seeding import derive
from cyclenet.training.keep import LAST

ROWS_OF_FIGURE4, COLUMNS_OF_FIGURE3 = 9, 4

SHOWN = ["name", "fold", "val_limit", "scenes_seed", "scenes_val", "scenes_size"]
SHOWN += [key for key in FOLDER_KEYS if key not in PLACES]
"""Keys of a data set that say which images it validates on, and what their masks mean."""

OF_A_PIXEL: dict[str, Callable[[Explained, int, int], Figure]] = {
    "similarity": similarity_figure,
    "gradcam": grad_cam_figure,
    "probabilities": probabilities_figure,
}
NEED_POINTS = {*OF_A_PIXEL, "receptive_field", "offsets", "figure4"}


def visualize(cfg: VisualizeConfig) -> int:
    """Draw what a configuration asks for, and return how many images could not be read.

    Raises:
        ValueError: the checkpoint, the images or the points cannot be used.
    """
    cfg = replace(cfg, ckpt_path=str(find(cfg.ckpt_path)))  # It may be a run folder.
    paths = (cfg.ckpt_path, *cfg.compare)
    models = open_models(paths, cfg.accelerator)
    output = run_of(cfg.ckpt_path) / "visualize"
    if cfg.image is None:
        output = Path(cfg.output or output / _analysis_name(cfg, models[0]))
        visualize_split(cfg, models[0], output)
        return 0
    return visualize_images(cfg, models, Path(cfg.output or output))


def _analysis_name(cfg: VisualizeConfig, model: Model) -> str:
    """Name the folder of an analysis; "" for the run's own, which reports read."""
    stored, here = (
        [str(getattr(each, key)) for key in SHOWN] for each in (model.cfg.dataset, cfg.dataset)
    )
    checkpoint, split = Path(cfg.ckpt_path), cfg.dataset.split_or_usual(cfg.split)
    usual = stored == here and split == model.cfg.dataset.validation_split and not cfg.what
    moved = describe_move(read_result(run_of(checkpoint)).data_root, cfg.dataset)
    if usual and checkpoint.name == Path(LAST).name and not moved:
        return ""
    number = derive(*here, data_root(cfg.dataset) or "", *sorted(cfg.what))
    return safe_name(f"{checkpoint.stem}-{cfg.dataset.name}-{split}-{number:08x}")


def visualize_split(cfg: VisualizeConfig, model: Model, output: Path) -> None:
    """Measure over a split: ``analysis.json``, ``analysis.md`` and a figure a topic.

    Raises:
        ValueError: a topic is not one of a split.
    """
    wrong = [name for name in cfg.what if name not in TOPICS]
    if wrong:
        raise ValueError(
            f"what={wrong[0]} is a figure of an image: give image=FILE, or one of "
            f"{', '.join(TOPICS)} for a whole split."
        )
    if cfg.compare:
        raise ValueError(
            "compare= is for what=figure3 of an image: give image=FILE, or leave it out."
        )
    source = open_validation(cfg.dataset, cfg.split)
    result = analyse(model, source, cfg.what or [topic for topic in TOPICS if _has(model, topic)])
    split, limit = cfg.dataset.split_or_usual(cfg.split), ""
    if cfg.dataset.val_limit:
        limit = f", the first {len(source)} images (dataset.val_limit)"
    result.dataset, result.split, result.checkpoint = cfg.dataset.name, split + limit, cfg.ckpt_path
    run = run_of(cfg.ckpt_path)
    if (run / "config.yaml").is_file():
        ended = read_result(run)
        result.finished_at = (ended.finished_at if ended.finished else None) or 0.0
    text = describe_analysis(result)
    text += f"\n{cfg.dataset.name}, {split}{limit}; {cfg.ckpt_path}\n"
    for name, figure in split_figures(result).items():
        save_formats(figure, output / f"analysis-{name}", cfg.formats)
    write_json(output / "analysis.json", result)
    write_text(output / "analysis.md", text)
    print(text)
    print(f"Written to {output}")


def _has(model: Model, topic: str) -> bool:
    """Tell whether a figure or a topic applies to a model."""
    return topic != "offsets" or model.net.decoder.aligns


def visualize_images(cfg: VisualizeConfig, models: list[Model], output: Path) -> int:
    """Draw the figures of each image; return how many images could not be read.

    Raises:
        ValueError: the images or the points cannot be used, or the model has no offsets.
    """
    model = models[0]
    if "offsets" in cfg.what and not _has(model, "offsets"):
        raise ValueError(
            f"what=offsets: {cfg.ckpt_path} has no ADC (model.decoder={model.cfg.model.decoder})."
        )
    usual = ["figure4", "similarity", "gradcam", "offsets", "receptive_field", "feedback"]
    usual += ["figure3"] if cfg.compare else []
    what = cfg.what or [name for name in usual if _has(model, name)]
    table = read_points(cfg)
    inputs = find_inputs(cfg, output, model.classes)
    missing = table.keys() - {each.name for each in inputs} - {EVERY_IMAGE}
    if missing:
        raise ValueError(
            f"{cfg.points} has points of {', '.join(sorted(missing))}, of which there is no image "
            f"in {cfg.image}."
        )
    # The page of a single image must not replace another's.
    pages = Pages(cfg, models, output, f"{inputs[0].name}/" if len(inputs) == 1 else "")
    failed = 0
    for each in inputs:
        try:
            image, truth = _read(each)
            seen = Explained(model, image)
            points = _points_of(seen, truth, each.name, table)
        except ValueError as error:
            print(f"error: {each.name}: {error}", file=sys.stderr)
            failed += 1
            continue
        if not points and set(what) & NEED_POINTS:
            print(f"{each.name}: no points, so only what needs none.", file=sys.stderr)
        for name, figure in _draw(seen, truth, points, what):
            pages.save(figure, f"{each.name}/{name}")
        pages.add(seen, truth, points, what)
    pages.finish()
    return failed


def _read(each: Input) -> tuple[np.ndarray, np.ndarray | None]:
    image, truth = each.image(), each.truth()
    if truth is not None and truth.shape != image.shape[:2]:
        raise DataError("its mask is not of its size.")
    return image, truth


def _points_of(
    seen: Explained, truth: np.ndarray | None, name: str, table: dict[str, list[Point]]
) -> list[Point]:
    """Return the user's points of an image, or two that are chosen by its truth or prediction."""
    if table:
        points = table.get(name, table.get(EVERY_IMAGE, []))
    else:
        labels = seen.labels[-1] if truth is None else truth
        points = list(edge_and_middle(labels, label_distance(labels), name).values())
    for x, y in points:
        seen.cell(x, y, seen.size)
    return points


def _draw(
    seen: Explained, truth: np.ndarray | None, points: list[Point], what: list[str]
) -> list[tuple[str, Figure]]:
    """Draw the figures of one image that need no other image."""
    figures = [
        (f"{name}-{x}-{y}", draw(seen, x, y))
        for x, y in points
        for name, draw in OF_A_PIXEL.items()
        if name in what
    ]
    if "offsets" in what:
        figures.append(("offsets", offsets_figure(seen, points)))
    if "receptive_field" in what and points:
        figures.append(("receptive_field", receptive_field_figure(seen, points, truth)))
    if "feedback" in what:
        figures.append(("feedback", feedback_figure(seen, truth)))
    return figures


class Pages:
    """Figures that hold several images; a page is saved as soon as it is full.

    So a folder's images are never all held.
    """

    def __init__(
        self, cfg: VisualizeConfig, models: list[Model], output: Path, prefix: str
    ) -> None:
        self.cfg, self.models, self.output, self.prefix = cfg, models, output, prefix
        self.fourth: list[PixelMaps] = []
        self.third: list[Predicted] = []
        self.drawn = {"figure3": 0, "figure4": 0}

    def save(self, figure: Figure, name: str) -> None:
        """Save a figure in all formats and print the files."""
        print(*save_formats(figure, self.output / name, self.cfg.formats))

    def add(
        self, seen: Explained, truth: np.ndarray | None, points: list[Point], what: list[str]
    ) -> None:
        """Add an image to Fig. 4 and Fig. 3, if they are asked for."""
        if "figure4" in what:
            self.fourth += [pixel_maps(seen, x, y) for x, y in points]
        if "figure3" in what:
            # Each checkpoint predicts by its own protocol, as it would be reported.
            labels = [model.labels(seen.tensor)[0].cpu().numpy() for model in self.models]
            self.third.append(Predicted(seen.image, truth, labels))
        while len(self.fourth) >= ROWS_OF_FIGURE4:
            self._save_fourth()
        while len(self.third) >= COLUMNS_OF_FIGURE3:
            self._save_third()

    def finish(self) -> None:
        """Save the pages that are not full; remove those of more images, drawn earlier."""
        if self.fourth:
            self._save_fourth()
        if self.third:
            self._save_third()
        for kind, drawn in self.drawn.items():
            for form in self.cfg.formats if drawn else ():
                number = drawn + 1
                while (path := self.output / f"{self.prefix}{kind}-{number}.{form}").is_file():
                    path.unlink()
                    number += 1

    def _save_fourth(self) -> None:
        rows, self.fourth = self.fourth[:ROWS_OF_FIGURE4], self.fourth[ROWS_OF_FIGURE4:]
        self._save_page("figure4", figure4(rows))

    def _save_third(self) -> None:
        columns, self.third = self.third[:COLUMNS_OF_FIGURE3], self.third[COLUMNS_OF_FIGURE3:]
        model = self.models[0]
        titles = arm_labels([each.cfg.model for each in self.models])
        palette = np.array(model.palette, np.uint8)
        self._save_page("figure3", figure3(columns, titles, model.classes, palette))

    def _save_page(self, kind: str, figure: Figure) -> None:
        self.drawn[kind] += 1
        self.save(figure, f"{self.prefix}{kind}-{self.drawn[kind]}")
