"""Segment images, folders of images, or a video with a trained checkpoint."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from cyclenet.config.commands import SAVED_KINDS, PredictConfig
from cyclenet.config.errors import sentence
from cyclenet.data.base import find_files, name_files
from cyclenet.data.images import IMAGE_ENDINGS, UNREAD_ENDINGS, DataError, read_image
from cyclenet.deploy.load import find, load
from cyclenet.deploy.model import Result
from cyclenet.devices import cores
from cyclenet.files import atomic_write, read_json, write_json
from cyclenet.plots.pictures import colorize, overlay_with_legend, save_png
from cyclenet.processes import ahead
from cyclenet.runs.video import VIDEO_ENDINGS, VideoWriter, count_frames, read_video

SETTINGS = ".cyclenet-prediction.json"
"""File in the output that says what made it: a repeated command goes on where it stopped."""

MOST_PIXELS = 64_000_000  # Pixels of an image that is predicted as a whole.

Input = tuple[Path, str]  # A file to predict, and the name of its outputs.


@dataclass
class Settings:
    """What made the files of an output.

    Attributes:
        by: checkpoint, input and protocol.
        kinds: kinds of the files.
        folders: numbers of the folders of inputs (inodes): another may take a folder's name.
    """

    by: list[str | int]
    kinds: list[str] = field(default_factory=lambda: list(SAVED_KINDS))
    folders: dict[str, int] = field(default_factory=dict)


class Tally:
    """Count what was predicted and what was skipped, and say so."""

    def __init__(self) -> None:
        self.done, self.began = 0, time.monotonic()
        self.skipped: list[str] = []

    def add(self, path: Path, images: int = 1) -> None:
        """Count an input's images or frames; 0 where they were there already."""
        self.done += images
        rate = f" ({self.done / (time.monotonic() - self.began):.1f} images/s)"
        print(f"{path}{rate if images else ': there already'}", file=sys.stderr)

    def skip(self, path: Path, error: Exception) -> None:
        """Count an input that cannot be predicted."""
        named = isinstance(error, DataError | OSError)  # It names the file itself.
        text = sentence(error) if named else f"{path}: {sentence(error)}"
        print(f"error: {text}", file=sys.stderr)
        self.skipped.append(str(path))


