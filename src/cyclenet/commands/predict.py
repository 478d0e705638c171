"""Segment images, folders of images, or a video with a trained checkpoint."""

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from cyclenet.commands.cli import compose_config, parse_overrides, store_checkpoint_defaults, user_errors
from cyclenet.config import PredictConfig

USAGE = """
python src/predict.py ckpt_path=FILE input=IMAGE|FOLDER|VIDEO output=DIR [protocol=NAME] [KEY=VALUE ...]

Writes, under the input's own names:
  DIR/label/NAME.png     one train id a pixel, at the image's size
  DIR/color/NAME.png     the same in the data set's colours
  DIR/overlay/NAME.png   over the image, with a legend (a video: DIR/overlay/NAME.mp4)
precision=bf16-mixed is faster where the hardware has bfloat16; accelerator=auto, cpu or gpu.
A file that cannot be read is reported and skipped; the exit code is then 1.
"""

VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm"}


def main() -> None:
    """Predict everything that can be read; exit with 1 if something could not."""
    overrides = parse_overrides(USAGE)
    with user_errors():
        store_checkpoint_defaults(PredictConfig, overrides)
        cfg: PredictConfig = compose_config("predict", PredictConfig, overrides)
        done, failed = predict_all(cfg)
    print(f"{done} predicted, {len(failed)} skipped; written to {cfg.output}. Protocol: {cfg.protocol.describe()}")
    raise SystemExit(1 if failed else 0)


def predict_all(cfg: PredictConfig) -> tuple[int, list[str]]:
    """Return the number of predicted images or frames, and the inputs that were skipped.

    Raises:
        ValueError: the input does not exist or holds nothing to predict, or the checkpoint cannot be used.
    """
    import torch

    from cyclenet.data.images import ENDINGS, DataError, read_image
    from cyclenet.plots.pictures import colorize, overlay_with_legend, save_png
    from cyclenet.training.checkpoint import load_checkpoint, load_task
    from cyclenet.training.trainer import choose_device

    source = Path(cfg.input)
    if not source.exists():
        raise ValueError(f"input: there is no {source}; give an image, a folder of images, or a video.")
    output = Path(cfg.output).resolve()
    files = [source]
    if source.is_dir():
        found = (path for path in source.rglob("*") if path.suffix.lower() in ENDINGS | VIDEOS)
        files = sorted(path for path in found if not path.resolve().is_relative_to(output))
    if not files:
        raise ValueError(f"input: {source} holds no images ({' '.join(sorted(ENDINGS))}) and no videos.")
    root = source if source.is_dir() else source.parent
    names = [path.relative_to(root).with_suffix("") for path in files]
    if len(set(names)) < len(names):  # a.jpg and a.png
        names = [path.relative_to(root) for path in files]

    device = choose_device(cfg.accelerator)
    task = load_task(load_checkpoint(cfg.ckpt_path)).to(device)
    palette = np.array(task.palette, np.uint8)

    def segment(image: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(device)
        return task.predict(tensor, cfg.protocol, cfg.precision)[0].cpu().numpy()

    def write(name: Path, mask: np.ndarray) -> None:
        save_png(output / "label" / f"{name}.png", mask)
        save_png(output / "color" / f"{name}.png", colorize(mask, palette))

    done, failed = 0, []
    for path, name in zip(files, names, strict=True):
        try:
            if path.suffix.lower() in VIDEOS:
                target = output / "overlay" / f"{name}.mp4"
                with VideoWriter(target) as video:
                    for number, (frame, rate) in enumerate(read_video(path)):
                        mask = segment(frame)
                        write(name / f"{number:06d}", mask)
                        video.add(overlay_with_legend(frame, mask, task.classes, palette, all_classes=True), rate)
                        done += 1
            else:
                image = read_image(path)
                mask = segment(image)
                write(name, mask)
                save_png(output / "overlay" / f"{name}.png", overlay_with_legend(image, mask, task.classes, palette))
                done += 1
            print(path, file=sys.stderr)
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            failed.append(str(path))
    return done, failed


def read_video(path: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield frames (H, W, 3) RGB and the frame rate, per second. Raises `DataError` if there is none to read."""
    from cyclenet.data.images import DataError

    video = cv2.VideoCapture(str(path))
    rate, count = video.get(cv2.CAP_PROP_FPS) or 25.0, 0
    while True:
        there, frame = video.read()
        if not there:
            break
        count += 1
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), rate
    video.release()
    if not count:
        raise DataError(f"{path} is not a readable video; replace the file.")


class VideoWriter:
    """Write frames of one size to an .mp4, opened with the first of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, frame: np.ndarray, rate: float) -> None:
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = (frame.shape[1], frame.shape[0])
            self.file = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        self.file.write(frame[..., ::-1])

    def __exit__(self, *args: object) -> None:
        if self.file is not None:
            self.file.release()


if __name__ == "__main__":
    main()
