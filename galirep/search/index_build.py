"""Building a FAISS index from an embedding file, block by block: memory does not grow with the file, except by the index itself."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.reader import load_embeddings
from galirep.errors import ConfigError, DataError
from galirep.metrics.arrays import F32, Ints
from galirep.search.distances import check_metric
from galirep.search.faiss_library import load_faiss
from galirep.search.index_file import (
    IndexInfo,
    meta_of,
    require_free_index,
    write_card,
    write_faiss,
    write_rows,
    writing_index,
)
from galirep.search.nearest import TorchScan, gpus
from galirep.search.vectors import HELD_BYTES, Vectors, fill, flat_memory
from galirep.system.devices import device_of
from galirep.version import __version__

FLAT_UP_TO = 1_000_000  # rows: exact search
IVF_UP_TO = 10_000_000  # rows: inverted lists of whole vectors; beyond, of product-quantised codes
_RECALL_QUERIES, _RECALL_AT = 128, 10


def auto_factory(n: int, dim: int) -> str:
    """The factory string for n rows: Flat to 10^6; IVF with 4 sqrt(n) lists, rounded down to a power of two, to 10^7; then IVF-PQ, a byte
    per 8 columns."""
    if n <= FLAT_UP_TO:
        return "Flat"
    lists = f"IVF{1 << int(np.log2(4 * np.sqrt(n)))}"
    if n <= IVF_UP_TO:
        return f"{lists},Flat"
    if dim < 8:
        return f"{lists},PQ{dim}"
    return f"{'' if dim % 8 == 0 else f'PCAR{dim - dim % 8},'}{lists},PQ{dim // 8}"


def _no_progress(_: int) -> None: ...


def build_index(
    source: str | Path,
    out: str | Path,
    *,
    metric: str = "cosine",
    factory: str = "auto",
    layers: Sequence[str] | None = None,
    device: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int], object] = _no_progress,
) -> IndexInfo:
    """Build a FAISS index of the embedding file `source` at `out`, with `out.rows.h5` (ids and labels) and `out.json` (what it is) beside
    it.

    `metric` is cosine (vectors of unit length, inner product), l2 or ip. `factory` is a faiss factory string, or auto: Flat to 10^6 rows,
    IVF to 10^7, IVF-PQ beyond (`auto_factory`). An index other than Flat is trained on a sample, and its recall@10 against
    exact search is measured on up to 128 of its own rows, each left out of its own neighbours; an inverted file gets as many probes as a
    recall of 0.95 takes, if its codes allow. Features are read block by block. `device` cuda trains and fills the index on a GPU if faiss
    has one. `progress` is called with the number of rows added.

    Raises:
        ConfigError: unknown metric, a factory that faiss refuses, no faiss, an output that exists.
        DataError: no embedding file, an unknown layer, NaN, vectors of zeros under cosine, or no space left.
    """
    source, out, device = Path(source), Path(out), str(device_of(device))
    check_metric(metric)
    faiss = load_faiss()
    require_free_index(out, overwrite)
    with (
        writing_index(out) as (index_path, rows_path),
        load_embeddings(source, layers) as embeddings,
        ThreadPoolExecutor(1) as aside,  # reads and writes ids, and finds true neighbours, while faiss trains and adds
    ):
        n, dim, meta = len(embeddings), embeddings.dim, meta_of(embeddings)
        if n == 0:
            raise DataError(f"{source} has no rows to index")
        string = auto_factory(n, dim) if factory == "auto" else factory
        index = _make(faiss, dim, string, metric)
        exact = isinstance(index, faiss.IndexFlat)
        ids = aside.submit(write_rows, rows_path, embeddings)
        if exact:
            fill(flat_memory(index, n), embeddings, metric, progress)
            nprobe, recall, queries = None, 1.0, 0
        else:
            vectors = Vectors(embeddings, metric)
            probes = _Probes(vectors, metric, seed, aside) if n > 1 else None
            with _naming(string):
                index = _filled(faiss, index, vectors, seed, device, probes, progress)
            nprobe, recall = _tune(faiss, index, probes) if probes else (None, 1.0)
            queries = len(probes.rows) if probes else 0
        write_faiss(index_path, index)
        ids.result()
    info = IndexInfo(
        metric=metric,
        normalised=metric == "cosine",
        factory=string,
        exact=exact,
        n=n,
        dim=dim,
        nprobe=nprobe,
        recall_at_10=recall,
        recall_queries=queries,
        embeddings=meta,
        source=source.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={"galirep": __version__, "faiss": faiss.__version__, "numpy": np.__version__},
    )
    return write_card(out, info)


def _filled(
    faiss: Any,
    index: Any,
    vectors: Vectors,
    seed: int,
    device: str,
    probes: "_Probes | None",
    progress: Callable[[int], object],
) -> Any:
    """`index` trained on a sample and filled with every row, which `probes` see too."""
    work = _to_gpu(faiss, index, device)
    if not work.is_trained:
        size = _training_size(faiss, index, len(vectors))
        work.train(vectors.at(np.sort(np.random.default_rng(seed).choice(len(vectors), size, replace=False))))
    for rows, block in vectors.blocks():
        work.add(block)
        if probes:
            probes.see(rows.start, block)
        progress(len(block))
    return faiss.index_gpu_to_cpu(work) if work is not index else index


@contextmanager
def _naming(factory: str) -> Iterator[None]:
    """faiss refuses with RuntimeError and its own source line: say which factory string it was about."""
    try:
        yield
    except RuntimeError as err:
        reason = re.sub(r"^Error in .*? at \S+:\d+: (Error: '.*' failed: )?", "", str(err))
        raise ConfigError(f"faiss cannot build the factory {factory!r}: {reason}") from err


def _make(faiss: Any, dim: int, string: str, metric: str) -> Any:
    with _naming(string):
        index = faiss.index_factory(dim, string, faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if hasattr(
        inner, "do_polysemous_training"
    ):  # simulated annealing, seconds a byte of code, for a filter that no search here uses
        inner.do_polysemous_training = False
    return index


def _to_gpu(faiss: Any, index: Any, device: str) -> Any:
    if not device.startswith("cuda") or not gpus(faiss):
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), int(device.partition(":")[2] or 0), index)


def _ivf(faiss: Any, index: Any) -> Any:
    return faiss.try_extract_index_ivf(index)


def _training_size(faiss: Any, index: Any, n: int) -> int:
    ivf = _ivf(faiss, index)
    wanted = max(
        1 << 15, 40 * ivf.nlist if ivf else 0
    )  # faiss asks for 39 points a centroid; of 256 for each byte of a code
    return min(n, wanted, HELD_BYTES // (4 * int(index.d)))


class _Probes:
    """A sample of the rows as queries, and their true neighbours, found in the thread `aside` while the blocks pass by."""

    def __init__(self, vectors: Vectors, metric: str, seed: int, aside: Executor) -> None:
        n = len(vectors)
        self.rows = np.sort(np.random.default_rng(seed + 1).choice(n, min(n, _RECALL_QUERIES), replace=False))
        self.vectors = vectors.at(self.rows)
        self.k = min(_RECALL_AT, n - 1)
        self._metric, self._aside = metric, aside
        found = (
            np.full((len(self.rows), self.k + 1), np.inf, np.float32),
            np.full((len(self.rows), self.k + 1), -1, np.int64),
        )
        self._best = aside.submit(lambda: found)  # distances and rows

    def see(self, start: int, vectors: F32) -> None:
        """Compare with the rows from `start` on; waits until the block before is done, so that no more than two are in memory."""
        self._best = self._aside.submit(self._merged, *self._best.result(), start, vectors)

    def _merged(self, best: F32, nearest: Ints, start: int, vectors: F32) -> tuple[F32, Ints]:
        found, rows = TorchScan(vectors, self._metric)(self.vectors, min(self.k + 1, len(vectors)))
        found, rows = np.hstack([best, found]), np.hstack([nearest, rows + start])
        order = np.argsort(found, axis=1, kind="stable")[:, : self.k + 1]
        return np.take_along_axis(found, order, 1), np.take_along_axis(rows, order, 1)

    def recall(self, index: Any) -> float:
        """The share of the true nearest, the row itself left out, among as many that `index` finds."""
        found = self._without_itself(index.search(self.vectors, self.k + 1)[1])
        true = self._without_itself(self._best.result()[1])
        return float(np.mean([len(np.intersect1d(a, b)) / self.k for a, b in zip(found, true, strict=True)]))

    def _without_itself(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        keep = rows != self.rows[:, None]
        keep[keep.all(axis=1), -1] = False
        return np.asarray(rows[keep].reshape(-1, self.k))


def _tune(faiss: Any, index: Any, probes: _Probes) -> tuple[int | None, float]:
    """(nprobe, recall): as many lists as it takes for a recall of 0.95, or until twice as many gain less than 0.01, as codes are not
    exact."""
    ivf = _ivf(faiss, index)
    if ivf is None:
        return None, probes.recall(index)
    ivf.nprobe = min(8, ivf.nlist)
    recall = probes.recall(index)
    while recall < 0.95 and ivf.nprobe < ivf.nlist:
        before, ivf.nprobe = (ivf.nprobe, recall), min(2 * ivf.nprobe, ivf.nlist)
        recall = probes.recall(index)
        if recall - before[1] < 0.01:
            return before
    return int(ivf.nprobe), recall
