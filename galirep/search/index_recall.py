"""Measure the recall of an index on a sample of its own rows, and choose how many inverted lists it searches."""

from concurrent.futures import Executor
from typing import Any

import numpy as np

from galirep.metrics.arrays import F32, Ints
from galirep.search.faiss_library import load_faiss
from galirep.search.nearest import TorchScan, drop_excluded
from galirep.search.vectors import PreparedVectors

_SAMPLE_SIZE = 128
_RECALL_AT = 10
_TARGET_RECALL = 0.95
# doubling nprobe must gain at least this much recall
_MIN_GAIN = 0.01


class RecallSample:
    """Rows of an index that serve as queries, with their true neighbours.

    The true neighbours are found by `executor` while the blocks of the gallery pass by, see `compare`.
    """

    def __init__(self, vectors: PreparedVectors, metric: str, seed: int, executor: Executor) -> None:
        n = len(vectors)
        self._rows = np.sort(np.random.default_rng(seed + 1).choice(n, min(n, _SAMPLE_SIZE), replace=False))
        self._vectors = vectors.take(self._rows)
        self._k = min(_RECALL_AT, n - 1)
        self._metric = metric
        self._executor = executor
        shape = (len(self._rows), self._k + 1)
        no_neighbors = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int64)
        # distances and rows of the true neighbours among the blocks seen so far
        self._nearest = executor.submit(lambda: no_neighbors)

    def __len__(self) -> int:
        return len(self._rows)

    def compare(self, start: int, block: F32) -> None:
        """Search for true neighbours in a block of the gallery, whose first row is `start`, in the background.

        Waits until the block before is done, so that at most two are in memory.
        """
        self._nearest = self._executor.submit(self._merge_block, *self._nearest.result(), start, block)

    def _merge_block(self, nearest_distances: F32, nearest_rows: Ints, start: int, block: F32) -> tuple[F32, Ints]:
        distances, rows = TorchScan(block, self._metric)(self._vectors, min(self._k + 1, len(block)))
        distances = np.hstack([nearest_distances, distances])
        rows = np.hstack([nearest_rows, rows + start])
        order = np.argsort(distances, axis=1, kind="stable")[:, : self._k + 1]
        return np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)

    def recall(self, index: Any) -> float:
        """Return recall@10: the share of the true 10 nearest neighbours, self excluded, that `index` finds."""
        retrieved = self._drop_self(index.search(self._vectors, self._k + 1)[1])
        true = self._drop_self(self._nearest.result()[1])
        return float(np.mean([len(np.intersect1d(a, b)) / self._k for a, b in zip(retrieved, true, strict=True)]))

    def _drop_self(self, rows: Ints) -> Ints:
        return drop_excluded(self._rows, rows)[0]


def choose_nprobe(index: Any, sample: RecallSample) -> tuple[int | None, float]:
    """Choose nprobe of an inverted file; return it (None for other indexes) and its recall.

    nprobe starts at 8 and doubles until recall reaches 0.95. It stops where doubling gains less than 0.01, as codes
    limit what any nprobe can reach. `index` is left with the last nprobe tried; `index_file.read_index` sets the chosen
    one.
    """
    ivf = load_faiss().try_extract_index_ivf(index)
    if ivf is None:
        return None, sample.recall(index)
    ivf.nprobe = min(8, ivf.nlist)
    recall = sample.recall(index)
    while recall < _TARGET_RECALL and ivf.nprobe < ivf.nlist:
        last_nprobe, last_recall = ivf.nprobe, recall
        ivf.nprobe = min(2 * ivf.nprobe, ivf.nlist)
        recall = sample.recall(index)
        if recall - last_recall < _MIN_GAIN:
            return last_nprobe, last_recall
    return int(ivf.nprobe), recall
