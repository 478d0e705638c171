"""Read and write videos, frame by frame."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from cyclenet.data.images import DataError
from cyclenet.files import atomic_write

VIDEO_ENDINGS = {".mp4", ".avi", ".mov", ".mkv", ".webm"}


def count_frames(path: Path) -> int:
    """Return how many frames a video says that it has; 0 where it does not say."""
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return max(count, 0)


def read_video(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the frame rate, per second, and frames (H, W, 3) RGB.

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
        yield rate, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    video.release()
    if not count:
        raise DataError(f"{path} is not a readable video; replace the file.")


class VideoWriter:
    """Write frames of one size to an .mp4, which is opened with the first of them.

    The file appears when the last frame is written.

    Raises:
        DataError: there is no encoder; or, at the end, the disk was full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: cv2.VideoWriter | None = None
        self.frames = 0
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
        self.frames += 1

    def __exit__(self, kind: object, *rest: object) -> None:
        if self.file is not None and self.file.isOpened():
            self.file.release()
            if kind is None:
                # OpenCV says nothing of a full disk.
                if count_frames(self.part) < self.frames:
                    raise DataError(
                        f"{self.path} could not be written whole: free disk space in "
                        f"{tempfile.gettempdir()}."
                    )
                with atomic_write(self.path) as part:
                    shutil.copyfile(self.part, part)
        self.folder.cleanup()
