"""Read the rows of an embedding file as prepared vectors: into an array, into a flat faiss index, or block by block."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.reader import Embeddings
from galirep.metrics.arrays import F32, Ints
from galirep.search.distances import prepare_vectors
from galirep.search.faiss_library import load_faiss

# a block of this size is still in a core's cache when it is used after reading
_CACHE_BYTES = 1 << 21
# the most that `PreparedVectors` keeps in memory, 192 MiB
MAX_HELD_BYTES = 3 << 26


def no_progress(_: int) -> None:
    """Ignore a progress report."""


def read_vectors_into(
    out: F32, embeddings: Embeddings, metric: str, progress: Callable[[int], object] = no_progress
) -> F32:
    """Read every row into `out` (N, D) and return it; `progress` gets the number of rows done since its last call.

    Raises:
        DataError: see `distances.prepare_vectors`.
    """
    for rows, block in embeddings.blocks(max(1, _CACHE_BYTES // (4 * embeddings.dim))):
        prepare_vectors(block, metric, _id_lookup(embeddings, rows.start), str(embeddings.path), out=out[rows])
        progress(len(block))
    return out


def _id_lookup(embeddings: Embeddings, start: int) -> Callable[[int], str]:
    return lambda i: embeddings.ids[start + i]


def allocate_flat(index: Any, n: int) -> F32:
    """Give an empty flat index n rows of zeros and return them as (n, D), to be filled in place.

    `index.add` would copy every row, and all rows again whenever the index grows.
    """
    index.codes.resize(n * index.code_size)
    index.ntotal = n
    return view_flat(index)


def view_flat(index: Any) -> F32:
    """Return the (N, D) vectors of a flat index without a copy."""
    return np.asarray(_FlatIndexArray(index))


class _FlatIndexArray:
    """The vectors of a flat index in numpy's array interface; an array made from it keeps the index alive."""

    def __init__(self, index: Any) -> None:
        self.index = index
        memory = load_faiss().rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self.__array_interface__ = {**memory.__array_interface__, "shape": (index.ntotal, index.d)}


class PreparedVectors:
    """The prepared rows of an embedding file, for several passes.

    Up to MAX_HELD_BYTES they are read once and kept in memory; above that each pass reads them again.

    Raises, as do its methods:
        DataError: see `distances.prepare_vectors`.
    """

    def __init__(self, embeddings: Embeddings, metric: str) -> None:
        self._embeddings = embeddings
        self._metric = metric
        self._held: F32 | None = None
        shape = (len(embeddings), embeddings.dim)
        if 4 * np.prod(shape) <= MAX_HELD_BYTES:
            self._held = read_vectors_into(np.empty(shape, np.float32), embeddings, metric)

    def __len__(self) -> int:
        return len(self._embeddings)

    def take(self, rows: Ints) -> F32:
        """Return the (R, D) vectors of `rows`, which must be in ascending order."""
        if self._held is not None:
            return self._held[rows]
        return self._prepare(self._embeddings.features[rows], rows)

    def blocks(self) -> Iterator[tuple[slice, F32]]:
        """Yield all rows in order, as (slice of the rows, their vectors)."""
        if self._held is not None:
            yield slice(0, len(self)), self._held
            return
        for rows, block in self._embeddings.blocks():
            yield rows, self._prepare(block, np.arange(rows.start, rows.stop))

    def _prepare(self, features: NDArray[np.float32], rows: Ints) -> F32:
        path = str(self._embeddings.path)
        return prepare_vectors(features, self._metric, lambda i: self._embeddings.ids[rows[i]], path)
