"""Segment images, folders of images, or a video with a trained checkpoint."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from cyclenet.config.commands import PredictConfig
from cyclenet.config.errors import sentence
from cyclenet.data.base import find_files, name_files
from cyclenet.data.images import IMAGE_ENDINGS, DataError, read_image
from cyclenet.devices import choose_device
from cyclenet.files import atomic_write
from cyclenet.plots.pictures import colorize, overlay_with_legend, save_png
from cyclenet.training.checkpoint import load_checkpoint, load_task

KINDS = ("label", "color", "overlay")
"""Folders of the output."""

MOST_PIXELS = 64_000_000
"""Pixels of an image that is predicted as a whole."""

VIDEO_ENDINGS = {".mp4", ".avi", ".mov", ".mkv", ".webm"}


class Predictor:
    """Predict images and write their labels, colours and overlays.

    Args:
        cfg: checkpoint, protocol and output.
    """

    def __init__(self, cfg: PredictConfig) -> None:
        self.cfg, self.output = cfg, Path(cfg.output)
        self.device = choose_device(cfg.accelerator)
        self.task = load_task(load_checkpoint(cfg.ckpt_path)).to(self.device)
        self.palette = np.array(self.task.palette, np.uint8)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the train ids (H, W) of an image (H, W, 3)."""
        tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(self.device)
        labels = self.task.predict(tensor, self.cfg.protocol, self.cfg.precision)
        return labels[0].cpu().numpy()

    def predict_image(self, path: Path, name: str) -> int:
        """Predict an image file; return 1."""
        image = read_image(path)
        pixels = image.shape[0] * image.shape[1]
        if pixels > MOST_PIXELS and not self.cfg.protocol.window:
            raise DataError(
                f"{path} has {pixels / 1e6:.0f} million pixels, too many for one pass: add "
                "protocol.window=1024 protocol.stride=768."
            )
        mask = self.predict(image)
        self._write(name, mask)
        shown = overlay_with_legend(image, mask, self.task.classes, self.palette)
        save_png(self.output / "overlay" / f"{name}.png", shown)
        return 1

    def predict_video(self, path: Path, name: str) -> int:
        """Predict a video frame by frame; return the number of frames."""
        classes, done, expected = self.task.classes, 0, count_frames(path)
        with VideoWriter(self.output / "overlay" / f"{name}.mp4") as video:
            for number, (frame, rate) in enumerate(read_video(path)):
                mask = self.predict(frame)
                self._write(f"{name}/{number:06d}", mask)
                shown = overlay_with_legend(frame, mask, classes, self.palette, all_classes=True)
                video.add(shown, rate)
                done += 1
        if expected - done > 1:  # Some files count one too many.
            raise DataError(
                f"{path} is damaged: {expected - done} of its {expected} frames could not be read; "
                f"the {done} before them are in {self.output}."
            )
        return done

    def _write(self, name: str, mask: np.ndarray) -> None:
        save_png(self.output / "label" / f"{name}.png", mask)
        save_png(self.output / "color" / f"{name}.png", colorize(mask, self.palette))


def predict_all(cfg: PredictConfig) -> tuple[int, list[str]]:
    """Predict everything that can be read.

    Returns:
        The number of predicted images or frames, and the inputs that were skipped.

    Raises:
        ValueError: the input does not exist or holds nothing to predict, or the checkpoint cannot
            be used.
    """
    inputs = find_inputs(Path(cfg.input), Path(cfg.output))
    predictor = Predictor(cfg)
    done, skipped = 0, []
    for path, name in inputs:
        is_video = path.suffix.lower() in VIDEO_ENDINGS
        try:
            done += (predictor.predict_video if is_video else predictor.predict_image)(path, name)
            print(path, file=sys.stderr)
        except (DataError, RuntimeError, cv2.error) as error:  # For example out of memory.
            text = str(error) if isinstance(error, DataError) else f"{path}: {sentence(error)}"
            print(f"error: {text}", file=sys.stderr)
            skipped.append(str(path))
    return done, skipped


def find_inputs(source: Path, output: Path) -> list[tuple[Path, str]]:
    """Return the files to predict and the names of their outputs; outputs are not inputs.

    Raises:
        ValueError: there is nothing to predict.
    """
    if not source.exists():
        raise ValueError(
            f"input: there is no {source}; give an image, a folder of images, or a video."
        )
    files = [source]
    if source.is_dir():
        made = [(output / kind).resolve() for kind in KINDS]
        files = [
            path
            for path in find_files(source, IMAGE_ENDINGS | VIDEO_ENDINGS)
            if not any(path.resolve().is_relative_to(folder) for folder in made)
        ]
    if not files:
        raise ValueError(
            f"input: {source} holds no images ({' '.join(sorted(IMAGE_ENDINGS))}) and no videos."
        )
    root = source if source.is_dir() else source.parent
    return list(zip(files, name_files(files, root), strict=True))


def count_frames(path: Path) -> int:
    """Return how many frames a video says that it has; 0 where it does not say."""
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return max(count, 0)


def read_video(path: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield frames (H, W, 3) RGB and the frame rate, per second.

    Raises:
        DataError: there is none to read.
    """
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
    """Write frames of one size to an .mp4, which is opened with the first of them.

    The file appears when the last frame is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: cv2.VideoWriter | None = None
        # OpenCV itself cannot write to all names that a file may have.
        self.folder = tempfile.TemporaryDirectory()
        self.part = Path(self.folder.name) / "video.mp4"

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, frame: np.ndarray, rate: float) -> None:
        """Write a frame (H, W, 3) RGB."""
        if self.file is None:
            size, kind = (frame.shape[1], frame.shape[0]), cv2.VideoWriter.fourcc(*"mp4v")
            self.file = cv2.VideoWriter(str(self.part), kind, rate, size)
        self.file.write(frame[..., ::-1])

    def __exit__(self, kind: object, *rest: object) -> None:
        if self.file is not None:
            self.file.release()
            if kind is None:
                with atomic_write(self.path) as part:
                    shutil.copyfile(self.part, part)
        self.folder.cleanup()
