"""Show why a trained network predicts what it does: the paper's figures, for images or in numbers over a split."""

import csv
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cyclenet.commands.cli import compose_config, parse_overrides, store_checkpoint_defaults, user_errors
from cyclenet.config import VisualizeConfig

USAGE = """
python src/visualize.py ckpt_path=FILE image=IMAGE|FOLDER|NAME [point=X,Y] [what=FIGURE,FIGURE] [KEY=VALUE ...]
python src/visualize.py ckpt_path=FILE [what=TOPIC,TOPIC]                          over the whole validation split

  image          a file, a folder, or the name of an image of the split; its truth is used if it is one of the data set's
  point          a pixel, from the left upper corner; several: point=120,200/300,40 (default: one in an object's middle, one
                 near an edge); points=FILE.csv (columns image, x, y) for a folder
  what           figure4          image, similarity and Grad-CAM in PartI and PartII, a row a pixel
                 similarity       cosine similarity to the pixel's feature, in each part and atrous layer
                 gradcam          class activation of the pixel's score, in each part
                 offsets          where ADC samples, how far it moves, modulation, features before and after
                 receptive_field  effective receptive field, in each part (takes the memory of a training step)
                 probabilities    of the classes at the pixel, in each part
                 feedback         prediction and errors of each part, and what changed
                 figure3          image, truth, predictions, with compare=FILE,FILE: other checkpoints' too
                 (of a split: feedback, similarity, offsets, receptive_field; analysis.json and analysis.md have the numbers)
  dataset, split where the truth is looked for (default: the checkpoint's validation split); dataset.root, dataset.val_limit
  formats        png,pdf,svg (default: png,pdf)
  output         folder (default: visualize/ in the run folder)
"""

ROWS, COLUMNS = 9, 4  # Of a figure4 and of a figure3.
AT_A_POINT = ("similarity", "gradcam", "receptive_field", "offsets", "probabilities")


def main() -> None:
    """Draw all that can be drawn; exit with 1 if something could not."""
    words = parse_overrides(USAGE, lists=("what", "compare", "formats"))
    with user_errors():
        store_checkpoint_defaults(VisualizeConfig, words)
        cfg: VisualizeConfig = compose_config("visualize", VisualizeConfig, words)
        failed = visualize(cfg)
    raise SystemExit(1 if failed else 0)


def visualize(cfg: VisualizeConfig) -> int:
    """Draw what a configuration asks for, and return how many images could not be.

    Raises:
        ValueError: the checkpoint, the images or the points cannot be used.
    """
    from cyclenet.training.checkpoint import load_checkpoint, load_task, run_of
    from cyclenet.training.trainer import choose_device

    device = choose_device(cfg.accelerator)
    tasks = [load_task(load_checkpoint(path)).to(device) for path in (cfg.ckpt_path, *cfg.compare)]
    if any(task.classes != tasks[0].classes for task in tasks):
        raise ValueError("The checkpoints of compare= were trained on other classes than the first.")
    output = Path(cfg.output) if cfg.output else run_of(cfg.ckpt_path) / "visualize"
    if cfg.image is None:
        over_split(cfg, tasks[0], output)
        return 0
    return over_images(cfg, tasks, output)


def over_split(cfg: VisualizeConfig, task: Any, output: Path) -> None:
    """Measure over a split: ``analysis.json``, ``analysis.md`` and a figure a topic."""
    from cyclenet.data.base import build_source
    from cyclenet.data.datamodule import Limited
    from cyclenet.lab.explain import figures
    from cyclenet.lab.explain.analysis import TOPICS, analyse, describe
    from cyclenet.models.decoder import ADC

    wrong = [name for name in cfg.what if name not in TOPICS]
    if wrong:
        raise ValueError(f"what={wrong[0]} is of an image: give image=FILE, or one of {', '.join(TOPICS)} for a whole split.")
    split = cfg.split or cfg.dataset.val_split
    source = build_source(cfg.dataset, split)
    if cfg.dataset.val_limit:
        source = Limited(source, cfg.dataset.val_limit)
    if cfg.compare:
        raise ValueError("compare= is for what=figure3 of an image: give image=FILE, or leave it out.")
    has_adc = isinstance(task.net.decoder, ADC)
    result = analyse(task, source, cfg.what or [topic for topic in TOPICS if topic != "offsets" or has_adc])
    limited = f", the first {len(source)} images (dataset.val_limit)" if cfg.dataset.val_limit else ""
    result |= {"dataset": cfg.dataset.name, "split": split + limited, "checkpoint": cfg.ckpt_path}
    text = describe(result) + f"\n{cfg.dataset.name}, {split}{limited}; {cfg.ckpt_path}\n"
    for name, figure in figures.analysis(result).items():
        figures.save(figure, output / f"analysis-{name}", cfg.formats)
    output.mkdir(parents=True, exist_ok=True)
    (output / "analysis.json").write_text(json.dumps(result, indent=1, allow_nan=False))
    (output / "analysis.md").write_text(text)
    print(text)
    print(f"Written to {output}")


