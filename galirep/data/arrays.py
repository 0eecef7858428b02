"""Files whose images are arrays already: npz, HDF5, and scikit-learn's digits."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.data.picture import PixelArray, from_unit
from galirep.data.sources import ImageSource, check_labels, row_numbers
from galirep.errors import DataError, unknown

IMAGE_NAMES = ("images", "x", "arr_0")
LABEL_NAMES = ("labels", "y", "arr_1")


class Hdf5Source(ImageSource):
    """A dataset of images in an HDF5 file, read row by row; labels beside it under `labels` or `y`.

    Raises:
        DataError: no such dataset, or as for `ArraySource`.
    """

    def __init__(self, spec: str, path: Path, dataset: str | None = None) -> None:
        self._path = str(path)
        self._open: Any = None
        try:
            with h5py.File(self._path, "r", locking="best-effort") as file:
                self._dataset = dataset or _pick(
                    spec, [k for k, v in file.items() if isinstance(v, h5py.Dataset)], IMAGE_NAMES[:2]
                )
                images = file.get(self._dataset)
                if not isinstance(images, h5py.Dataset):
                    raise DataError(f"{spec}: " + unknown("dataset", self._dataset, _datasets(file)))
                self._rows = RowReader(spec, images.shape, images.dtype)
                names = [name for name in LABEL_NAMES[:2] if isinstance(images.parent.get(name), h5py.Dataset)]
                labels = images.parent[names[0]][()] if names else None
        except OSError as err:
            raise DataError(f"{spec} is no readable HDF5 file: {err}") from err
        super().__init__(spec, row_numbers(self._rows.count), check_labels(spec, labels, self._rows.count))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}  # a handle is of one process

    def _row(self, index: int) -> NDArray[Any]:
        if self._open is None:
            self._open = h5py.File(self._path, "r", locking="best-effort")[self._dataset]
        row: NDArray[Any] = self._open[index]
        return row

    def read(self, index: int) -> PixelArray:
        """One row, see `ImageSource.read`."""
        try:
            row = self._row(index)
        except OSError as err:
            raise DataError(f"{self.ids[index]}: row {index} of {self.spec} cannot be read: {err}") from err
        return self._rows.image(row, self.ids[index])

    def content(self, index: int) -> bytes:
        """The row's type, shape and values."""
        try:
            return self._rows.content(self._row(index))
        except OSError:
            return b""

    def sizes(self) -> list[int]:
        """The size of a row, for each."""
        return [self._rows.nbytes] * len(self)


def open_npz(spec: str, path: Path) -> ImageSource:
    """Arrays `images`, `x` or `arr_0`, and `labels`, `y` or `arr_1`, of an npz file.

    Raises:
        DataError: no npz file, no such array, or as for `ArraySource`.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(
                f"{spec} holds a single array, not named ones: save it with numpy.savez(file, images=..., labels=...)"
            )
        with file:
            names = list(file)
            images = file[_pick(spec, names, IMAGE_NAMES)]
            labels = next((file[name] for name in LABEL_NAMES if name in names), None)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise DataError(f"{spec} is no readable npz file: {err}") from err
    source = ArraySource(spec, images, labels)
    if images.dtype != np.uint8:
        from_unit(images)  # one bad value means another convention: say so now, not as 60,000 unreadable images
    return source


def open_digits(spec: str, split: str | None) -> ImageSource:
    """scikit-learn's 1,797 handwritten digits: 8x8 grey, 0..16 scaled to 0..255; every fourth image of each class is the test split.

    Raises:
        DataError: a split that is not `train` or `test`.
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


def _pick(spec: str, there: Sequence[str], wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in there:
            return name
    raise DataError(f"{spec} has no array named {' or '.join(wanted)}: it holds {', '.join(there) or 'none'}")


def _datasets(file: Any) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return [name for name in names if isinstance(file[name], h5py.Dataset)]


class ArraySource(ImageSource):
    """Images in memory: (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or float in [0, 1]; their ids are row numbers unless given.

    Raises:
        DataError: another shape, type or range, or labels that do not fit.
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
        super().__init__(
            spec, ids or row_numbers(len(images)), check_labels(spec, labels, len(images)), label_names, split
        )
        self._images = images

    def read(self, index: int) -> PixelArray:
        """One row, see `ImageSource.read`."""
        return self._rows.image(self._images[index], self.ids[index])

    def content(self, index: int) -> bytes:
        """The row's type, shape and values."""
        return self._rows.content(self._images[index])

    def sizes(self) -> list[int]:
        """The size of a row, for each."""
        return [self._images[0].nbytes] * len(self)


class RowReader:
    """How the rows of an array become images."""

    def __init__(self, spec: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if len(shape) not in (3, 4) or (len(shape) == 4 and not {shape[1], shape[3]} & {1, 3}):
            raise DataError(
                f"{spec} has shape {shape}: images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3"
            )
        if dtype != np.uint8 and dtype.kind != "f":
            raise DataError(f"{spec} is {dtype}: images are uint8 in 0..255 or float in 0..1")
        if 0 in shape:
            raise DataError(f"{spec} has shape {shape}: it holds no images")
        self.count = shape[0]
        self.nbytes = int(np.prod(shape[1:])) * dtype.itemsize
        self._planes_first = len(shape) == 4 and shape[3] not in (1, 3)

    def image(self, row: NDArray[Any], name: str) -> PixelArray:
        """(H, W, C) uint8 of one row."""
        if row.dtype != np.uint8:
            try:
                row = from_unit(row)
            except DataError as err:
                raise DataError(f"{name}: {err}") from err
        if row.ndim == 2:
            return row[:, :, None]
        return row.transpose(1, 2, 0) if self._planes_first else row

    def content(self, row: NDArray[Any]) -> bytes:
        """What the fingerprint covers of one row."""
        return f"{row.dtype.str}{row.shape}".encode() + row.tobytes()
