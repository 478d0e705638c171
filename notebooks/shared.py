"""What notebooks 02 and 03 share: a small trained model, and how a figure is shown."""

import subprocess
import sys
from pathlib import Path

from IPython.display import Image, display
from matplotlib.figure import Figure

from cyclenet.data.base import Source
from cyclenet.data.open import open_split
from cyclenet.deploy.load import load
from cyclenet.deploy.model import Model
from cyclenet.lab.explain.canvas import render_tight

COMMAND = (
    "src/train.py experiment=demo hydra.mode=RUN arm=cycleaspp_5_adc name=notebook "
    "dataset.scenes_train=240 dataset.scenes_val=12 trainer.progress_bar=false "
    "trainer.log_images_every_epochs=0"
)


def trained_model() -> tuple[Model, Source]:
    """Train a small model on drawn scenes, once, and return it with its validation split."""
    subprocess.run([sys.executable, *COMMAND.split()], cwd="..", check=True)
    (path,) = Path("../runs/notebook").glob("scenes-*/checkpoints/last.ckpt")
    model = load(path)
    return model, open_split(model.cfg.dataset, "val")


def show(figure: Figure, width: int = 1000) -> None:
    """Show a figure, ``width`` pixels wide."""
    display(Image(render_tight(figure, "png"), width=width))
