"""Images that are stored as arrays: in memory, in npz and HDF5 files, and scikit-learn's digits."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.data.files.tables import match_names, note_names, require_names
from galirep.data.labels import read_labels
from galirep.data.picture import PixelArray, from_unit
from galirep.data.report import DataReport
from galirep.data.sources import ImageSource, row_numbers
from galirep.errors import DataError, unknown
from galirep.system.reading.arrays import is_npy
from galirep.system.reading.arrays import open_npz as read_npz
from galirep.system.reading.files import parsing, require_regular
from galirep.system.reading.hdf5 import require_stored
from galirep.system.reading.heaps import require_sound_heaps
from galirep.system.reading.own_data import require_own_links, require_own_storage

IMAGE_NAMES = ("images", "x", "arr_0")
LABEL_NAMES = ("labels", "y", "arr_1")


class Hdf5Source(ImageSource):
    """A dataset of images in an HDF5 file, read row by row, with labels beside it under `labels` or `y`.

    Raises:
        DataError: the file is not HDF5, has no such dataset or points at other files, or as for `ArraySource`.
    """

    def __init__(self, spec: str, path: Path, dataset: str | None = None) -> None:
        self._path = str(path)
        self._open: Any = None
        require_regular(path, spec, DataError)
        with (
            parsing(f"{spec} is not a readable HDF5 file", DataError),
            h5py.File(self._path, "r", locking="best-effort") as file,
        ):
            require_own_links(file, spec)
            top = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
            found = [dataset] if dataset else require_names(spec, "array", top, IMAGE_NAMES[:2])
            self._dataset = found[0]
            images = file.get(self._dataset)
            if not isinstance(images, h5py.Dataset):
                raise DataError(f"{spec}: " + unknown("dataset", self._dataset, _dataset_names(file)))
            self._rows = RowReader(spec, require_own_storage(images, spec).shape or (), images.dtype)
            require_stored(images, len(images), path.stat().st_size)
            group = images.parent
            beside = [name for name, item in group.items() if isinstance(item, h5py.Dataset) and item != images]
            label_found = match_names(spec, "arrays", beside, LABEL_NAMES[:2])
            values = _read_stored(group[label_found[0]], spec, path) if label_found else None
            # where the array was named, only those beside it could be meant as its labels
            names = beside if dataset else _dataset_names(file)
            notes = note_names("arrays", names, [found, label_found], "labels are an array labels or y")
        ids = row_numbers(self._rows.count)
        if values is None:
            super().__init__(spec, ids)
        else:
            labels = read_labels(f"the labels of {spec}", values, len(ids))
            super().__init__(spec, ids, labels.labels, labels.names)
            notes += labels.notes
        self.tell(DataReport(spec, notes=(*self._rows.notes, *notes)))

    def __getstate__(self) -> dict[str, Any]:
        # a handle belongs to one process
        return {**self.__dict__, "_open": None}

    def _row(self, index: int) -> NDArray[Any]:
        if self._open is None:
            file = h5py.File(self._path, "r", locking="best-effort")
            # another file may have this name by now
            require_own_links(file, self.spec)
            self._open = require_own_storage(file[self._dataset], self.spec)
        row: NDArray[Any] = self._open[index]
        return row

    def read(self, index: int) -> PixelArray:
        """Read one row, see `ImageSource.read`."""
        with parsing(f"{self.ids[index]}: row {index} of {self.spec} cannot be read", DataError):
            row = self._row(index)
        return self._rows.image(row, self.ids[index])

    def content(self, index: int) -> bytes:
        """Return the row's type, shape and values."""
        # what HDF5 raises on a damaged file is of many types
        with suppress(DataError), parsing(self.spec, DataError):
            return self._rows.content(self._row(index))
        return b""

    def sizes(self) -> list[int]:
        """Return the number of bytes of each row."""
        return [self._rows.nbytes] * len(self)


def open_npz(spec: str, path: Path) -> ImageSource:
    """Open the arrays `images`, `x` or `arr_0`, and `labels`, `y` or `arr_1`, of an npz file, in upper or lower case.

    Raises:
        DataError: the file is not npz or has no such array, or as for `ArraySource`.
    """
    require_regular(path, spec, DataError)
    if is_npy(path):
        raise DataError(
            f"{spec} is a single array without a name: save it with numpy.savez(file, images=..., labels=...)"
        )
    with read_npz(path, spec) as file:
        names = file.names
        found = require_names(spec, "array", names, IMAGE_NAMES)
        label_found = match_names(spec, "arrays", names, LABEL_NAMES)
        images = file.read(found[0])
        labels = file.read(label_found[0]) if label_found else None
    source = ArraySource(spec, images, labels)
    notes = note_names("arrays", names, [found, label_found], "labels are an array labels, y or arr_1")
    source.tell(source.report.adding(notes=notes))
    if images.dtype != np.uint8:
        # one bad value means another convention: report it now, not as 60,000 unreadable images
        from_unit(images)
    return source


