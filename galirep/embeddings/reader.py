"""`load_embeddings`: open an embedding file for lazy reading."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.file_access import open_file
from galirep.embeddings.integrity.checksums import require_intact
from galirep.embeddings.integrity.structure import require_labels
from galirep.embeddings.schema import (
    partial_path,
    read_attributes,
    read_errors,
    read_meta,
    read_progress,
    read_reasons,
    schema_of,
)
from galirep.embeddings.storage.features import read_feature_rows
from galirep.errors import ConfigError, DataError
from galirep.system.layer_names import check_layer_names
from galirep.system.reading.hdf5 import reading

_BLOCK_BYTES = 1 << 24


class Embeddings:
    """An open embedding file, read lazily; a context manager. Get one with `load_embeddings`.

    Its rows are those of the images that could be read, in the order of the data set (all rows with
    `valid_only=False`); its columns those of the chosen layers. Features are always read as float32. Attributes:
    `path`, `meta` (`StoreMeta`), `schema_version`, `layers` (name -> slice of the columns), `dim`, `complete`, `ids`,
    `labels`, `label_names`, `errors`, `features`, `file` (the open `h5py.File`).
    """

    def __init__(
        self, path: Path, file: h5py.File, layers: Sequence[str] | None = None, valid_only: bool = True
    ) -> None:
        with reading(path):
            self.path, self.meta = path, read_meta(file)
        self.file, self._valid_only = file, valid_only
        file_columns = self.meta.columns
        chosen = check_layer_names(
            tuple(file_columns) if layers is None else layers,
            file_columns,
            str(path),
            unknown_error=DataError,
            repeated_error=ConfigError,
        )
        self._file_columns = [file_columns[name] for name in chosen]
        stops = np.cumsum([0, *(columns.stop - columns.start for columns in self._file_columns)]).tolist()
        self.layers = {name: slice(a, b) for name, a, b in zip(chosen, stops[:-1], stops[1:], strict=True)}
        self.dim: int = stops[-1]
        self.schema_version, progress = schema_of(file), read_progress(file)
        self._written, self.complete = progress.n_written, progress.complete

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names, by label; empty if the data set has none."""
        return self.meta.label_names

    @property
    def attributes(self) -> dict[str, Any]:
        """All root attributes of the file that are one value, with `n_written` and `complete`."""
        with reading(self.path):
            return read_attributes(self.file)

    @cached_property
    def _file_rows(self) -> NDArray[np.int64]:
        """The row of the file for each row of this object."""
        if not self._valid_only:
            return np.arange(self._written)
        with reading(self.path):
            return np.flatnonzero(self.file["valid"][: self._written])

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """The id of each row: (N,) str."""
        with reading(self.path):
            return np.asarray(self._column(self.file["ids"].asstr()), dtype=object)

    def utf8_ids(self, start: int, stop: int) -> NDArray[np.object_]:
        """Read only ids[start:stop], as UTF-8 bytes (all ids of a million rows would take 100 MB)."""
        rows = self._file_rows[start:stop]
        if not len(rows):
            return np.empty(0, dtype=object)
        with reading(self.path):
            return np.asarray(self.file["ids"][rows[0] : rows[-1] + 1][rows - rows[0]], dtype=object)

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """The label of each row: (N,) int64, -1 for none; or None if no row has a label."""
        with reading(self.path):
            labels: NDArray[np.int64] = self._column(self.file["labels"]).astype(np.int64, copy=False)
        return labels if (labels >= 0).any() else None

    @cached_property
    def errors(self) -> list[tuple[str, str]]:
        """(id, reason) of each image that could not be read."""
        with reading(self.path):
            return read_errors(self.file)

    @cached_property
    def reasons(self) -> dict[int, str]:
        """The reason for each row of the file (also with `valid_only`) whose image could not be read."""
        with reading(self.path):
            return read_reasons(self.file)

    @cached_property
    def feature_sums(self) -> NDArray[np.uint32] | None:
        """The CRC-32 of all columns of each row, as the file has it: (N,) uint32; None for a file of schema 1."""
        if self.schema_version == 1:
            return None
        with reading(self.path):
            sums: NDArray[np.uint32] = self._column(self.file["checksums"])[:, 0]
        return sums

    def require_intact(self, *, features: bool = True) -> None:
        """Compare the file with its checksums; without `features`, all but these. A file of schema 1 has none.

        Raises:
            DataError: something is not what was written.
        """
        require_intact(self.file, self.path, features=features)

    @property
    def features(self) -> "FeatureArray":
        """The features on disk, (N, dim) float32.

        Index it as an array (`features[10:20]`, `features[[3, 1]]`); `np.asarray(features)` reads it all.
        """
        return FeatureArray(self)

    def rows(self, start: int, stop: int, layers: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Read the rows start to stop, (stop - start, dim) float32, of `layers` or of all chosen layers."""
        return (self if layers is None else self.select(layers)).features[start:stop]

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Read all rows in order, as pairs of a slice of the rows and their features (size, dim) float32.

        `size` defaults to as many rows as take 16 MiB.
        """
        size = size or max(1, _BLOCK_BYTES // (4 * self.dim))
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.features[rows]

    def select(self, layers: Sequence[str]) -> "Embeddings":
        """Return the same rows with the columns of `layers`, in this order; it shares the open file."""
        return Embeddings(self.path, self.file, layers, self._valid_only)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __len__(self) -> int:
        return len(self._file_rows)

    def __enter__(self) -> "Embeddings":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _column(self, dataset: Any) -> Any:
        return dataset[: self._written][self._file_rows]

    def _read_features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows of the file, in the order given, in the chosen columns."""
        with reading(self.path):
            return read_feature_rows(self.file["features"], rows, self._file_columns)


class FeatureArray:
    """The features of `Embeddings` as a lazy (N, dim) float32 array."""

    dtype = np.dtype(np.float32)

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    @property
    def shape(self) -> tuple[int, int]:
        """(N, dim)."""
        return len(self._embeddings), self._embeddings.dim

    def __len__(self) -> int:
        return len(self._embeddings)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        rows = self._embeddings._file_rows[index]
        features = self._embeddings._read_features(np.atleast_1d(rows))
        return features if np.ndim(rows) else features[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)


def load_embeddings(
    path: str | Path,
    layers: Sequence[str] | None = None,
    *,
    valid_only: bool = True,
    incomplete: bool = False,
    check: bool = False,
    locking: bool | None = None,
) -> Embeddings:
    """Open an embedding file for reading.

    `layers` chooses columns by layer name. `valid_only=False` keeps the rows of unreadable images (zeros).
    `incomplete=True` also opens the `.partial` of an interrupted run, with the rows written so far. `locking=False`
    does without the file lock (for file systems that do not support locks). `check=True` reads the whole file once and
    compares it with its checksums (files of schema 1 have none).

    Raises:
        DataError: the file does not exist, is not an embedding file, is truncated, not complete or of another schema
            version, or a layer is unknown; or (`check`) it is not as it was written.
        ConfigError: a layer is named twice.
    """
    path = Path(path)
    if not path.exists() and partial_path(path).exists():
        raise DataError(
            f"{path} is not complete: an interrupted run left {partial_path(path).name}; run it again with --resume"
        )
    file = open_file(path, locking=locking)
    try:
        progress = read_progress(file)
        if not (progress.complete or incomplete):
            rows = f"{progress.n_written} of {file.attrs['n_expected']} rows"
            raise DataError(f"{path} is not complete ({rows}): run the command that made it with --resume")
        if check:
            require_intact(file, path)
        embeddings = Embeddings(path, file, layers, valid_only)
        if not incomplete and embeddings.labels is not None:
            # whoever looks into an incomplete or damaged file wants to see it as it is
            require_labels(embeddings.labels, len(embeddings.label_names), path)
        return embeddings
    except BaseException:
        file.close()
        raise
