"""Any data set, laid out in folders: ``dataset=folder dataset.root=DIR`` (docs/data.md)."""

import sys
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np

from cyclenet.data.base import FolderSource, Pair, find_files, list_split
from cyclenet.data.folds import choose_fold, is_fold, read_folds
from cyclenet.data.held_out import held_out
from cyclenet.data.images import IMAGE_ENDINGS, UNREAD_ENDINGS, DataError, read_colors, read_ids
from cyclenet.data.legend import read_legend
from cyclenet.files import read_text
from cyclenet.labels import IGNORE


class Folder(FolderSource):
    """``images/<split>/NAME.jpg`` (or another image), ``masks/<split>/NAME.png``, ``classes.txt``.

    NAME may have subfolders, and endings any case. Where there are no folders of splits,
    ``<split>.txt`` lists names, or ``val_share`` makes a split. ``folds.csv`` may put images into
    folds, whatever their split: a line ``<split>/NAME,<number>`` for each.

    Args:
        split: name of the split.
        root: the folder.
        images: folder of the images in the root; ``{split}`` in it stands for the split.
        masks: folder of the masks, likewise.
        image_suffix: suffix of image names, before the extension, that mask names lack.
        mask_suffix: the same of masks.
        classes: file of the class names, in the root; one that is not called ``classes.txt`` may
            lie anywhere.
        ids: as `read_legend`.
        ignore_id: as `read_legend`.
        reduce_zero_label: as `read_legend`.
        val_share: share of the images that are held out where there is no split.

    Raises:
        DataError: the layout is another, or the classes are not told.
    """

    def __init__(
        self,
        split: str,
        root: Path,
        images: str = "images",
        masks: str = "masks",
        image_suffix: str = "",
        mask_suffix: str = "",
        classes: str = "classes.txt",
        ids: Sequence[str] = (),
        ignore_id: int = IGNORE,
        reduce_zero_label: bool = False,
        val_share: float = 0.0,
    ) -> None:
        self.suffixes = (image_suffix, mask_suffix)
        folds = read_folds(root / "folds.csv") if is_fold(split) else {}
        part, holds = (split, False) if folds else _part(split, root, (images, masks), val_share)
        self.folders, names = self._find(part, root, (images, masks), bool(folds) or not part)
        image_files, mask_files = self._list()
        listed = root / f"{part}.txt"
        if names is None and part and not folds and listed.is_file():
            self._check_list(listed, image_files)
        if names is not None:
            image_files = self._choose(names, image_files, listed)
        if holds:
            names = held_out(list(image_files), val_share, split, root)
            image_files = {name: image_files[name] for name in names}
        pairs = [
            Pair(name, image, mask_files.get(name, self.folders[1] / f"{name}{mask_suffix}.png"))
            for name, image in image_files.items()
        ]
        if folds:
            if missing := [name for name in folds if name not in image_files]:
                raise DataError(
                    f"{root}/folds.csv names {missing[0]}, but there is no such image in "
                    f"{self.folders[0]}."
                )
            if left_out := len(pairs) - len(folds):
                _say_once(f"{root}/folds.csv does not name {left_out} of {len(pairs)} images.")
            pairs = choose_fold(split, pairs, folds, {})
        whole = names is None and not folds  # Otherwise other splits' masks are there too.
        super().__init__(pairs, str(self.folders[0]), list(mask_files.values()) if whole else [])
        if whole and mask_files and not any(name in mask_files for name in image_files):
            raise DataError(
                f"No image of {self.folders[0]} has a mask of its name; masks there are called "
                f"like {next(iter(mask_files.values())).name}: name masks as their images "
                f"({pairs[0].name}.png), or give dataset.mask_suffix."
            )
        legend = read_legend(_classes(root, classes), list(ids), ignore_id, reduce_zero_label)
        self.by_number = reduce_zero_label or ignore_id != IGNORE
        self.classes, self.palette = legend.classes, legend.palette
        self.ids, self.legal, self.colors = legend.ids, legend.legal, legend.colors
        greys = {
            color & 255: n for color, n in self.colors.items() if color == 0x10101 * (color & 255)
        }
        # Greys g for which the colour (g, g, g) and the number g are different classes.
        self.shades = [shade for shade, n in greys.items() if self.ids[shade : shade + 1] != [n]]

    def _find(
        self, part: str, root: Path, parts: tuple[str, str], whole: bool
    ) -> tuple[tuple[Path, Path], list[str] | None]:
        """Return the folders of images and masks, and the names of a split where they are listed.

        Args:
            part: the split.
            root: the data's folder.
            parts: keys ``images`` and ``masks``.
            whole: whether all images are meant, whatever their split.
        """
        images, masks = (root / each.replace("{split}", part) for each in parts)
        if whole:
            return (images, masks), None
        listed = root / f"{part}.txt"
        if any("{split}" in each for each in parts):
            list_split(images, "*")
            return (images, masks), None
        if listed.is_file() and not (images / part).is_dir():
            list_split(images, "*")
            return (images, masks), _lines(listed)
        list_split(images / part, "*")  # It names the splits that there are.
        return (images / part, masks / part), None

    def _check_list(self, listed: Path, images: Collection[str]) -> None:
        """Refuse a list of a split beside a folder of the split that holds other images."""
        stems = Counter(PurePosixPath(name).name for name in images)
        unique = {PurePosixPath(name).name: name for name in images}
        named = set()
        for line in _lines(listed):
            found = None
            for word in (line, line.split()[0]):  # A name may have spaces.
                parts = PurePosixPath(self._bare(word)).parts
                # A list may give the folders above, too, or leave all folders out.
                ends = ["/".join(parts[first:]) for first in range(len(parts))]
                found = found or next((end for end in ends if end in images), None)
                if not found and parts and stems[parts[-1]] == 1:
                    found = unique[parts[-1]]
            named.add(found or line)
        if named != set(images):
            raise DataError(
                f"{listed} and the folder {self.folders[0]} name different images: remove one."
            )

    def _list(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """List images and masks by their common names."""
        image_suffix, mask_suffix = self.suffixes
        image_folder, mask_folder = self.folders
        together, alike = mask_folder == image_folder, image_suffix == mask_suffix
        endings = IMAGE_ENDINGS - {".png"} if together and alike else IMAGE_ENDINGS
        images = self._tree(image_folder, endings, image_suffix, mask_folder)
        masks = self._tree(mask_folder, {".png"}, mask_suffix, image_folder)
        if together and alike and (not images or masks.keys() - images.keys()):
            raise DataError(
                f"Images and masks lie together in {image_folder}: give dataset.mask_suffix, which "
                "tells them apart, or keep PNGs for masks and other endings for images."
            )
        if together and mask_suffix:
            taken = set(masks.values())
            images = {name: path for name, path in images.items() if path not in taken}
        elif together:  # The suffix, or another ending, tells images.
            taken = set(images.values())
            masks = {n: path for n, path in masks.items() if path not in taken and n in images}
        return images, masks

    def _tree(self, folder: Path, endings: set[str], suffix: str, other: Path) -> dict[str, Path]:
        """List files by their names without ending and suffix, but for those of a folder inside."""
        found: dict[str, Path] = {}
        for path in find_files(folder, endings):
            name = normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
            if name in found:
                raise DataError(
                    f"{found[name]} and {path.name} have one name without their endings: remove "
                    "one, for they share a mask."
                )
            found[name] = path
        return {
            name.removesuffix(suffix): path
            for name, path in found.items()
            if name.endswith(suffix) and not (other != folder and _inside(path, other, folder))
        }

    def _choose(
        self, names: Sequence[str], images: dict[str, Path], listed: Path
    ) -> dict[str, Path]:
        """Return the images that a list names, with or without endings and suffixes.

        A line may name the mask too, and a name may have spaces.
        """
        chosen = {}
        for line in names:
            first, *rest = line.split()
            whole, name = self._bare(line), self._bare(first)
            if whole in images:
                chosen[whole] = images[whole]
                continue
            if name not in images:
                raise DataError(
                    f"{listed} names {line!r}, but there is no such image in {self.folders[0]}."
                )
            mask = PurePosixPath(" ".join(rest)).name.removesuffix(".png")
            if rest and mask.removesuffix(self.suffixes[1]) != PurePosixPath(name).name:
                raise DataError(
                    f"{listed} has the line {line!r}, but the mask of {name} has its name: leave "
                    "one image a line."
                )
            chosen[name] = images[name]
        return chosen

    def _bare(self, name: str) -> str:
        path = PurePosixPath(name)
        if path.suffix.lower() in IMAGE_ENDINGS:
            name = path.with_suffix("").as_posix()
        return name.removesuffix(self.suffixes[0])

    def mask(self, index: int) -> np.ndarray:
        path = self.pairs[index].mask
        stored = read_colors(path) if self.colors else None
        if stored is None:
            numbers = super().mask(index)
            self._check_grey(path, numbers)
            return numbers
        if self.by_number:
            raise DataError(
                f"{path} has colours, which dataset.ignore_id and dataset.reduce_zero_label do not "
                "change: leave them out, and give colours that do not count the name ignore in "
                "classes.txt."
            )
        values, places = np.unique(stored, return_inverse=True)
        unknown = [int(value) for value in values if int(value) not in self.colors]
        if unknown:
            color = " ".join(str(unknown[0] >> shift & 255) for shift in (16, 8, 0))
            raise DataError(
                f"{path} has the colour {color}, which classes.txt does not name: add its line."
            )
        table = np.array([self.colors[int(value)] for value in values], np.uint8)
        mask: np.ndarray = table[places.reshape(stored.shape)]
        self._check_numbers(path, mask)
        return mask

    def _check_grey(self, path: Path, mask: np.ndarray) -> None:
        """Refuse a grey mask whose shades are colours of other classes than its numbers."""
        if not self.shades or (shades := read_colors(path, grey=True)) is None:
            return
        values = np.unique(shades)
        # One shade alone, such as black, is a number in any mask.
        if len(values) < 2 or any(int(value) not in self.colors for value in values):
            return
        table = np.array([self.colors[int(value)] for value in values], np.uint8)
        if not np.array_equal(table[np.searchsorted(values, shades)], mask):
            raise DataError(
                f"{path} is grey, and its shades are colours of other classes than its numbers "
                "(255 is ignored): save it as RGB, or leave the colours out of classes.txt."
            )

    def _check_numbers(self, path: Path, mask: np.ndarray) -> None:
        """Refuse a palette mask whose numbers are other classes than its colours."""
        try:
            by_number = read_ids(path, self.ids, self.legal)
        except DataError:
            return  # It holds colours, or its numbers cannot be ids.
        if not np.array_equal(by_number, mask):
            raise DataError(
                f"{path} has a palette whose colours are other classes than its numbers: save it "
                "as RGB, or leave the colours out of classes.txt."
            )

    @property
    def meaning(self) -> list[int]:
        return [*super().meaning, *(number for pair in self.colors.items() for number in pair)]

    def strays(self) -> list[str]:
        """Name masks without an image, and pictures of a kind that is not read."""
        if self.folders[0] == self.folders[1]:
            return super().strays()
        pictures = IMAGE_ENDINGS | UNREAD_ENDINGS
        images, masks = (
            [path for path in find_files(folder, pictures) if not _inside(path, other, folder)]
            for folder, other in (self.folders, self.folders[::-1])
        )
        return super().strays() + [
            f"{path} is not read: {what} end in {' '.join(sorted(endings))}."
            for files, what, endings in (
                (images, "images", IMAGE_ENDINGS),
                (masks, "masks", {".png"}),
            )
            for path in files
            if path.suffix.lower() not in endings
        ]


def _lines(listed: Path) -> list[str]:
    """Read the lines of a list of names.

    A Mac may store an umlaut as two characters; names here always have one (NFC).
    """
    lines = normalize("NFC", read_text(listed)).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _classes(root: Path, name: str) -> Path:
    """Return the file of the class names.

    Raises:
        DataError: two files could be meant.
    """
    inside, here = root / name, Path(name)
    if name == "classes.txt" or not here.is_file():
        return inside
    if inside.is_file() and not inside.samefile(here):
        raise DataError(
            f"dataset.classes={name} could be {inside} or {here.resolve()}: give its whole path."
        )
    return here


def _inside(path: Path, other: Path, folder: Path) -> bool:
    """Tell whether a file of a folder belongs to another folder inside it."""
    return other.is_relative_to(folder) and path.is_relative_to(other)


def _part(split: str, root: Path, parts: tuple[str, str], val_share: float) -> tuple[str, bool]:
    """Return the split that is read ("" for all images), and whether a share of it is held out.

    Raises:
        DataError: there are splits that ``dataset.val_share`` would contradict.
    """

    def there(name: str) -> bool:
        images = root / parts[0].replace("{split}", name)
        folder = images if "{split}" in parts[0] else images / name
        return folder.is_dir() or (root / f"{name}.txt").is_file()

    if not val_share or split not in ("train", "val"):
        return split, False
    if there("val"):
        raise DataError(f"{root} has a split val already: set dataset.val_share=0.")
    return ("train", True) if there("train") else ("", True)


@cache
def _say_once(text: str) -> None:
    """Print a note the first time that this process has it."""
    print(f"Note: {text}", file=sys.stderr)
