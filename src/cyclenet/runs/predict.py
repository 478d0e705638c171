"""Segment images, folders of images, or a video with a trained checkpoint."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from cyclenet.config.commands import SAVED_KINDS, PredictConfig
from cyclenet.config.errors import sentence
from cyclenet.data.base import find_files, name_files
from cyclenet.data.images import IMAGE_ENDINGS, DataError, read_image
from cyclenet.deploy.load import find, load
from cyclenet.deploy.model import Result
from cyclenet.files import atomic_write, read_json, write_json
from cyclenet.plots.pictures import colorize, overlay_with_legend, save_png

SETTINGS = ".cyclenet-prediction.json"
"""File in the output that says what made it: a repeated command goes on where it stopped."""

MOST_PIXELS = 64_000_000  # Pixels of an image that is predicted as a whole.

VIDEO_ENDINGS = {".mp4", ".avi", ".mov", ".mkv", ".webm"}


@dataclass
class Settings:
    """What made the files of an output: checkpoint, input and protocol; and their kinds."""

    by: list[str | int]
    kinds: list[str] = field(default_factory=lambda: list(SAVED_KINDS))


class Predictor:
    """Predict images and write what ``cfg.save`` names.

    Args:
        cfg: checkpoint, protocol and output.
    """

    def __init__(self, cfg: PredictConfig) -> None:
        self.cfg, self.output = cfg, Path(cfg.output)
        file = find(cfg.ckpt_path)
        self.model = load(
            file, device=cfg.accelerator, precision=cfg.precision, protocol=cfg.protocol
        )
        stamp, path = file.stat(), self.output / SETTINGS
        made_by: list[str | int] = [str(file.resolve()), stamp.st_size, stamp.st_mtime_ns]
        made_by += [str(Path(cfg.input).resolve()), cfg.protocol.describe(), cfg.precision]
        settings = Settings(made_by, sorted({*cfg.save, *self._written(path)}))
        if read_json(Settings, path) != settings:
            write_json(path, settings)
        # Files from before then are another command's, which this one replaces.
        self.since = path.stat().st_mtime_ns

    def _written(self, path: Path) -> list[str]:
        """Return the kinds of output that predictions wrote here.

        Raises:
            ValueError: a folder of this prediction's outputs holds files that none wrote.
        """
        before = read_json(Settings, path)
        written = before.kinds if before else []
        for kind in set(self.cfg.save) - set(written):
            folder = self.output / kind
            if folder.is_dir() and any(each.name[0] != "." for each in folder.iterdir()):
                raise ValueError(
                    f"{folder} holds files that no prediction wrote: give another output."
                )
        return written

    def predict(self, image: np.ndarray) -> Result:
        """Return what the network says of an image (H, W, 3)."""
        wanted = {key: key in self.cfg.save for key in ("probability", "confidence")}
        return self.model.predict(
            image, probabilities=wanted["probability"], confidence=wanted["confidence"]
        )

    def predict_image(self, path: Path, name: str) -> int:
        """Predict an image file; return 1, or 0 where its outputs are there already."""
        outputs = [self._path(kind, name) for kind in self.cfg.save]
        stamp = path.stat()  # A file that was put in its place may be old, but its entry is new.
        since = max(self.since, stamp.st_mtime_ns, stamp.st_ctime_ns)
        if all(each.is_file() and each.stat().st_mtime_ns > since for each in outputs):
            return 0
        image = read_image(path)
        pixels = image.shape[0] * image.shape[1]
        if pixels > MOST_PIXELS and not self.cfg.protocol.window:
            raise DataError(
                f"{path} has {pixels / 1e6:.0f} million pixels, too many for one pass: add "
                "protocol.window=1024 protocol.stride=768."
            )
        self._write(name, self.predict(image), overlay=True)
        return 1

    def predict_video(self, path: Path, name: str) -> int:
        """Predict a video frame by frame; return the number of frames."""
        classes, done, expected = self.model.classes, 0, count_frames(path)
        with VideoWriter(self.output / "overlay" / f"{name}.mp4") as video:
            for number, (frame, rate) in enumerate(read_video(path)):
                found = self.predict(frame)
                self._write(f"{name}/{number:06d}", found, overlay=False)
                if "overlay" in self.cfg.save:
                    labels, palette = found.labels, found.palette
                    shown = overlay_with_legend(frame, labels, classes, palette, all_classes=True)
                    video.add(shown, rate)
                done += 1
        if expected - done > 1:  # Some files count one too many.
            raise DataError(
                f"{path} is damaged: {expected - done} of its {expected} frames could not be read; "
                f"the {done} before them are in {self.output}."
            )
        return done

    def _path(self, kind: str, name: str) -> Path:
        return self.output / kind / f"{name}{'.npz' if kind == 'probability' else '.png'}"

    def _write(self, name: str, found: Result, overlay: bool) -> None:
        for kind in self.cfg.save:
            path = self._path(kind, name)
            if kind == "label":
                save_png(path, found.labels)
            elif kind == "color":
                save_png(path, colorize(found.labels, found.palette))
            elif kind == "overlay" and overlay:
                save_png(path, np.asarray(found.overlay()))
            elif kind == "confidence" and found.confidence is not None:
                save_png(path, (found.confidence * 65535).round().astype(np.uint16))
            elif kind == "probability" and found.probabilities is not None:
                with atomic_write(path) as part, part.open("wb") as file:
                    np.savez_compressed(file, found.probabilities.astype(np.float16))


def predict_all(cfg: PredictConfig) -> tuple[int, list[str]]:
    """Predict everything that can be read and was not predicted before by the same command.

    Returns:
        The number of predicted images or frames, and the inputs that were skipped.

    Raises:
        ValueError: the input does not exist or holds nothing to predict, or the checkpoint cannot
            be used.
    """
    inputs = find_inputs(Path(cfg.input), Path(cfg.output))
    predictor = Predictor(cfg)
    done, skipped, began = 0, [], time.monotonic()
    for path, name in inputs:
        is_video = path.suffix.lower() in VIDEO_ENDINGS
        try:
            new = (predictor.predict_video if is_video else predictor.predict_image)(path, name)
            done += new
            rate = f" ({done / (time.monotonic() - began):.1f} images/s)"
            print(f"{path}{rate if new else ': there already'}", file=sys.stderr)
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
        made = [(output / kind).resolve() for kind in SAVED_KINDS]
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
            if not self.file.isOpened():
                raise DataError(
                    f"{self.path} cannot be written: OpenCV has no MPEG-4 encoder here. Leave "
                    "overlay out of save."
                )
        self.file.write(frame[..., ::-1])

    def __exit__(self, kind: object, *rest: object) -> None:
        if self.file is not None and self.file.isOpened():
            self.file.release()
            if kind is None:
                with atomic_write(self.path) as part:
                    shutil.copyfile(self.part, part)
        self.folder.cleanup()
