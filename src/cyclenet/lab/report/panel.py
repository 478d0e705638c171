"""The report's panel: images on which the arms differ most, as each arm predicts them."""

from pathlib import Path

import numpy as np

from cyclenet.data.open import open_validation
from cyclenet.deploy.load import load
from cyclenet.lab.markdown import plain
from cyclenet.lab.report.arms import Arm
from cyclenet.lab.report.compare import comparable
from cyclenet.plots.pictures import PanelRow, disagreement, panel, save_png
from cyclenet.training.keep import LAST

COLUMN_WIDTH = 360


def describe_panel(arms: list[Arm], output: Path, count: int) -> str:
    """Predict images on which the arms' pixel accuracies differ most, with each first seed."""
    runs = [arm.runs[0] for arm in arms]
    evaluations = [next(iter(run.evaluations.values())) for run in runs]
    if count < 1:
        return "The panel was left out."
    if not comparable(evaluations[:1], evaluations[1:]):
        return "The panel was left out: the arms were evaluated on different images."
    pixels = np.stack([e.counts["pixels"].sum(1) for e in evaluations])  # (arms, images, 3)
    accuracy = pixels[..., 0] / np.maximum(pixels[..., 1], 1)
    chosen = _choose(np.ptp(accuracy, 0), count)
    try:
        models = [load(run.folder / LAST, device="cpu") for run in runs]
        source = open_validation(runs[0].config.dataset)
        names = [source.name(index) for index in range(len(source))]
        if names != list(evaluations[0].counts.get("names", names)):
            raise ValueError("The split has other images now than the evaluations had.")
        rows = []
        for index in chosen:
            image, truth = source.image(index), source.mask(index)
            predictions = [model.predict(image).labels for model in models]
            rows.append(PanelRow(image, truth, predictions, disagreement(predictions, truth)))
    except (ValueError, OSError, RuntimeError) as error:
        return f"The panel was left out: {plain(str(error))}"
    titles = [arm.label for arm in arms]
    picture = panel(rows, titles, source.classes, source.palette, COLUMN_WIDTH)
    save_png(output / "panel.png", picture)
    shown = plain(", ".join(names[index] for index in chosen))
    return (
        f"These are the images of each part of the split on which the arms' pixel accuracies "
        f"differ most ({shown}), so they are not typical ones. Each arm is shown by its first "
        "seed. Red squares mark where most pixels are right in some arms and wrong in others."
        "\n\n![image, truth, predictions and their errors](panel.png)"
    )


def _choose(differs: np.ndarray, count: int) -> list[int]:
    """Choose the image with the largest value in each of ``count`` stretches of the split.

    Neighbours may be frames of one video.
    """
    stretches = np.array_split(np.arange(len(differs)), min(count, len(differs)))
    return [int(part[differs[part].argmax()]) for part in stretches]
