"""The rows of an embedding file as they are searched (float32; of unit length under cosine): all of them in memory or inside a flat index,
or some at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.reader import Embeddings
from galirep.metrics.arrays import F32, Ints
from galirep.search.distances import prepare_vectors
from galirep.search.faiss_library import load_faiss

_IN_CACHE = 1 << 21  # bytes that are still in a core's cache when they are used after reading
HELD_BYTES = 3 << 26  # of vectors that `Vectors` keeps, at most


def _nothing(_: int) -> None: ...


def fill(out: F32, embeddings: Embeddings, metric: str, progress: Callable[[int], object] = _nothing) -> F32:
    """Every row into `out` (N, D), which comes back; `progress` is called with the number of rows done since its last call.

    Raises:
        DataError: see `distances.prepare_vectors`.
    """
    for rows, block in embeddings.blocks(max(1, _IN_CACHE // (4 * embeddings.dim))):
        named = _namer(embeddings, rows.start)
        prepare_vectors(block, metric, named, str(embeddings.path), out=out[rows])
        progress(len(block))
    return out


def _namer(embeddings: Embeddings, start: int) -> Callable[[int], str]:
    return lambda i: embeddings.ids[start + i]


def flat_memory(index: Any, n: int) -> F32:
    """Give an empty flat index n rows of zeros, to be filled in place: (n, D). Adding rows copies each, and all when the index grows."""
    index.codes.resize(n * index.code_size)
    index.ntotal = n
    return flat_vectors(index)


def flat_vectors(index: Any) -> F32:
    """The (N, D) vectors of a flat index, without a copy."""
    return np.asarray(_Memory(index))


class _Memory:
    """The vectors inside a flat index as numpy sees memory; an array made of it keeps the index alive."""

    def __init__(self, index: Any) -> None:
        self.index = index
        memory = load_faiss().rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self.__array_interface__ = {**memory.__array_interface__, "shape": (index.ntotal, index.d)}


class Vectors:
    """The rows for whoever needs them more than once: kept from the first reading where they are few, else read again.

    Raises, as do its methods:
        DataError: see `distances.prepare_vectors`.
    """

    def __init__(self, embeddings: Embeddings, metric: str) -> None:
        self._embeddings, self._metric = embeddings, metric
        shape = (len(embeddings), embeddings.dim)
        self._held = fill(np.empty(shape, np.float32), embeddings, metric) if 4 * np.prod(shape) <= HELD_BYTES else None

    def __len__(self) -> int:
        return len(self._embeddings)

    def at(self, rows: Ints) -> F32:
        """(R, D) of the rows at ascending places."""
        return self._prepared(self._embeddings.features[rows], rows) if self._held is None else self._held[rows]

    def blocks(self) -> Iterator[tuple[slice, F32]]:
        """All rows in order, with their places."""
        if self._held is not None:
            yield slice(0, len(self)), self._held
            return
        for rows, block in self._embeddings.blocks():
            yield rows, self._prepared(block, np.arange(rows.start, rows.stop))

    def _prepared(self, features: NDArray[np.float32], rows: Ints) -> F32:
        return prepare_vectors(
            features, self._metric, lambda i: self._embeddings.ids[rows[i]], str(self._embeddings.path)
        )
