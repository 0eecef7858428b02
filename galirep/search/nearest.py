"""Two-stage k-NN: a scan (faiss or torch) returns candidates; `Search` re-ranks them exactly, so both agree on ties."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from galirep.errors import DataError
from galirep.metrics.arrays import F32, Ints
from galirep.search.distances import MAX_LENGTH, distance
from galirep.search.faiss_library import copy_to_gpu

# scratch memory for one block of queries
_SCRATCH_BYTES = 1 << 26
# scratch memory that stays in a core's cache
_CACHE_BYTES = 1 << 19
# rows compared at a time when one query is compared with many
_RESCAN_ROWS = 4096
# a limit of faiss
_MAX_K_ON_GPU = 2048


class Scan(Protocol):
    """A fast search with coarse distances: float32 rounding is allowed, and l2 distances are squared."""

    def __call__(self, queries: F32, k: int, /) -> tuple[F32, Ints]:
        """Map (Q, D) queries to (Q, k) coarse distances, ascending, and (Q, k) rows, -1 where none was found."""
        ...


class FaissScan:
    """A faiss index, searched on the CPU or, with `device` cuda, on the GPU if this faiss can use one."""

    def __init__(self, index: Any, metric: str, device: str = "cpu") -> None:
        self._index = index
        self._gpu_index = copy_to_gpu(index, device)
        self._metric = metric

    def __call__(self, queries: F32, k: int, /) -> tuple[F32, Ints]:
        """Search the index; see `Scan`."""
        on_gpu = self._gpu_index is not None and k <= _MAX_K_ON_GPU
        index = self._gpu_index if on_gpu else self._index
        distances, rows = index.search(queries, k)
        # faiss gives squared distances under l2, else inner products
        if self._metric != "l2":
            np.subtract(1.0 if self._metric == "cosine" else 0.0, distances, out=distances)
        distances[rows < 0] = np.inf
        return distances, rows


class TorchScan:
    """All rows, searched exhaustively by matrix products on any torch device; needs no faiss."""

    def __init__(self, vectors: F32, metric: str, device: str = "cpu") -> None:
        self._metric = metric
        self._vectors = torch.from_numpy(vectors).to(device)
        self._squared_norms = (self._vectors * self._vectors).sum(dim=1) if metric == "l2" else None

    def __call__(self, queries: F32, k: int, /) -> tuple[F32, Ints]:
        """Search all rows; see `Scan`."""
        parts = [torch.topk(block, k, dim=1, largest=False) for block in self.distance_blocks(queries)]
        distances = torch.cat([part.values for part in parts]).cpu().numpy()
        rows = torch.cat([part.indices for part in parts]).cpu().numpy()
        return distances, rows

    def distance_blocks(self, queries: F32) -> Iterator[torch.Tensor]:
        """Yield the coarse distances of some queries at a time to every row, (q, N), on the device."""
        size = max(1, _SCRATCH_BYTES // (4 * len(self._vectors)))
        for start in range(0, len(queries), size):
            block = torch.from_numpy(queries[start : start + size]).to(self._vectors.device)
            product = block @ self._vectors.T
            if self._squared_norms is None:
                yield product.neg_().add_(1.0 if self._metric == "cosine" else 0.0)
            else:
                yield product.mul_(-2).add_(self._squared_norms).add_((block * block).sum(dim=1, keepdim=True))


class Search:
    """k-NN search in the order of (distance, row): of two rows at the same distance, the lower row comes first.

    With `vectors`, the (N, D) float32 that `scan` searches exhaustively, the result is exact: `distances.distance` of
    each pair decides, not the rounding of a matrix product, so faiss and torch give the same neighbours for any batch
    size. Without `vectors` (an index of codes) distances and recall are those of the scan.

    Raises:
        DataError: vectors are longer than `distances.MAX_LENGTH` under l2 or ip.
    """

    def __init__(self, scan: Scan, metric: str, size: int, vectors: F32 | None = None) -> None:
        self.exact = vectors is not None
        self._scan = scan
        self._metric = metric
        self._size = size
        self._vectors = vectors
        self._max_norm = 1.0
        if vectors is not None and metric != "cosine":
            self._max_norm = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max()))
            # an index of a version that did not check
            if not self._max_norm <= MAX_LENGTH:
                raise DataError(
                    f"the index has vectors longer than {MAX_LENGTH:.2g}, beyond which squares are no float32: build "
                    "it again, with --metric cosine or from smaller features"
                )

    def __call__(self, queries: F32, k: int, exclude: Ints | None = None) -> tuple[F32, Ints]:
        """Map (Q, D) prepared queries to (Q, k) distances and (Q, k) rows.

        Where an inexact index finds fewer than k rows, the rest are row -1 at distance inf. `exclude` (Q,) is one row
        per query that is left out of its neighbours: the query itself.
        """
        n_neighbors = k + (exclude is not None)
        if self._vectors is None:
            distances, rows = self._search_inexactly(queries, n_neighbors)
        else:
            distances, rows = self._search_exactly(queries, n_neighbors, self._vectors)
        if exclude is not None:
            rows, distances = drop_excluded(exclude, rows, distances)
        return distances, rows

    def rank(self, queries: F32, depth: int, exclude: Ints | None = None) -> Iterator[Ints]:
        """Yield the nearest rows, (q, depth) for some queries at a time, without distances; MAP@R needs whole classes.

        Unlike in `__call__`, rows at equal distance come in any order.

        Raises:
            TypeError: the search is not exact.
        """
        start = 0
        for block in self._full_scan.distance_blocks(queries):
            rows = torch.topk(block, depth + (exclude is not None), dim=1, largest=False).indices.cpu().numpy()
            yield rows if exclude is None else drop_excluded(exclude[start : start + len(rows)], rows)[0]
            start += len(rows)

    def range_search(self, queries: F32, radius: float) -> Iterator[tuple[Ints, Ints, F32]]:
        """Yield all pairs at distance `radius` or less, for some queries at a time.

        Each item has the indices into `queries`, the rows and the distances, (P,) each.

        Raises:
            TypeError: the search is not exact.
        """
        limits = self._coarse_limits(queries, np.full(len(queries), radius, np.float32))
        start = 0
        for block in self._full_scan.distance_blocks(queries):
            block_limits = torch.from_numpy(limits[start : start + len(block)]).to(block.device)
            block_queries, block_rows = (block <= block_limits[:, None]).nonzero(as_tuple=True)
            query_indices = block_queries.cpu().numpy() + start
            rows = block_rows.cpu().numpy()
            distances = self._pair_distances(queries, query_indices, rows)
            near = distances <= radius
            yield query_indices[near], rows[near], distances[near]
            start += len(block)

    def _pair_distances(self, queries: F32, query_indices: Ints, rows: Ints) -> F32:
        assert self._vectors is not None
        step = max(1, _SCRATCH_BYTES // (8 * queries.shape[1]))
        parts = [slice(start, start + step) for start in range(0, max(1, len(rows)), step)]
        return np.concatenate(
            [distance(queries[query_indices[part]], self._vectors[rows[part]], self._metric) for part in parts]
        )

    @cached_property
    def _full_scan(self) -> TorchScan:
        if self._vectors is None:
            raise TypeError("only an exact search can compare a query with every row")
        return self._scan if isinstance(self._scan, TorchScan) else TorchScan(self._vectors, self._metric)

    def _search_inexactly(self, queries: F32, k: int) -> tuple[F32, Ints]:
        coarse, rows = self._scan(queries, k)
        # rounding can make a distance slightly negative; only ip has true negative distances
        distances, rows = _sort_by_distance(coarse if self._metric == "ip" else np.maximum(coarse, 0), rows)
        return np.sqrt(distances) if self._metric == "l2" else distances, rows

    def _search_exactly(self, queries: F32, k: int, vectors: F32) -> tuple[F32, Ints]:
        n_candidates = min(self._size, k + 4 + k // 16)
        coarse, rows = self._scan(queries, n_candidates)
        distances = np.empty(rows.shape, np.float32)
        step = max(1, _CACHE_BYTES // (8 * n_candidates * vectors.shape[1]))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            distances[part] = distance(queries[part, None, :], vectors[rows[part]], self._metric)
        distances, rows = _sort_by_distance(distances, rows)
        distances, rows = distances[:, :k], rows[:, :k]
        # A row that is not a candidate may tie with the k-th neighbour, within the rounding of the scan.
        if n_candidates < self._size:
            limits = self._coarse_limits(queries, distances[:, -1])
            for i in np.flatnonzero(limits >= coarse[:, -1]):
                distances[i], rows[i] = self._rescan(queries[i], limits[i], k, vectors)
        return distances, rows

    def _coarse_limits(self, queries: F32, distance: F32) -> F32:
        """Bound the (Q,) coarse distances of all rows that are at most `distance` (Q,) away.

        The rounding of a product of D terms grows like sqrt(D).
        """
        norms = np.linalg.norm(queries, axis=1)
        scale = np.square(norms + self._max_norm) if self._metric == "l2" else norms * self._max_norm
        # squares below `tiny` lose digits or become 0
        smallest = queries.shape[1] * np.finfo(np.float32).tiny
        rounding = 4 * (np.finfo(np.float32).eps * np.sqrt(queries.shape[1]) * scale + smallest)
        return np.asarray((np.square(distance) if self._metric == "l2" else distance) + rounding, dtype=np.float32)

    def _rescan(self, query: F32, limit: np.float32, k: int, vectors: F32) -> tuple[F32, Ints]:
        """Return the k nearest of all rows within the coarse distance `limit`, each compared exactly."""
        product = vectors @ query
        if self._metric == "l2":
            coarse = np.einsum("nd,nd->n", vectors, vectors) - 2 * product + query @ query
        else:
            coarse = (1 if self._metric == "cosine" else 0) - product
        rows = np.flatnonzero(coarse <= limit)
        parts = [rows[start : start + _RESCAN_ROWS] for start in range(0, len(rows), _RESCAN_ROWS)]
        distances = np.concatenate([distance(query, vectors[part], self._metric) for part in parts])
        order = np.argsort(distances, kind="stable")[:k]
        return distances[order], rows[order]


def drop_excluded(exclude: Ints, rows: Ints, *others: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Drop one column per query from each array: that of the excluded row, or the last if it is not among `rows`."""
    keep = rows != exclude[:, None]
    keep[keep.all(axis=1), -1] = False
    return tuple(array[keep].reshape(len(rows), -1) for array in (rows, *others))


def _sort_by_distance(distances: F32, rows: Ints) -> tuple[F32, Ints]:
    order = np.lexsort((rows, distances), axis=-1)
    return np.take_along_axis(distances, order, axis=-1), np.take_along_axis(rows, order, axis=-1)
