"""Image sources: lists of images that any process can read one by one in any order; arrays in memory, and image files by path."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.data.picture import PixelArray, one_line, read_image
from galirep.errors import DataError

Labels = NDArray[np.int64]

HASHED_BYTES = 1 << 28
HASHED_IMAGES = 1024


class ImageSource(ABC):
    """A list of images that can be read one by one, in any order, from any process: picklable, and files are opened where they are read.

    `ids` name the images, each once; `labels` is (N,) int64 with -1 for none, or None where the set has no labels; `label_names[k]` is the
    name of class k, or empty where the set does not name its classes. `in_memory` says that reading costs next to nothing.
    """

    in_memory = False

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
        """The image as (H, W, C) uint8, C = 1 (grey) or 3 (RGB); not to be written to.

        Raises:
            DataError: it is missing, truncated, empty or no image; the message begins with its id.
        """

    @abstractmethod
    def content(self, index: int) -> bytes:
        """What the fingerprint covers of one image; empty if it cannot be read."""

    @abstractmethod
    def sizes(self) -> list[int]:
        """The number of bytes of each image's content; -1 for one that is missing."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of the set, wherever it lies: all ids, labels, label names and byte sizes in their order, and the content.

        The content of every image in a set of up to 256 MiB or 1,024 images; of 1,024 evenly spaced images in a larger one.
        """
        sizes = self.sizes()
        labels = None if self.labels is None else self.labels.tolist()
        digest = hashlib.sha256(json.dumps([list(self.ids), labels, self.label_names, sizes]).encode())
        whole = sum(sizes) <= HASHED_BYTES or len(sizes) <= HASHED_IMAGES
        for index in range(len(sizes)) if whole else np.linspace(0, len(sizes) - 1, HASHED_IMAGES, dtype=int).tolist():
            digest.update(self.content(index))
        return digest.hexdigest()

    def subset(self, indices: Iterable[int]) -> "ImageSource":
        """The images at `indices`, in that order, with their ids and labels; all class names are kept.

        Raises:
            DataError: an index is out of range or given twice.
        """
        return _Subset(self, indices)


class _Subset(ImageSource):
    def __init__(self, whole: ImageSource, indices: Iterable[int]) -> None:
        self._whole = whole
        self._indices = [int(i) for i in indices]
        for index in self._indices:
            if not 0 <= index < len(whole):
                raise DataError(f"index {index} is not in the {len(whole)} images of {whole.spec}")
        if len(set(self._indices)) < len(self._indices):
            raise DataError(f"a subset of {whole.spec} names an image twice")
        labels = None if whole.labels is None else whole.labels[self._indices]
        super().__init__(whole.spec, [whole.ids[i] for i in self._indices], labels, whole.label_names, whole.split)
        self.in_memory = whole.in_memory

    def read(self, index: int) -> PixelArray:
        return self._whole.read(self._indices[index])

    def content(self, index: int) -> bytes:
        return self._whole.content(self._indices[index])

    def sizes(self) -> list[int]:
        sizes = self._whole.sizes()
        return [sizes[i] for i in self._indices]


def check_labels(spec: str, labels: Any, count: int) -> Labels | None:
    """Labels as (N,) int64.

    Raises:
        DataError: not one integer of at least -1 (none) for each image.
    """
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iu":
        raise DataError(
            f"the labels of {spec} are {labels.dtype} of shape {labels.shape}: expected {count} integers, one for each image"
        )
    checked: Labels = labels.reshape(-1).astype(np.int64)
    if checked.min() < -1:
        raise DataError(f"the labels of {spec} go down to {checked.min()}: a label is 0 or more, or -1 for none")
    return checked


def row_numbers(count: int) -> list[str]:
    """The ids of images that have no names: "0", "1", ..."""
    return [str(i) for i in range(count)]


class FileSource(ImageSource):
    """Images that are encoded files; a subclass says where their bytes are."""

    @abstractmethod
    def raw(self, index: int) -> bytes:
        """The bytes of the file; OSError if they cannot be had."""

    def read(self, index: int) -> PixelArray:
        """Decode one file, see `ImageSource.read`."""
        try:
            return read_image(self.raw(index))
        except OSError as err:
            raise DataError(f"{self.ids[index]}: {err.strerror or one_line(err)}") from err
        except DataError as err:
            raise DataError(f"{self.ids[index]}: {err}") from err

    def content(self, index: int) -> bytes:
        """The bytes of the file."""
        try:
            return self.raw(index)
        except OSError:
            return b""


class PathSource(FileSource):
    """Image files at `paths` (relative to `folder`, or absolute); their ids are the paths unless given."""

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

    def raw(self, index: int) -> bytes:
        """The bytes of the file."""
        # a Path and a buffer each take longer than reading a small image
        with open(os.path.join(self._folder, self.ids[index]), "rb", buffering=0) as file:  # noqa: PTH118, PTH123
            return file.read()

    def sizes(self) -> list[int]:
        """The sizes of the files."""
        return [_file_size(self._folder, path) for path in self.ids]


def _file_size(folder: str, path: str) -> int:
    try:
        return os.stat(os.path.join(folder, path)).st_size  # noqa: PTH116, PTH118 (a Path each takes longer than the question)
    except OSError:
        return -1
