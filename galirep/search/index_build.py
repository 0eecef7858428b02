"""Build a faiss index from an embedding file block by block, so that memory grows only with the index itself."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from galirep.embeddings.reader import load_embeddings
from galirep.errors import ConfigError, DataError
from galirep.search.distances import require_metric
from galirep.search.faiss_library import copy_to_gpu, faiss_metric, load_faiss
from galirep.search.index_file import require_free_index, write_faiss, write_rows
from galirep.search.index_info import IndexInfo, selected_meta
from galirep.search.index_recall import RecallSample, choose_nprobe
from galirep.search.index_replacing import commit_index, writing_index
from galirep.search.vectors import MAX_HELD_BYTES, PreparedVectors, allocate_flat, no_progress, read_vectors_into
from galirep.system.devices import device_of
from galirep.system.outputs.holding import locks_outputs
from galirep.system.outputs.inputs import ROWS_ENDING, SIDECAR_ENDING
from galirep.version import __version__

# rows up to which `auto` takes exact search
FLAT_MAX_ROWS = 1_000_000
# rows up to which `auto` takes inverted lists of whole vectors; beyond, of product-quantised codes
IVF_MAX_ROWS = 10_000_000


def auto_factory(n: int, dim: int) -> str:
    """Return the faiss factory string for n rows of `dim` columns.

    Flat up to 10^6 rows; then IVF with 4 sqrt(n) lists, rounded down to a power of two; above 10^7 rows IVF-PQ with one
    byte per 8 columns.
    """
    if n <= FLAT_MAX_ROWS:
        return "Flat"
    lists = f"IVF{1 << int(np.log2(4 * np.sqrt(n)))}"
    if n <= IVF_MAX_ROWS:
        return f"{lists},Flat"
    if dim < 8:
        return f"{lists},PQ{dim}"
    rotation = "" if dim % 8 == 0 else f"PCAR{dim - dim % 8},"
    return f"{rotation}{lists},PQ{dim // 8}"


@locks_outputs("out", inputs=("source",), beside=(ROWS_ENDING, SIDECAR_ENDING))
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
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    progress: Callable[[int], object] = no_progress,
) -> IndexInfo:
    """Build a faiss index of the embedding file `source` at `out`.

    `out.rows.h5` (ids and labels) and the sidecar `out.json` (the returned description) are written beside it.

    `metric` is cosine (unit vectors, inner product), l2 or ip. `factory` is a faiss factory string, or auto: Flat up to
    10^6 rows, IVF up to 10^7, IVF-PQ beyond (`auto_factory`). An index other than Flat is trained on a random sample.
    Its recall@10 against exact search is measured on up to 128 of its own rows, each left out of its own neighbours.
    `nprobe` of an inverted file is raised until recall reaches 0.95, if its codes allow (`choose_nprobe`). Features are
    read block by block. `device` cuda trains and fills the index on a GPU if faiss can use one. `progress` is called
    with the number of rows added.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        ConfigError: an unknown metric, a factory that faiss refuses, faiss is not installed, or an output exists.
        DataError: `source` is not an embedding file or does not have its checksums, an unknown layer, NaN, zero vectors
            under cosine, no space left.
    """
    source, out, device = Path(source), Path(out), str(device_of(device))
    require_metric(metric)
    faiss = load_faiss()
    require_free_index(out, overwrite)
    with (
        writing_index(out) as (index_path, rows_path),
        load_embeddings(source, layers, check=True) as embeddings,
        # copies ids and finds the true neighbours while faiss trains and adds
        ThreadPoolExecutor(1) as background,
    ):
        n, dim, meta = len(embeddings), embeddings.dim, selected_meta(embeddings)
        if n == 0:
            raise DataError(f"{source} has no rows to index")
        factory = auto_factory(n, dim) if factory == "auto" else factory
        index = _create_index(dim, factory, metric)
        exact = isinstance(index, faiss.IndexFlat)
        rows_written = background.submit(write_rows, rows_path, embeddings)
        nprobe, recall, recall_queries = None, 1.0, 0
        if exact:
            read_vectors_into(allocate_flat(index, n), embeddings, metric, progress)
        else:
            vectors = PreparedVectors(embeddings, metric)
            sample = RecallSample(vectors, metric, seed, background) if n > 1 else None
            with _naming_factory_in_errors(factory):
                index = _train_and_add(index, vectors, seed, device, sample, progress)
            if sample is not None:
                nprobe, recall = choose_nprobe(index, sample)
                recall_queries = len(sample)
        write_faiss(index_path, index)
        rows_written.result()
        info = IndexInfo(
            metric=metric,
            normalised=metric == "cosine",
            factory=factory,
            exact=exact,
            n=n,
            dim=dim,
            nprobe=nprobe,
            recall_at_10=recall,
            recall_queries=recall_queries,
            embeddings=meta,
            source=source.name,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            versions={"galirep": __version__, "faiss": faiss.__version__, "numpy": np.__version__},
        )
        return commit_index(out, info, index_path, rows_path)


@contextmanager
def _naming_factory_in_errors(factory: str) -> Iterator[None]:
    """Turn faiss's RuntimeError, which quotes its own source line, into an error that names the factory string.

    Raises:
        ConfigError: faiss raised RuntimeError.
    """
    try:
        yield
    except RuntimeError as err:
        reason = re.sub(r"^Error in .*? at \S+:\d+: (Error: '.*' failed: )?", "", str(err))
        raise ConfigError(f"faiss cannot build the factory {factory!r}: {reason}") from err


def _create_index(dim: int, factory: str, metric: str) -> Any:
    faiss = load_faiss()
    with _naming_factory_in_errors(factory):
        index = faiss.index_factory(dim, factory, faiss_metric(metric))
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    # simulated annealing, which takes seconds per byte of code, for a filter that no search here uses
    if hasattr(inner, "do_polysemous_training"):
        inner.do_polysemous_training = False
    return index


def _train_and_add(
    index: Any,
    vectors: PreparedVectors,
    seed: int,
    device: str,
    sample: RecallSample | None,
    progress: Callable[[int], object],
) -> Any:
    """Train `index` on a sample and add every row, which `sample` is compared with as well; return it on the CPU."""
    gpu_index = copy_to_gpu(index, device)
    working_index = index if gpu_index is None else gpu_index
    if not working_index.is_trained:
        size = _training_size(index, len(vectors))
        chosen = np.random.default_rng(seed).choice(len(vectors), size, replace=False)
        working_index.train(vectors.take(np.sort(chosen)))
    for rows, block in vectors.blocks():
        working_index.add(block)
        if sample is not None:
            sample.compare(rows.start, block)
        progress(len(block))
    return index if gpu_index is None else load_faiss().index_gpu_to_cpu(gpu_index)


def _training_size(index: Any, n: int) -> int:
    ivf = load_faiss().try_extract_index_ivf(index)
    # faiss asks for 39 points per centroid; the codes of product quantisation have 256 centroids
    enough = max(1 << 15, 40 * ivf.nlist if ivf else 0)
    return min(n, enough, MAX_HELD_BYTES // (4 * int(index.d)))