def open_digits(spec: str, split: str | None) -> ImageSource:
    """Open scikit-learn's 1,797 handwritten digits: 8x8 grey, 0..16 scaled to 0..255.

    Every fourth image of each class belongs to the test split.

    Raises:
        DataError: `split` is not `train` or `test`.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    split = split or "train"
    if split not in ("train", "test"):
        raise DataError(f"{spec}: " + unknown("split", split, ("train", "test")))
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    rank = np.zeros(len(labels), dtype=np.int64)
    for k in range(10):
        rank[labels == k] = np.arange((labels == k).sum())
    rows = np.flatnonzero((rank % 4 == 3) == (split == "test"))
    pixels = np.rint(digits.images[rows] * 255 / 16).astype(np.uint8)
    return ArraySource(spec, pixels, labels[rows], [str(k) for k in range(10)], split, [str(i) for i in rows])


def _read_stored(labels: h5py.Dataset, spec: str, path: Path) -> Any:
    """Read labels of a dataset that is no larger than its file."""
    require_own_storage(labels, spec)
    require_sound_heaps(labels.file, path, [labels.name])
    if labels.ndim:
        require_stored(labels, len(labels), path.stat().st_size)
    return labels[()]


def _dataset_names(file: Any) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return [name for name in names if isinstance(file[name], h5py.Dataset)]


class ArraySource(ImageSource):
    """Images in memory: (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or float in [0, 1].

    Their ids are row numbers unless `ids` are given.

    Raises:
        DataError: the array has another shape, type or range, or the labels do not fit.
    """

    in_memory = True

    def __init__(
        self,
        spec: str,
        images: NDArray[Any],
        labels: Any = None,
        label_names: Sequence[str] = (),
        split: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        self._rows = RowReader(spec, images.shape, images.dtype)
        ids = ids or row_numbers(len(images))
        notes = self._rows.notes
        if labels is None:
            super().__init__(spec, ids, None, label_names, split)
        else:
            column = read_labels(f"the labels of {spec}", labels, len(images))
            super().__init__(spec, ids, column.labels, label_names or column.names, split)
            notes += column.notes
        self.tell(DataReport(spec, notes=notes))
        self._images = images

    def read(self, index: int) -> PixelArray:
        """Return one row, see `ImageSource.read`."""
        return self._rows.image(self._images[index], self.ids[index])

    def content(self, index: int) -> bytes:
        """Return the row's type, shape and values."""
        return self._rows.content(self._images[index])

    def sizes(self) -> list[int]:
        """Return the number of bytes of each row."""
        return [self._images[0].nbytes] * len(self)


class RowReader:
    """Conversion of the rows of an array to images; `notes` say how its shape is read where that is not plain.

    Raises:
        DataError: the shape or type is not that of images.
    """

    def __init__(self, spec: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if len(shape) not in (3, 4) or (len(shape) == 4 and not {shape[1], shape[3]} & {1, 3}):
            raise DataError(
                f"{spec} has shape {shape}: images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3"
            )
        if len(shape) == 3 and shape[2] == 3:
            # as `handed.images` refuses it
            raise DataError(
                f"{spec} has shape {shape}, which may be one image in colour or {shape[0]} grey ones of width 3: "
                f"save images[None] for one, images[..., None] for {shape[0]}"
            )
        if dtype != np.uint8 and dtype.kind != "f":
            raise DataError(f"{spec} is {dtype}: images are uint8 in 0..255 or float in 0..1")
        if 0 in shape:
            raise DataError(f"{spec} has shape {shape}: it has no images")
        self.notes: tuple[str, ...] = ()
        if len(shape) == 3 and shape[2] in (1, 4) and shape[1] != shape[2]:
            grey = f"{shape[0]} grey images of {shape[1]} rows and {shape[2]} columns"
            self.notes = (f"shape {shape} is read as {grey}: save images[None, ..., :3] if it is one image",)
        self.count = shape[0]
        self.nbytes = int(np.prod(shape[1:])) * dtype.itemsize
        self._planes_first = len(shape) == 4 and shape[3] not in (1, 3)

    def image(self, row: NDArray[Any], name: str) -> PixelArray:
        """Convert one row to (H, W, C) uint8; `name` is named in an error."""
        if row.dtype != np.uint8:
            try:
                row = from_unit(row)
            except DataError as err:
                raise DataError(f"{name}: {err}") from err
        if row.ndim == 2:
            return row[:, :, None]
        return row.transpose(1, 2, 0) if self._planes_first else row

    def content(self, row: NDArray[Any]) -> bytes:
        """Return what the fingerprint covers of one row: its type, shape and values."""
        return f"{row.dtype.str}{row.shape}".encode() + row.tobytes()
