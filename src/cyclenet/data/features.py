"""A frozen backbone's features on disk: a file for each view of each image.

The name of a file has a hash of the image and of its view, and the name of the folder one of the
backbone and its weights: what has changed never finds old features. Files are mapped into
memory, so all processes share the system's page cache, and windows are read directly.
"""

import os
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cyclenet.config.schema import DatasetConfig
from cyclenet.data.base import Source
from cyclenet.data.images import DataError
from cyclenet.data.views import AS_IT_IS, Place, View, Views
from cyclenet.files import atomic_write, safe_name
from cyclenet.seeding import derive

LAST_LEVEL = 3  # Number of a backbone's coarsest level; the image may come after it.


class FeatureCache:
    """Features (h, w, C) bfloat16 of each level of a backbone, by source, index and view.

    A file's checksum is verified when a process reads it for the first time.
    """

    def __init__(self, folder: Path, views: Views) -> None:
        self.folder, self.views = folder, views
        self.verified: set[Path] = set()

    def path(self, source: Source, index: int, view: View) -> Path:
        """Return the file of a view, which may not exist yet."""
        number = derive(*source.stamp(index), *self.views.crop, *self.views.cfg.pad_value)
        mirrored = "m" if view.mirrored else ""
        name = f"{source.name(index)}-{number:08x}-x{view.scale:g}{mirrored}"
        return self.folder / f"{safe_name(name)}.safetensors"

    def crop(
        self, source: Source, index: int, size: tuple[int, int], view: View, place: Place
    ) -> list[Tensor]:
        """Read a crop's features, for an image of a size (height, width).

        Raises:
            DataError: as `whole`.
        """
        path, padded = self.path(source, index, view), self.views.padded(size, view)
        return self._read(path, padded, place)

    def whole(self, source: Source, index: int, size: tuple[int, int]) -> list[Tensor] | None:
        """Read the features of an image of a size (height, width) as it is.

        There are none (None) where they were not written, or a side is smaller than a training
        crop's: a view is filled up to the crop with ``dataset.pad_value``, an image is not.

        Raises:
            DataError: the file is damaged.
        """
        if any(side < crop for side, crop in zip(size, self.views.crop, strict=True)):
            return None
        path = self.path(source, index, AS_IT_IS)
        return self._read(path) if path.is_file() else None

    def _read(
        self, path: Path, padded: tuple[int, int] = (0, 0), place: Place | None = None
    ) -> list[Tensor]:
        try:
            with safe_open(path, "pt") as file:
                names = [str(level) for level in range(len(file.keys()))]
                if path not in self.verified:
                    if _checksum([file.get_tensor(n) for n in names]) != file.metadata()["crc32"]:
                        raise ValueError
                    self.verified.add(path)
                if place is None:
                    return [file.get_tensor(name) for name in names]
                slices = [file.get_slice(name) for name in names]
                shapes = [(one.get_shape()[0], one.get_shape()[1]) for one in slices]
                if shapes[LAST_LEVEL] != self.views.grid.cells(padded):
                    raise DataError(
                        f"{path} has other features than its mask's size asks for: the image has "
                        "another size (src/check_data.py names it), or the backbone does not fit "
                        "model.align_corners=true."
                    )
                windows = self.views.windows(shapes, padded, place)
                return [one[window] for one, window in zip(slices, windows, strict=True)]
        except DataError:
            raise
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            raise DataError(
                f"{path} is missing or damaged: delete it and run the same command again, it can "
                "be made anew."
            ) from error

    def write(self, path: Path, levels: list[Tensor]) -> None:
        """Write the features (h, w, C) of a view, aside, and rename."""
        maps = {str(level): each.contiguous() for level, each in enumerate(levels)}
        with atomic_write(path) as part:
            save_file(maps, part, {"crc32": _checksum(list(maps.values()))})


def features_folder(cfg: DatasetConfig, backbone: str, digest: str) -> Path:
    """Return the folder of a backbone's features, in the folder of the caches."""
    parent = Path(cfg.cache_root or os.environ.get("CYCLENET_CACHE") or "data/cache")
    return parent / safe_name(f"features-{backbone}-{digest}")


def _checksum(levels: list[Tensor]) -> str:
    total = 0
    for level in levels:
        total = zlib.crc32(level.contiguous().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