class Predictor:
    """Predict images and write what ``cfg.save`` names.

    Args:
        cfg: checkpoint, protocol and output.
        inputs: all that will be predicted.
    """

    def __init__(self, cfg: PredictConfig, inputs: Sequence[Input] = ()) -> None:
        self.cfg, self.output = cfg, Path(cfg.output)
        file = find(cfg.ckpt_path)
        self.model = load(
            file, device=cfg.accelerator, precision=cfg.precision, protocol=cfg.protocol
        )
        stamp, path = file.stat(), self.output / SETTINGS
        made_by: list[str | int] = [str(file.resolve()), stamp.st_size, stamp.st_mtime_ns]
        source = Path(cfg.input)
        made_by += [str(source.resolve()), cfg.protocol.describe(), cfg.precision]
        if source.is_dir():  # Another folder may have taken its name.
            made_by.append(source.stat().st_ino)
        kinds = sorted({*cfg.save, *self._written(path, made_by)})
        root = source if source.is_dir() else source.parent
        parents = {each.parent for each, _ in inputs}
        folders = {str(each.relative_to(root)): each.stat().st_ino for each in parents}
        self.since = self._begin(path, Settings(made_by, kinds, folders))

    def _begin(self, path: Path, settings: Settings) -> int:
        """Write the settings; return since when outputs are theirs, in nanoseconds since 1970.

        Older outputs are another command's, and are replaced.
        """
        before, since = read_json(Settings, path), None
        if before and (before.by, before.kinds) == (settings.by, settings.kinds):
            known = before.folders
            if all(known.get(name, node) == node for name, node in settings.folders.items()):
                since = path.stat().st_mtime_ns
                settings.folders = known | settings.folders
        if settings != before:
            write_json(path, settings)
        if since is not None:
            os.utime(path, ns=(since, since))  # Added folders leave the others' outputs valid.
        return path.stat().st_mtime_ns

    def _written(self, path: Path, made_by: list[str | int]) -> list[str]:
        """Return the kinds of output that predictions wrote here.

        Raises:
            ValueError: a folder of this prediction's outputs holds files that none wrote, or
                another network, rule or input made outputs that this prediction does not replace.
        """
        before = read_json(Settings, path)
        written = [kind for kind in before.kinds if (self.output / kind).is_dir()] if before else []
        stays = [kind for kind in written if kind not in self.cfg.save]
        if before and before.by != made_by and stays:
            raise ValueError(
                f"{self.output / stays[0]} is of another network, input or protocol: give another "
                f"output, or save=[{','.join(sorted({*written, *self.cfg.save}))}]."
            )
        for kind in set(self.cfg.save) - set(written):
            folder = self.output / kind
            if folder.is_dir() and any(each.name[0] != "." for each in folder.iterdir()):
                raise ValueError(
                    f"{folder} holds files that no prediction wrote: give another output."
                )
        return written

    def predict(self, pictures: list[np.ndarray]) -> list[Result]:
        """Return what the network says of images (H, W, 3)."""
        wanted = {key: key in self.cfg.save for key in ("probability", "confidence")}
        found: list[Result] = self.model.predict(
            pictures, probabilities=wanted["probability"], confidence=wanted["confidence"]
        )
        return found

    def count_older(self) -> int:
        """Count the files that earlier predictions left beside this one's."""
        files = [path for kind in self.cfg.save for path in (self.output / kind).rglob("[!.]*.*")]
        return sum(path.stat().st_mtime_ns < self.since for path in files if path.is_file())

    def predict_images(self, inputs: list[Input], tally: Tally) -> None:
        """Predict image files. Threads read the next ones and write the last ones meanwhile."""
        # Probabilities of all classes can be gigabytes: each is written before the next are made.
        waiting = 0 if "probability" in self.cfg.save else 3
        with ThreadPoolExecutor(min(cores(), 4)) as pool:
            results = self._results(self.model.batches(self._pictures(pool, inputs, tally)), tally)
            for written in ahead(pool, self._write_image, results, waiting):
                path, error = written.result()
                if error is None:
                    tally.add(path)
                else:
                    tally.skip(path, error)

    def _results(
        self, batches: Iterable[list[tuple[Input, np.ndarray]]], tally: Tally
    ) -> Iterator[tuple[Input, Result]]:
        for batch in batches:
            try:
                found = self.predict([image for _, image in batch])
            except RuntimeError as error:  # For example out of memory.
                if len(batch) == 1:
                    tally.skip(batch[0][0][0], error)
                else:
                    yield from self._results([[one] for one in batch], tally)
                continue
            yield from zip([each for each, _ in batch], found, strict=True)

    def _pictures(
        self, pool: ThreadPoolExecutor, inputs: list[Input], tally: Tally
    ) -> Iterator[tuple[Input, np.ndarray]]:
        for each, reading in zip(inputs, ahead(pool, self._read, inputs, 3), strict=True):
            try:
                image = reading.result()
            except (DataError, OSError, RuntimeError, cv2.error) as error:
                tally.skip(each[0], error)
                continue
            if image is None:
                tally.add(each[0], 0)
            else:
                yield each, image

    def _read(self, each: Input) -> np.ndarray | None:
        """Read an image file; return None where its outputs are there already."""
        path, name = each
        outputs = [self._path(kind, name) for kind in self.cfg.save]
        # A file that was moved or linked to here keeps its old time of change; the time of its
        # entry, or of the link, is new.
        stamps = (path.stat(), path.lstat())
        since = max(self.since, *(max(each.st_mtime_ns, each.st_ctime_ns) for each in stamps))
        # A file of the future is of a clock that was wrong, and tells nothing.
        now = time.time_ns()
        if all(out.is_file() and since < out.stat().st_mtime_ns <= now for out in outputs):
            return None
        image = read_image(path)
        pixels = image.shape[0] * image.shape[1]
        if pixels > MOST_PIXELS and not self.cfg.protocol.window:
            raise DataError(
                f"{path} has {pixels / 1e6:.0f} million pixels, too many for one pass: add "
                "protocol.window=1024 protocol.stride=768."
            )
        return image

    def _write_image(self, done: tuple[Input, Result]) -> tuple[Path, Exception | None]:
        (path, name), found = done
        try:
            self._write(name, found, overlay=True)
        except (DataError, RuntimeError, cv2.error) as error:
            return path, error
        return path, None

    def predict_video(self, path: Path, name: str) -> int:
        """Predict a video frame by frame; return the number of frames."""
        classes, done, expected = self.model.classes, 0, count_frames(path)
        with VideoWriter(self.output / "overlay" / f"{name}.mp4") as video:
            for batch in self.model.batches(read_video(path)):
                found = self.predict([frame for _, frame in batch])
                for (rate, frame), each in zip(batch, found, strict=True):
                    self._write(f"{name}/{done:06d}", each, overlay=False)
                    if "overlay" in self.cfg.save:
                        labels, palette = each.labels, each.palette
                        shown = overlay_with_legend(
                            frame, labels, classes, palette, all_classes=True
                        )
                        video.add(shown, rate)
                    done += 1
        self._remove_frames(name, done)
        if expected - done > 1:  # Some files count one too many.
            raise DataError(
                f"{path} is damaged: {expected - done} of its {expected} frames could not be read; "
                f"the {done} before them are in {self.output}."
            )
        return done

    def _remove_frames(self, name: str, first: int) -> None:
        """Remove frames that a longer video of the same name left."""
        for kind in SAVED_KINDS:
            for path in self._path(kind, f"{name}/0").parent.glob("[0-9]*"):
                number = int(path.stem) if path.stem.isdecimal() else 0
                if number >= first and path.stem == f"{number:06d}":
                    path.unlink()

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
    predictor, tally = Predictor(cfg, inputs), Tally()
    if unread := find_files(Path(cfg.input), UNREAD_ENDINGS - {".npy"}):
        count = f"{unread[0]} and {len(unread) - 1} more are" if unread[1:] else f"{unread[0]} is"
        print(f"{count} not read: images end in {_listed(IMAGE_ENDINGS)}.", file=sys.stderr)
    predictor.predict_images([each for each in inputs if not _is_video(each[0])], tally)
    for path, name in inputs:
        if not _is_video(path):
            continue
        try:
            tally.add(path, predictor.predict_video(path, name))
        except (DataError, RuntimeError, cv2.error) as error:
            tally.skip(path, error)
    if older := predictor.count_older():
        print(f"Files of earlier predictions in {cfg.output}: {older}.", file=sys.stderr)
    return tally.done, tally.skipped


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_ENDINGS


def find_inputs(source: Path, output: Path) -> list[Input]:
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
            f"input: {source} holds no images ({_listed(IMAGE_ENDINGS)}) and no videos."
        )
    root = source if source.is_dir() else source.parent
    return list(zip(files, name_files(files, root), strict=True))


def _listed(endings: set[str]) -> str:
    return " ".join(sorted(endings))
