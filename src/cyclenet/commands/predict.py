"""Segment images, folders of images, or a video with a trained checkpoint.

  python src/predict.py ckpt_path=FILE input=IMAGE|FOLDER|VIDEO output=DIR [protocol=NAME]

Written under the inputs' own names are:
  DIR/label/NAME.png     one train id a pixel, at the image's size
  DIR/color/NAME.png     the same in the data set's colours
  DIR/overlay/NAME.png   the same over the image, with a legend (a video: DIR/overlay/NAME.mp4)
A file that cannot be read is reported and skipped; the exit code is then 1.
"""

from cyclenet.commands.cli import run_command
from cyclenet.config.commands import PredictConfig


def main() -> None:
    """Predict everything that can be read; exit with 1 if something could not."""
    run_command("predict", __doc__, run)


def run(cfg: PredictConfig) -> int:
    """Predict, and say how many."""
    from cyclenet.runs.predict import predict_all

    done, skipped = predict_all(cfg)
    print(
        f"{done} predicted, {len(skipped)} skipped; written to {cfg.output}. "
        f"Protocol: {cfg.protocol.describe()}"
    )
    return 1 if skipped else 0


if __name__ == "__main__":
    main()
