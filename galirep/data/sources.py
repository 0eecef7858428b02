"""Image sources: the interface, subsets, and image files by path."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from galirep.data.image_file.pixel_limit import pixel_limit
from galirep.data.picture import PixelArray, one_line, read_image
from galirep.data.report import DataReport
from galirep.errors import DataError
from galirep.metrics.arrays import Ints
from galirep.system.reading.files import read_regular

Labels = Ints
"""(N,) int64, -1 for an image without a label."""

# a set larger than both is fingerprinted by this many of its images
HASHED_BYTES = 1 << 28
HASHED_IMAGES = 1024


HANDED = "images from Python"
"""What the spec of images that were handed over in Python begins with; it cannot be opened again."""


class ImageSource(ABC):
    """A list of images that can be read one by one, in any order, from any process.

    It can be pickled; files are opened when they are read. `ids` are unique; `labels` is (N,) int64 with -1 for none,
    or None if the set has no labels; `label_names[k]` is the name of class k, empty if the set does not name its
    classes. `in_memory` says that reading costs next to nothing; `splits` is how splits were told, see `open_data`.
    """

    in_memory = False
    splits = "auto"
    _told: DataReport | None = None

    def __init__(
        self,
        spec: str,
        ids: Sequence[str],
        labels: Labels | None = None,
        label_names: Sequence[str] = (),
        split: str | None = None,
    ) -> None:
        self.spec = spec
        self.split = split
        self.ids = ids
        self.labels = labels
        self.label_names = tuple(label_names)

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def read(self, index: int) -> PixelArray:
        """Return an image as (H, W, C) uint8, C = 1 (grey) or 3 (RGB); do not write to it.

        Raises:
            DataError: the file is missing, truncated, empty or not an image; the message begins with its id.
        """

    @abstractmethod
    def content(self, index: int) -> bytes:
        """Return what the fingerprint covers of one image; empty if it cannot be read."""

    @abstractmethod
    def sizes(self) -> list[int]:
        """Return the number of bytes of each image's content; -1 if it is missing."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the set in hex, independent of its location.

        It covers all ids, labels, label names and byte sizes in order, and the content of every image in a set of up to
        256 MiB or 1,024 images, of 1,024 evenly spaced images in a larger one.
        """
        sizes = self.sizes()
        labels = None if self.labels is None else self.labels.tolist()
        digest = hashlib.sha256(json.dumps([list(self.ids), labels, self.label_names, sizes]).encode())
        hashed: Iterable[int] = range(len(sizes))
        if sum(sizes) > HASHED_BYTES and len(sizes) > HASHED_IMAGES:
            hashed = np.linspace(0, len(sizes) - 1, HASHED_IMAGES, dtype=int).tolist()
        for index in hashed:
            digest.update(self.content(index))
        return digest.hexdigest()

    @property
    def report(self) -> DataReport:
        """What the set holds, and what was left out or assumed while it was opened."""
        told = self._told or DataReport(self.spec)
        splits = told.splits or (() if self.split is None else (self.split,))
        classes = count_classes(self.labels, self.label_names, len(self))
        return replace(told, spec=self.spec, split=self.split, splits=splits, images=len(self), classes=classes)

    def tell(self, report: DataReport) -> None:
        """Record what was left out or assumed; spec, split, number of images and classes are the source's own."""
        self._told = report

    def subset(self, indices: Iterable[int]) -> "ImageSource":
        """Return the images at `indices`, in that order, with their ids and labels; all class names are kept.

        Raises:
            DataError: an index is out of range or repeats.
        """
        return _Subset(self, indices)


class _Subset(ImageSource):
    def __init__(self, source: ImageSource, indices: Iterable[int]) -> None:
        self._source = source
        self._indices = [int(i) for i in indices]
        for index in self._indices:
            if not 0 <= index < len(source):
                raise DataError(f"index {index} is not in the {len(source)} images of {source.spec}")
        if len(set(self._indices)) < len(self._indices):
            raise DataError(f"a subset of {source.spec} names an image twice")
        labels = None if source.labels is None else source.labels[self._indices]
        super().__init__(source.spec, [source.ids[i] for i in self._indices], labels, source.label_names, source.split)
        self.in_memory, self.splits = source.in_memory, source.splits
        self.tell(source.report)

    def read(self, index: int) -> PixelArray:
        return self._source.read(self._indices[index])

    def content(self, index: int) -> bytes:
        return self._source.content(self._indices[index])

    def sizes(self) -> list[int]:
        sizes = self._source.sizes()
        return [sizes[i] for i in self._indices]


def count_classes(labels: Labels | None, label_names: Sequence[str], count: int) -> dict[str, int]:
    """Count rows by the name of their class, its number where it has no name; "" is no label."""
    if labels is None:
        return {"": count}
    counts = Counter(labels.tolist())
    named = {label: label_names[label] if 0 <= label < len(label_names) else str(label) for label in counts}
    return {"" if label < 0 else named[label]: counts[label] for label in sorted(counts)}


def row_numbers(count: int) -> list[str]:
    """Return the ids of images without names: "0", "1", ..."""
    return [str(i) for i in range(count)]


class FileSource(ImageSource):
    """Images that are encoded files; a subclass reads their bytes.

    `max_pixels` is the size of the largest that is decoded, by default `pixel_limit`; it goes with the source to the
    workers.
    """

    def __init__(
        self,
        spec: str,
        ids: Sequence[str],
        labels: Labels | None = None,
        label_names: Sequence[str] = (),
        split: str | None = None,
    ) -> None:
        super().__init__(spec, ids, labels, label_names, split)
        self.max_pixels = pixel_limit()

    @abstractmethod
    def raw(self, index: int) -> bytes:
        """Return the bytes of a file; raise OSError if it cannot be read."""

    def read(self, index: int) -> PixelArray:
        """Decode one file, see `ImageSource.read`."""
        try:
            return read_image(self.raw(index), self.max_pixels)
        except OSError as err:
            raise DataError(f"{self.ids[index]}: {err.strerror or one_line(err)}") from err
        except DataError as err:
            raise DataError(f"{self.ids[index]}: {err}") from err

    def content(self, index: int) -> bytes:
        """Return the bytes of a file."""
        try:
            return self.raw(index)
        except OSError:
            return b""


class PathSource(FileSource):
    """Image files at `paths`, relative to `folder` or absolute; the paths are their ids."""

    def __init__(
        self,
        spec: str,
        folder: Path,
        paths: Sequence[str],
        labels: Labels | None = None,
        label_names: Sequence[str] = (),
        split: str | None = None,
    ) -> None:
        super().__init__(spec, paths, labels, label_names, split)
        self._folder = str(folder)

    def path(self, index: int) -> Path:
        """Return where a file is."""
        return Path(self._folder, self.ids[index])

    def raw(self, index: int) -> bytes:
        """Return the bytes of a file."""
        try:
            return read_regular(os.path.join(self._folder, self.ids[index]))  # noqa: PTH118
        except FileNotFoundError as err:
            slashes = self.ids[index].replace("\\", "/")
            if slashes != self.ids[index] and Path(self._folder, slashes).exists():
                raise FileNotFoundError(f"no such file, but there is {slashes!r}: write / for \\ in paths") from err
            raise

    def sizes(self) -> list[int]:
        """Return the sizes of the files in bytes; -1 for one that is missing."""
        return [_file_size(self._folder, path) for path in self.ids]


def _file_size(folder: str, path: str) -> int:
    try:
        # a Path takes longer than the call
        return os.stat(os.path.join(folder, path)).st_size  # noqa: PTH116, PTH118
    except OSError:
        return -1
