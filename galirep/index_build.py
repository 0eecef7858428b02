"""Building a FAISS index from an embedding file, block by block: memory does not grow with the file, except by the index itself."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import galirep
from galirep.distances import F32, check_metric, prepare
from galirep.errors import ConfigError, DataError
from galirep.faiss_library import load_faiss
from galirep.index_file import IndexInfo, meta_of, require_free_index, write_index, write_rows
from galirep.search import TorchScan, gpus
from galirep.store import Embeddings, load_embeddings

FLAT_UP_TO = 1_000_000  # rows: exact search
IVF_UP_TO = 10_000_000  # rows: inverted lists of whole vectors; beyond, of product-quantised codes
_SAMPLE_BYTES = 3 << 26  # of training vectors
_RECALL_QUERIES, _RECALL_AT = 256, 10


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


def build(
    source: Path,
    out: Path,
    *,
    metric: str,
    factory: str,
    layers: Sequence[str] | None,
    device: str,
    seed: int,
    overwrite: bool,
    progress: Callable[[int], object],
) -> IndexInfo:
    """See `retrieval.build_index`."""
    check_metric(metric)
    faiss = load_faiss()
    require_free_index(out, overwrite)
    with load_embeddings(source, layers) as embeddings:
        n, dim = len(embeddings), embeddings.dim
        if n == 0:
            raise DataError(f"{source} has no rows to index")
        string = auto_factory(n, dim) if factory == "auto" else factory
        index = _make(faiss, dim, string, metric)
        exact = isinstance(index, faiss.IndexFlat)
        with _naming(string):
            work = _to_gpu(faiss, index, device) if not exact else index
            if not work.is_trained:
                work.train(_sample(embeddings, metric, _training_size(faiss, index, n, dim), seed))
            probes = None if exact or n == 1 else _Probes(embeddings, metric, seed)
            for rows, block in embeddings.blocks():
                vectors = prepare(block, metric, lambda i, start=rows.start: embeddings.ids[start + i], str(source))  # type: ignore[misc]
                work.add(vectors)
                if probes:
                    probes.see(rows.start, vectors)
                progress(len(vectors))
            index = faiss.index_gpu_to_cpu(work) if work is not index else index
        nprobe, recall = _tune(faiss, index, probes) if probes else (None, 1.0)
        meta = meta_of(embeddings)
        write_rows(out, embeddings)
    info = IndexInfo(
        metric=metric,
        normalised=metric == "cosine",
        factory=string,
        exact=exact,
        n=n,
        dim=dim,
        nprobe=nprobe,
        recall_at_10=recall,
        recall_queries=len(probes.rows) if probes else 0,
        embeddings=meta,
        source=source.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={"galirep": galirep.__version__, "faiss": faiss.__version__, "numpy": np.__version__},
    )
    return write_index(out, index, info)


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
    if hasattr(inner, "do_polysemous_training"):  # simulated annealing, seconds a byte of code, for a filter that no search here uses
        inner.do_polysemous_training = False
    return index


def _to_gpu(faiss: Any, index: Any, device: str) -> Any:
    if not device.startswith("cuda") or not gpus(faiss):
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), int(device.partition(":")[2] or 0), index)


def _ivf(faiss: Any, index: Any) -> Any:
    return faiss.try_extract_index_ivf(index)


def _training_size(faiss: Any, index: Any, n: int, dim: int) -> int:
    ivf = _ivf(faiss, index)
    wanted = max(1 << 15, 40 * ivf.nlist if ivf else 0)  # faiss asks for 39 points a centroid; of 256 for each byte of a code
    return min(n, wanted, _SAMPLE_BYTES // (4 * dim))


def _sample(embeddings: Embeddings, metric: str, size: int, seed: int) -> F32:
    rows = np.sort(np.random.default_rng(seed).choice(len(embeddings), size, replace=False))
    return prepare(embeddings.features[rows], metric, lambda i: embeddings.ids[rows[i]], str(embeddings.path))


class _Probes:
    """A sample of the rows as queries, and their true neighbours, found while the blocks pass by."""

    def __init__(self, embeddings: Embeddings, metric: str, seed: int) -> None:
        n = len(embeddings)
        self.rows = np.sort(np.random.default_rng(seed + 1).choice(n, min(n, _RECALL_QUERIES), replace=False))
        self.vectors = prepare(embeddings.features[self.rows], metric, lambda i: embeddings.ids[self.rows[i]], str(embeddings.path))
        self.k = min(_RECALL_AT, n - 1)
        self._metric = metric
        self._best = np.full((len(self.rows), self.k + 1), np.inf, np.float32)
        self._found = np.full(self._best.shape, -1, np.int64)

    def see(self, start: int, vectors: F32) -> None:
        found, rows = TorchScan(vectors, self._metric)(self.vectors, min(self.k + 1, len(vectors)))
        found, rows = np.hstack([self._best, found]), np.hstack([self._found, rows + start])
        order = np.argsort(found, axis=1, kind="stable")[:, : self.k + 1]
        self._best, self._found = np.take_along_axis(found, order, 1), np.take_along_axis(rows, order, 1)

    def recall(self, index: Any) -> float:
        """The share of the true nearest, the row itself left out, among as many that `index` finds."""
        found = self._without_itself(index.search(self.vectors, self.k + 1)[1])
        true = self._without_itself(self._found)
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
