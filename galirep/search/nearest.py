"""k nearest rows of a gallery: a scan proposes candidates fast (faiss or torch), a search puts them into one order that no scan can
change."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from galirep.metrics.arrays import F32, Ints
from galirep.search.distances import distance
from galirep.search.faiss_library import load_faiss

_BYTES = 1 << 26  # of scratch memory for one block
_CACHE = 1 << 19  # of scratch that stays in a core's cache
_MAX_K_ON_GPU = 2048  # of faiss


class Scan(Protocol):
    """(Q, D) queries -> (Q, k) coarse distances, ascending, and rows (-1: none). Coarse: of the metric, under l2 squared, float32 rounding
    allowed."""

    def __call__(self, queries: F32, k: int, /) -> tuple[F32, Ints]:
        """The k nearest rows of each query, coarsely."""
        ...


class FaissScan:
    """A faiss index, on the CPU or (`device` cuda) on the GPU if this faiss has one."""

    def __init__(self, index: Any, metric: str, device: str = "cpu") -> None:
        faiss = load_faiss()
        self._cpu, self._metric, self._gpu = index, metric, None
        if device.startswith("cuda") and gpus(faiss):
            self._resources = faiss.StandardGpuResources()
            self._gpu = faiss.index_cpu_to_gpu(self._resources, int(device.partition(":")[2] or 0), index)

    def __call__(self, queries: F32, k: int, /) -> tuple[F32, Ints]:
        """See `Scan`."""
        index = self._gpu if self._gpu is not None and k <= _MAX_K_ON_GPU else self._cpu
        found, rows = index.search(queries, k)
        if self._metric != "l2":
            np.subtract(1.0 if self._metric == "cosine" else 0.0, found, out=found)
        found[rows < 0] = np.inf
        return found, rows


def gpus(faiss: Any) -> int:
    """How many GPUs this faiss can use; asked before anything is sent to one, as faiss answers with an empty index where there is none."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


