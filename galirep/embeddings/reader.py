"""`load_embeddings`: open an embedding file for lazy reading."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.file_access import open_file
from galirep.embeddings.integrity.structure import require_labels
from galirep.embeddings.schema import partial_path, read_errors, read_meta
from galirep.errors import ConfigError, DataError
from galirep.system.layer_names import check_layer_names
from galirep.system.reading.hdf5 import attributes, reading

_BLOCK_BYTES = 1 << 24


class Embeddings:
    """An open embedding file, read lazily; a context manager. Get one with `load_embeddings`.

    Its rows are those of the images that could be read, in the order of the data set (all rows with
    `valid_only=False`); its columns those of the chosen layers. Features are always read as float32. Attributes:
    `path`, `meta` (`StoreMeta`), `layers` (name -> slice of the columns), `dim`, `complete`, `ids`, `labels`,
    `label_names`, `errors`, `features`.
    """

    def __init__(
        self, path: Path, file: h5py.File, layers: Sequence[str] | None = None, valid_only: bool = True
    ) -> None:
        with reading(path):
            self.path, self.meta = path, read_meta(file)
        self._file, self._valid_only = file, valid_only
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
        self.complete = bool(file.attrs["complete"])

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names, by label; empty if the data set has none."""
        return self.meta.label_names

    @property
    def attributes(self) -> dict[str, Any]:
        """All root attributes of the file that are one value."""
        with reading(self.path):
            return attributes(self._file)

    @cached_property
    def _file_rows(self) -> NDArray[np.int64]:
        """The row of the file for each row of this object."""
        written = int(self._file.attrs["n_written"])
        if not self._valid_only:
            return np.arange(written)
        with reading(self.path):
            return np.flatnonzero(self._file["valid"][:written])

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """The id of each row: (N,) str."""
        with reading(self.path):
            return np.asarray(self._column(self._file["ids"].asstr()), dtype=object)

    def utf8_ids(self, start: int, stop: int) -> NDArray[np.object_]:
        """Read only ids[start:stop], as UTF-8 bytes (all ids of a million rows would take 100 MB)."""
        rows = self._file_rows[start:stop]
        if not len(rows):
            return np.empty(0, dtype=object)
        with reading(self.path):
            ids: NDArray[np.object_] = self._file["ids"][rows[0] : rows[-1] + 1][rows - rows[0]]
        return ids

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """The label of each row: (N,) int64, -1 for none; or None if no row has a label."""
        with reading(self.path):
            labels: NDArray[np.int64] = self._column(self._file["labels"]).astype(np.int64, copy=False)
        return labels if (labels >= 0).any() else None

    @cached_property
    def errors(self) -> list[tuple[str, str]]:
        """(id, reason) of each image that could not be read."""
        with reading(self.path):
            return read_errors(self._file)

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
        return Embeddings(self.path, self._file, layers, self._valid_only)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._file_rows)

    def __enter__(self) -> "Embeddings":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _column(self, dataset: Any) -> Any:
        return dataset[: int(self._file.attrs["n_written"])][self._file_rows]

    def _read_features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows of the file, in the order given, in the chosen columns."""
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        with reading(self.path):
            if (np.diff(rows) == 1).all():
                return self._read_consecutive(rows[0], rows[-1] + 1)
            return self._read_scattered(rows)

    def _read_consecutive(self, start: int, stop: int) -> NDArray[np.float32]:
        dataset = self._file["features"]
        blocks = [dataset[start:stop, columns] for columns in self._file_columns]
        features: NDArray[Any] = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
        return features.astype(np.float32, copy=False)

    def _read_scattered(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        dataset = self._file["features"]
        features = np.empty((len(rows), self.dim), np.float32)
        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order]
        # rows of one chunk, and rows without a gap, are read at once
        chunk_rows = (dataset.chunks or (1024,))[0]
        breaks = np.flatnonzero((np.diff(sorted_rows) > 1) & (np.diff(sorted_rows // chunk_rows) > 0)) + 1
        for run in np.split(np.arange(len(rows)), breaks):
            first, last = sorted_rows[run[0]], sorted_rows[run[-1]]
            for source, target in zip(self._file_columns, self.layers.values(), strict=True):
                features[order[run], target] = dataset[first : last + 1, source][sorted_rows[run] - first]
        return features


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
    locking: bool | None = None,
) -> Embeddings:
    """Open an embedding file for reading.

    `layers` chooses columns by layer name. `valid_only=False` keeps the rows of unreadable images (zeros).
    `incomplete=True` also opens the `.partial` of an interrupted run, with the rows written so far. `locking=False`
    does without the file lock (for file systems that do not support locks).

    Raises:
        DataError: the file does not exist, is not an embedding file, is truncated, not complete or of another schema
            version, or a layer is unknown.
        ConfigError: a layer is named twice.
    """
    path = Path(path)
    if not path.exists() and partial_path(path).exists():
        raise DataError(
            f"{path} is not complete: an interrupted run left {partial_path(path).name}; run it again with --resume"
        )
    file = open_file(path, locking=locking)
    try:
        if not (file.attrs["complete"] or incomplete):
            written, expected = file.attrs["n_written"], file.attrs["n_expected"]
            raise DataError(
                f"{path} is not complete ({written} of {expected} rows): run the command that made it with --resume"
            )
        embeddings = Embeddings(path, file, layers, valid_only)
        if not incomplete and embeddings.labels is not None:
            # whoever looks into an incomplete or damaged file wants to see it as it is
            require_labels(embeddings.labels, len(embeddings.label_names), path)
        return embeddings
    except BaseException:
        file.close()
        raise