def over_images(cfg: VisualizeConfig, tasks: list[Any], output: Path) -> int:
    """Draw the figures of each image; return how many images could not be read."""
    from cyclenet.data.images import DataError
    from cyclenet.lab.explain import figures
    from cyclenet.lab.explain.features import Explained
    from cyclenet.lab.paper import tell_apart
    from cyclenet.models.decoder import ADC

    task = tasks[0]
    has_adc = isinstance(task.net.decoder, ADC)
    if "offsets" in cfg.what and not has_adc:
        raise ValueError(f"what=offsets: {cfg.ckpt_path} has no ADC (model.decoder={task.cfg.model.decoder}).")
    default = ["figure4", "similarity", "gradcam", *(["offsets"] if has_adc else []), "receptive_field", "feedback"]
    what = cfg.what or default + (["figure3"] if cfg.compare else [])
    table = read_points(cfg)
    inputs = find_images(cfg, output, task.classes)
    if missing := table.keys() - {name for name, *_ in inputs} - {""}:
        raise ValueError(f"{cfg.points} has points of {', '.join(sorted(missing))}, of which there is no image in {cfg.image}.")
    names, palette = tell_apart([each.cfg.model for each in tasks]), np.array(task.palette, np.uint8)
    fourth: list[figures.PixelMaps] = []
    third: list[tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]] = []
    drawn = {"figure3": 0, "figure4": 0}
    failed = 0

    def write(figure: Any, name: str) -> None:
        print(*figures.save(figure, output / name, cfg.formats))

    def write_rows(last: bool) -> None:
        # As soon as a page is full: of a folder, not all images are held.
        for kind, rows, most in (("figure4", fourth, ROWS), ("figure3", third, COLUMNS)):
            while len(rows) >= most or (last and rows):
                drawn[kind] += 1
                page: Any = rows[:most]
                figure = figures.figure4(page) if kind == "figure4" else figures.figure3(page, names, task.classes, palette)
                write(figure, f"{kind}-{drawn[kind]}")
                del rows[:most]

    for name, read, read_truth in inputs:
        try:
            image, truth = read(), read_truth()
            if truth is not None and truth.shape != image.shape[:2]:
                raise DataError("its mask is not of its size.")
            seen = Explained(task, image)
            points = table.get(name, table.get("", [])) if table else automatic_points(seen, truth, name)
            for x, y in points:
                seen.cell(x, y, seen.size)
        except ValueError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            failed += 1
            continue
        if not points and set(what) & {*AT_A_POINT, "figure4"}:
            print(f"{name}: no points, so only what needs none.", file=sys.stderr)
        for x, y in points:
            if "similarity" in what:
                write(figures.similarity(seen, x, y), f"{name}/similarity-{x}-{y}")
            if "gradcam" in what:
                write(figures.grad_cam(seen, x, y), f"{name}/gradcam-{x}-{y}")
            if "probabilities" in what:
                write(figures.probabilities(seen, x, y), f"{name}/probabilities-{x}-{y}")
        if "offsets" in what:
            write(figures.offsets(seen, points), f"{name}/offsets")
        if "receptive_field" in what and points:
            write(figures.receptive_field(seen, points, truth), f"{name}/receptive_field")
        if "feedback" in what:
            write(figures.feedback(seen, truth), f"{name}/feedback")
        if "figure4" in what:
            fourth += [figures.pixel_maps(seen, x, y) for x, y in points]
        if "figure3" in what:
            # By each checkpoint's own protocol, as it would be reported.
            third.append((image, truth, [each.predict(seen.tensor)[0].cpu().numpy() for each in tasks]))
        write_rows(last=False)
    write_rows(last=True)
    return failed