class TorchScan:
    """All rows, by matrix products on any torch device: exact search without faiss."""

    def __init__(self, vectors: F32, metric: str, device: str = "cpu") -> None:
        self._metric = metric
        self._vectors = torch.from_numpy(vectors).to(device)
        self._squares = (self._vectors * self._vectors).sum(dim=1) if metric == "l2" else None

    def __call__(self, queries: F32, k: int, /) -> tuple[F32, Ints]:
        """See `Scan`."""
        parts = [torch.topk(block, k, dim=1, largest=False) for block in self.blocks(queries)]
        return torch.cat([p.values for p in parts]).cpu().numpy(), torch.cat([p.indices for p in parts]).cpu().numpy()

    def blocks(self, queries: F32) -> Iterator[torch.Tensor]:
        """Coarse distances to every row, (q, N) for some queries at a time, on the device."""
        size = max(1, _BYTES // (4 * len(self._vectors)))
        for start in range(0, len(queries), size):
            block = torch.from_numpy(queries[start : start + size]).to(self._vectors.device)
            product = block @ self._vectors.T
            if self._squares is None:
                yield product.neg_().add_(1.0 if self._metric == "cosine" else 0.0)
            else:
                yield product.mul_(-2).add_(self._squares).add_((block * block).sum(dim=1, keepdim=True))


class Search:
    """k nearest rows in the order of (distance, row): of two rows equally far, the lower comes first.

    With `vectors`, the (N, D) float32 that `scan` searches exhaustively, the result is exact: `distances.distance` of each pair decides, not
    the rounding of a matrix product, so that faiss and torch, alone or in batches, give the same neighbours. Without them, as for an index
    that holds codes, distances and completeness are those of the scan.
    """

    def __init__(self, scan: Scan, metric: str, size: int, vectors: F32 | None = None) -> None:
        self.exact = vectors is not None
        self._scan, self._metric, self._size, self._vectors = scan, metric, size, vectors
        self._longest = (
            1.0
            if vectors is None or metric == "cosine"
            else float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max()))
        )

    def __call__(self, queries: F32, k: int, exclude: Ints | None = None) -> tuple[F32, Ints]:
        """(Q, D) prepared queries -> (Q, k) distances, (Q, k) rows; -1 at distance inf where an inexact index found none.

        `exclude` (Q,) is a row to leave out of each query's neighbours: the query itself.
        """
        wanted = k + (exclude is not None)
        if self._vectors is None:
            coarse, rows = self._scan(queries, wanted)
            found, rows = _ordered(coarse if self._metric == "ip" else np.maximum(coarse, 0), rows)
            found = np.sqrt(found) if self._metric == "l2" else found
        else:
            found, rows = self._exact(queries, wanted, self._vectors)
        if exclude is None:
            return found, rows
        rows, found = _without(exclude, rows, found)
        return found, rows

    def rank(self, queries: F32, depth: int, exclude: Ints | None = None) -> Iterator[Ints]:
        """Rows alone, (q, depth) for some queries at a time, as far down as MAP@R looks; there equal distances come in any order.

        Raises:
            TypeError: the search is not exact.
        """
        start = 0
        for block in self._all.blocks(queries):
            rows = torch.topk(block, depth + (exclude is not None), dim=1, largest=False).indices.cpu().numpy()
            yield rows if exclude is None else _without(exclude[start : start + len(rows)], rows)[0]
            start += len(rows)

    def within(self, queries: F32, radius: float) -> Iterator[tuple[Ints, Ints, F32]]:
        """Every pair at most `radius` apart, for some queries at a time: (P,) places in `queries`, (P,) rows, (P,) distances.

        Raises:
            TypeError: the search is not exact.
        """
        limit = self._coarse_limit(queries, np.full(len(queries), radius, np.float32))
        start = 0
        for block in self._all.blocks(queries):
            part = torch.from_numpy(limit[start : start + len(block)]).to(block.device)
            places, rows = (block <= part[:, None]).nonzero(as_tuple=True)
            pairs = places.cpu().numpy() + start, rows.cpu().numpy()
            distances = self._between(queries, *pairs)
            near = distances <= radius
            yield pairs[0][near], pairs[1][near], distances[near]
            start += len(block)

    def _between(self, queries: F32, places: Ints, rows: Ints) -> F32:
        assert self._vectors is not None
        step = max(1, _BYTES // (8 * queries.shape[1]))
        parts = [slice(i, i + step) for i in range(0, max(1, len(rows)), step)]
        return np.concatenate([distance(queries[places[p]], self._vectors[rows[p]], self._metric) for p in parts])

    @cached_property
    def _all(self) -> TorchScan:
        if self._vectors is None:
            raise TypeError("only an exact search ranks a whole class")
        return self._scan if isinstance(self._scan, TorchScan) else TorchScan(self._vectors, self._metric)

    def _exact(self, queries: F32, k: int, vectors: F32) -> tuple[F32, Ints]:
        candidates = min(self._size, k + 4 + k // 16)
        coarse, rows = self._scan(queries, candidates)
        found = np.empty(rows.shape, np.float32)
        step = max(1, _CACHE // (8 * candidates * vectors.shape[1]))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            found[part] = distance(queries[part, None, :], vectors[rows[part]], self._metric)
        found, rows = _ordered(found, rows)
        found, rows = found[:, :k], rows[:, :k]
        if (
            candidates < self._size
        ):  # a row that was not proposed may tie with the last one taken, within the rounding of the scan
            limit = self._coarse_limit(queries, found[:, -1])
            for i in np.flatnonzero(limit >= coarse[:, -1]):
                found[i], rows[i] = self._scan_one(queries[i], limit[i], k, vectors)
        return found, rows

    def _coarse_limit(self, queries: F32, distance: F32) -> F32:
        """(Q,) the coarse distance that no row at most `distance` away exceeds; the rounding of a product of D terms grows like sqrt(D)."""
        norms = np.linalg.norm(queries, axis=1)
        scale = np.square(norms + self._longest) if self._metric == "l2" else norms * self._longest
        rounding = 4 * np.finfo(np.float32).eps * np.sqrt(queries.shape[1]) * scale
        return np.asarray((np.square(distance) if self._metric == "l2" else distance) + rounding, dtype=np.float32)

    def _scan_one(self, query: F32, limit: np.float32, k: int, vectors: F32) -> tuple[F32, Ints]:
        """Every row within `limit` compared exactly."""
        product = vectors @ query
        if self._metric == "l2":
            coarse = np.einsum("nd,nd->n", vectors, vectors) - 2 * product + query @ query
        else:
            coarse = (1 if self._metric == "cosine" else 0) - product
        near = np.flatnonzero(coarse <= limit)
        found = np.concatenate(
            [distance(query, vectors[near[i : i + 4096]], self._metric) for i in range(0, len(near), 4096)]
        )
        order = np.argsort(found, kind="stable")[:k]
        return found[order], near[order]


def _without(exclude: Ints, rows: Ints, *others: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The columns but one: that with the excluded row, or the last where it is not among them."""
    keep = rows != exclude[:, None]
    keep[keep.all(axis=1), -1] = False
    return tuple(a[keep].reshape(len(rows), -1) for a in (rows, *others))


def _ordered(found: F32, rows: Ints) -> tuple[F32, Ints]:
    order = np.lexsort((rows, found), axis=-1)
    return np.take_along_axis(found, order, axis=-1), np.take_along_axis(rows, order, axis=-1)
