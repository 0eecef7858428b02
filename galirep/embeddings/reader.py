"""The embedding file: `load_embeddings` opens it for lazy reading; `EmbeddingWriter` and `StoreMeta` write it."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.schema import open_file, partial_path, read_errors, read_meta
from galirep.errors import ConfigError, DataError, unknown

_BLOCK_BYTES = 1 << 24


class Embeddings:
    """An embedding file, read lazily; a context manager. Get one with `load_embeddings`.

    Its rows are those of the images that could be read, in the order of the data set (all rows with `valid_only=False`); its columns
    those of the layers chosen. Features always come as float32. Attributes: `path`, `meta` (`StoreMeta`), `layers` (name -> slice of the
    columns), `dim`, `complete`, `ids`, `labels`, `label_names`, `errors`, `features`.
    """

    def __init__(
        self, path: Path, file: h5py.File, layers: Sequence[str] | None = None, valid_only: bool = True
    ) -> None:
        self.path, self.meta, self._file, self._valid_only = path, read_meta(file), file, valid_only
        known = self.meta.columns
        chosen = tuple(known) if layers is None else tuple(layers)
        if missing := [name for name in chosen if name not in known]:
            raise DataError(f"{path}: {unknown('layer', missing[0], known)}")
        if not chosen or len(set(chosen)) < len(chosen):
            raise ConfigError(f"layers {', '.join(chosen) or '(none)'}: name each layer once, of {', '.join(known)}")
        self._stored = [known[name] for name in chosen]
        stops = np.cumsum([0, *(s.stop - s.start for s in self._stored)]).tolist()
        self.layers = {name: slice(a, b) for name, a, b in zip(chosen, stops[:-1], stops[1:], strict=True)}
        self.dim: int = stops[-1]
        self.complete = bool(file.attrs["complete"])

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names, by label; empty where the set has none."""
        return self.meta.label_names

    @property
    def attributes(self) -> dict[str, Any]:
        """Every root attribute as it stands in the file."""
        return {
            name: value.item() if isinstance(value, np.generic) else value for name, value in self._file.attrs.items()
        }

    @cached_property
    def _rows(self) -> NDArray[np.int64]:  # row of this object -> row of the file
        written = int(self._file.attrs["n_written"])
        return np.flatnonzero(self._file["valid"][:written]) if self._valid_only else np.arange(written)

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """(N,) str: the id of each row."""
        return np.asarray(self._column(self._file["ids"].asstr()), dtype=object)

    def utf8_ids(self, start: int, stop: int) -> NDArray[np.object_]:
        """`ids[start:stop]` as bytes, of which no more is read; a million ids take 100 MB."""
        rows = self._rows[start:stop]
        if not len(rows):
            return np.empty(0, dtype=object)
        found: NDArray[np.object_] = self._file["ids"][rows[0] : rows[-1] + 1][rows - rows[0]]
        return found

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,) int64, -1 where a row has none; None where no row has one."""
        labels: NDArray[np.int64] = self._column(self._file["labels"])
        return labels if (labels >= 0).any() else None

    @cached_property
    def errors(self) -> list[tuple[str, str]]:
        """(id, reason) of each image that could not be read."""
        return read_errors(self._file)

    @property
    def features(self) -> "FeatureArray":
        """(N, dim) float32 on disk: index it as an array (`features[10:20]`, `features[[3, 1]]`); `np.asarray(features)` reads it all."""
        return FeatureArray(self)

    def rows(self, start: int, stop: int, layers: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Rows start to stop, as (stop - start, dim) float32, of these layers or of all that were chosen."""
        return (self if layers is None else self.select(layers)).features[start:stop]

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """All rows in order as (slice of the rows, (size, dim) float32); about 16 MiB at a time unless `size` says how many rows."""
        size = size or max(1, _BLOCK_BYTES // (4 * self.dim))
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.features[rows]

    def select(self, layers: Sequence[str]) -> "Embeddings":
        """The same rows with the columns of these layers, in this order; it shares the open file."""
        return Embeddings(self.path, self._file, layers, self._valid_only)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._rows)

    def __enter__(self) -> "Embeddings":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _column(self, dataset: Any) -> Any:
        return dataset[: int(self._file.attrs["n_written"])][self._rows]

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        stored = self._file["features"]
        if len(rows) and (np.diff(rows) == 1).all():
            parts = [stored[rows[0] : rows[-1] + 1, columns] for columns in self._stored]
            whole: NDArray[Any] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
            return whole.astype(np.float32, copy=False)
        out = np.empty((len(rows), self.dim), np.float32)
        if not len(rows):
            return out
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        # neighbours in one chunk, or without a gap, are read at once
        breaks = np.flatnonzero((np.diff(ordered) > 1) & (np.diff(ordered // (stored.chunks or (1024,))[0]) > 0)) + 1
        for part in np.split(np.arange(len(rows)), breaks):
            first, last = ordered[part[0]], ordered[part[-1]]
            for source, target in zip(self._stored, self.layers.values(), strict=True):
                out[order[part], target] = stored[first : last + 1, source][ordered[part] - first]
        return out


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
        rows = self._embeddings._rows[index]
        return (
            self._embeddings._read(np.atleast_1d(rows))
            if np.ndim(rows)
            else self._embeddings._read(np.atleast_1d(rows))[0]
        )

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

    `layers` chooses columns by layer name. `valid_only=False` keeps the rows of unreadable images (zeros). `incomplete=True` also opens the
    `.partial` of an interrupted run, as far as it goes. `locking=False` does without the file lock (for file systems that have none).

    Raises:
        DataError: no such file, not an embedding file, truncated, of another schema version, not complete, or an unknown layer.
    """
    path = Path(path)
    if not path.exists() and partial_path(path).exists():
        raise DataError(
            f"{path} is not complete: an interrupted run left {partial_path(path).name}; run it again with --resume"
        )
    file = open_file(path, locking=locking)
    try:
        if not (file.attrs["complete"] or incomplete):
            done, expected = file.attrs["n_written"], file.attrs["n_expected"]
            raise DataError(f"{path} is not complete ({done} of {expected} rows): run what made it again with --resume")
        return Embeddings(path, file, layers, valid_only)
    except BaseException:
        file.close()
        raise
