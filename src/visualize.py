"""Show why a trained network predicts what it does: the paper's figures, for images or in numbers over a split."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cyclenet.cli import compose_config, parse_overrides, store_checkpoint_defaults, user_errors
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
                 receptive_field  effective receptive field, in each part
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
    words = [_quoted(word) for word in parse_overrides(USAGE)]
    with user_errors():
        store_checkpoint_defaults(VisualizeConfig, words)
        cfg: VisualizeConfig = compose_config("visualize", VisualizeConfig, words)
        failed = visualize(cfg)
    raise SystemExit(1 if failed else 0)


def _quoted(word: str) -> str:
    # As the usage has it, what=a,b is one value; to Hydra a comma means a sweep.
    key, equals, value = word.partition("=")
    if not equals or value[:1] in ("[", "'", '"') or value == "null":
        return word
    if key in ("what", "compare", "formats"):
        return f"{key}=[{','.join(repr(part) for part in value.split(','))}]"
    return f"{key}={value!r}" if key in ("point", "image", "points") else word


def visualize(cfg: VisualizeConfig) -> int:
    """Draw what a configuration asks for, and return how many images could not be.

    Raises:
        ValueError: the checkpoint, the images or the points cannot be used.
    """
    from cyclenet.checkpoint import load_checkpoint, load_task, run_of
    from cyclenet.engine import choose_device

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
    from cyclenet import figures
    from cyclenet.analysis import TOPICS, analyse, describe
    from cyclenet.data.datamodule import Limited
    from cyclenet.data.source import build_source

    wrong = [name for name in cfg.what if name not in TOPICS]
    if wrong:
        raise ValueError(f"what={wrong[0]} is of an image: give image=FILE, or one of {', '.join(TOPICS)} for a whole split.")
    split = cfg.split or cfg.dataset.val_split
    source = build_source(cfg.dataset, split)
    if cfg.dataset.val_limit:
        source = Limited(source, cfg.dataset.val_limit)
    result = analyse(task, source, cfg.what or list(TOPICS))
    result |= {"dataset": cfg.dataset.name, "split": split, "checkpoint": cfg.ckpt_path}
    text = describe(result)
    for name, figure in figures.analysis(result).items():
        figures.save(figure, output / f"analysis-{name}", cfg.formats)
    output.mkdir(parents=True, exist_ok=True)
    (output / "analysis.json").write_text(json.dumps(result, indent=1))
    (output / "analysis.md").write_text(text)
    print(text)
    print(f"Written to {output}")


def over_images(cfg: VisualizeConfig, tasks: list[Any], output: Path) -> int:
    """Draw the figures of each image; return how many images could not be read."""
    from cyclenet import figures
    from cyclenet.data.images import DataError
    from cyclenet.explain import Explained
    from cyclenet.models.decoder import ADC
    from cyclenet.paper import tell_apart

    task = tasks[0]
    has_adc = isinstance(task.net.decoder, ADC)
    if "offsets" in cfg.what and not has_adc:
        raise ValueError(f"what=offsets: {cfg.ckpt_path} has no ADC (model.decoder={task.cfg.model.decoder}).")
    default = ["figure4", "similarity", "gradcam", *(["offsets"] if has_adc else []), "receptive_field", "feedback"]
    what = cfg.what or default + (["figure3"] if cfg.compare else [])
    table = read_points(cfg)
    inputs = find_images(cfg)
    if missing := table.keys() - {name for name, *_ in inputs} - {""}:
        raise ValueError(f"{cfg.points} has points of {', '.join(sorted(missing))}, of which there is no image in {cfg.image}.")
    fourth: list[tuple[Any, int, int]] = []
    third: list[tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]] = []
    failed = 0

    def write(figure: Any, name: str) -> None:
        print(*figures.save(figure, output / name, cfg.formats))

    for name, read, read_truth in inputs:
        try:
            image, truth = read(), read_truth()
            if truth is not None and truth.shape != image.shape[:2]:
                raise DataError(f"The mask of {name} is not of its size.")
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
            fourth += [(seen, x, y) for x, y in points]
        if "figure3" in what:
            third.append((image, truth, [seen.labels(), *(Explained(other, image).labels() for other in tasks[1:])]))
    for number, start in enumerate(range(0, len(fourth), ROWS), 1):
        write(figures.figure4(fourth[start : start + ROWS]), f"figure4-{number}")
    names = tell_apart([each.cfg.model for each in tasks])
    palette = np.array(task.palette, np.uint8)
    for number, start in enumerate(range(0, len(third), COLUMNS), 1):
        write(figures.figure3(third[start : start + COLUMNS], names, task.classes, palette), f"figure3-{number}")
    return failed


def read_points(cfg: VisualizeConfig) -> dict[str, list[tuple[int, int]]]:
    """Return the points of each image by its name; of all images under "". Empty if none are given.

    Raises:
        ValueError: they are not whole numbers, or the file has not the columns.
    """
    if cfg.points:
        try:
            with Path(cfg.points).open(newline="") as file:
                rows = list(csv.DictReader(file))
            found: dict[str, list[tuple[int, int]]] = {}
            for row in rows:
                found.setdefault(Path(row["image"]).stem, []).append((int(row["x"]), int(row["y"])))
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


def find_images(cfg: VisualizeConfig) -> list[tuple[str, Any, Any]]:
    """Return (name, function that reads the image, function that reads its truth or returns None) of each image.

    Raises:
        ValueError: there is neither such a file nor an image of that name in the split.
    """
    from cyclenet.data.images import ENDINGS, DataError, read_image
    from cyclenet.data.source import FolderSource, build_source

    assert cfg.image is not None
    split = cfg.split or cfg.dataset.val_split
    source, problem = None, ""
    try:
        source = build_source(cfg.dataset, split)
    except DataError as error:
        problem = str(error)
    path = Path(cfg.image)
    if path.exists():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"image: {path} holds no images ({' '.join(sorted(ENDINGS))}).")
        pairs = source.pairs if isinstance(source, FolderSource) else []
        known = {pair.image.resolve(): index for index, pair in enumerate(pairs)}
        found = []
        for file in files:
            index = known.get(file.resolve())
            truth = (lambda: None) if index is None or source is None else (lambda i=index: source.mask(i))
            found.append((file.stem, lambda file=file: read_image(file), truth))
        return found
    if source is not None:
        names = [source.name(index) for index in range(len(source))]
        if cfg.image in names:
            index = names.index(cfg.image)
            return [(Path(cfg.image).name, lambda: source.image(index), lambda: source.mask(index))]
        problem = f"{cfg.dataset.name} {split} has images as {names[0]}"
    raise ValueError(f"image: there is no file {cfg.image}, and no image of that name ({problem}).")


def automatic_points(seen: Any, truth: np.ndarray | None, name: str) -> list[tuple[int, int]]:
    """Choose a pixel in the middle of an object, and one near an edge, by the truth or else by the prediction."""
    from cyclenet.analysis import edge_and_middle
    from cyclenet.boundary import label_distance

    labels = seen.labels() if truth is None else truth
    return list(edge_and_middle(labels, label_distance(labels), name).values())


if __name__ == "__main__":
    main()