def bare(name: str) -> str:
    """Return an image's name without its ending."""
    from cyclenet.data.images import ENDINGS

    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in ENDINGS else path.as_posix()


def read_points(cfg: VisualizeConfig) -> dict[str, list[tuple[int, int]]]:
    """Return the points of each image by its name; of all images under "". Empty if none are given.

    Raises:
        ValueError: they are not whole numbers, or the file has not the columns.
    """
    if cfg.points:
        try:
            with Path(cfg.points).open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
            found: dict[str, list[tuple[int, int]]] = {}
            for row in rows:
                found.setdefault(bare(row["image"]), []).append((int(row["x"]), int(row["y"])))
            return found
        except OSError as error:
            raise ValueError(f"points: {cfg.points} cannot be read ({error.strerror}).") from error
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"points: {cfg.points} must have the columns image, x, y, whole pixels; found {error}.") from error
    if not cfg.point:
        return {}
    try:
        pairs = [tuple(int(number) for number in part.split(",")) for part in cfg.point.split("/")]
        return {"": [(x, y) for x, y in pairs]}
    except ValueError:
        raise ValueError(f"point must be x,y in whole pixels, several as 10,20/30,40; got {cfg.point!r}.") from None


def find_images(cfg: VisualizeConfig, output: Path, classes: list[str]) -> list[tuple[str, Any, Any]]:
    """Return (name, function that reads the image, function that reads its truth or returns None) of each image.

    Raises:
        ValueError: there is neither such a file nor an image of that name in the split.
    """
    from cyclenet.data.base import FolderSource, build_source
    from cyclenet.data.images import ENDINGS, DataError, read_image

    assert cfg.image is not None
    split = cfg.split or cfg.dataset.val_split
    source, problem = None, ""
    try:
        source = build_source(cfg.dataset, split)
    except DataError as error:
        problem = str(error)
    same = source is not None and source.classes == classes
    if source is not None and not same:
        print(f"{cfg.dataset.name} has other classes than the checkpoint: its masks are not used.", file=sys.stderr)

    def truth_of(index: int | None) -> Any:
        return partial(source.mask, index) if source is not None and same and index is not None else lambda: None

    path = Path(cfg.image)
    if path.exists():
        found = path.rglob("*") if path.is_dir() else [path]
        files = sorted(f for f in found if f.suffix.lower() in ENDINGS and not f.resolve().is_relative_to(output.resolve()))
        if not files:
            raise ValueError(f"image: {path} holds no images ({' '.join(sorted(ENDINGS))}).")
        pairs = source.pairs if isinstance(source, FolderSource) else []
        known = {pair.image.resolve(): index for index, pair in enumerate(pairs)}
        root = path if path.is_dir() else path.parent
        names = [bare(str(file.relative_to(root))) for file in files]
        if len(set(names)) < len(names):  # a.jpg and a.png
            names = [file.relative_to(root).as_posix() for file in files]
        truths = [truth_of(known.get(file.resolve())) for file in files]
        return list(zip(names, [partial(read_image, file) for file in files], truths, strict=True))
    if source is not None:
        names = [source.name(index) for index in range(len(source))]
        if cfg.image in names:
            index = names.index(cfg.image)
            return [(cfg.image, partial(source.image, index), truth_of(index))]
        problem = f"{cfg.dataset.name} {split} has images as {names[0]}"
    raise ValueError(f"image: there is no file {cfg.image}, and no image of that name ({problem}).")


def automatic_points(seen: Any, truth: np.ndarray | None, name: str) -> list[tuple[int, int]]:
    """Choose a pixel in the middle of an object, and one near an edge, by the truth or else by the prediction."""
    from cyclenet.lab.explain.analysis import edge_and_middle
    from cyclenet.scoring.boundary import label_distance

    labels = seen.labels[-1] if truth is None else truth
    return list(edge_and_middle(labels, label_distance(labels), name).values())


if __name__ == "__main__":
    main()
