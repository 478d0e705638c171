"""Segment images, folders of images, or a video with a trained checkpoint.

  python src/predict.py ckpt_path=FILE input=IMAGE|FOLDER|VIDEO output=DIR [protocol=NAME]

Written under the inputs' own names are:
  DIR/label/NAME.png     one train id a pixel, at the image's size
  DIR/color/NAME.png     the same in the data set's colours
  DIR/overlay/NAME.png   the same over the image, with a legend (a video: DIR/overlay/NAME.mp4)
A file that cannot be read is reported and skipped; the exit code is then 1.
"""

from cyclenet.config.commands import PredictConfig


def run(cfg: PredictConfig) -> int:
    """Predict, and say how many."""
    from cyclenet.runs.predict import predict_all

    done, skipped = predict_all(cfg)
    print(
        f"{done} predicted, {len(skipped)} skipped; written to {cfg.output}. "
        f"Protocol: {cfg.protocol.describe()}"
    )
    return 1 if skipped else 0
