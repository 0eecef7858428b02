"""Open the searched side of a retrieval: an embedding file or an index, with ids, labels and the search itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.errors import ConfigError, DataError, unknown
from galirep.metrics.arrays import F32, Ints
from galirep.metrics.overlap import hash_rows
from galirep.search.distances import require_metric
from galirep.search.faiss_library import faiss_metric, gpu_count, has_faiss, load_faiss
from galirep.search.index_file import is_index, read_index, read_info, read_rows
from galirep.search.index_info import IndexInfo, selected_meta
from galirep.search.nearest import FaissScan, Scan, Search, TorchScan
from galirep.search.vectors import allocate_flat, read_vectors_into, view_flat
from galirep.system.devices import device_of
from galirep.system.layer_names import require_list
from galirep.system.reading.files import parsing

BACKENDS = ("auto", "faiss", "torch")


@dataclass(frozen=True)
class SearchInfo:
    """How a gallery is searched.

    `factory`: the faiss factory string. `exact`: whether each query is compared with every row. `backend`: the library
    that searches. `recall_at_10`: the measured recall, None if `nprobe` is not what it was measured with. `nprobe`: the
    number of inverted lists searched, None without inverted lists.
    """

    factory: str
    exact: bool
    backend: str
    recall_at_10: float | None
    nprobe: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as the JSON object `index` of a retrieval."""
        return asdict(self)


@dataclass(frozen=True)
class Gallery:
    """An open gallery; `vectors` are its prepared features (N, D), None for an index that stores codes."""

    path: Path
    meta: StoreMeta
    metric: str
    ids: NDArray[np.object_]
    labels: NDArray[np.int64] | None
    search: Search
    vectors: F32 | None
    info: SearchInfo

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_hashes(self) -> Ints:
        """Hashes of the vectors (N,), see `metrics.overlap`; none for an index that stores codes."""
        return hash_rows([] if self.vectors is None else [self.vectors])


def open_gallery(
    path: Path,
    *,
    metric: str | None = None,
    layers: Sequence[str] | None = None,
    backend: str = "auto",
    device: str = "auto",
    nprobe: int | None = None,
) -> Gallery:
    """Open FILE.h5, which is read into memory (4 bytes per feature), or FILE.faiss, whose metric and layers are fixed.

    `backend` auto uses faiss if it is installed, unless `device` is a GPU that this faiss cannot use; otherwise torch.

    Raises:
        ConfigError: unknown metric, backend or device; a metric or layers that are not those of the index; nprobe
            without inverted lists; an index without faiss.
        DataError: see `load_embeddings` and `index_file.read_info`; NaN, or zero vectors under cosine.
    """
    if backend not in BACKENDS:
        raise ConfigError(unknown("backend", backend, BACKENDS))
    if nprobe is not None and nprobe < 1:
        raise ConfigError(f"nprobe must be at least 1, not {nprobe}")
    device = str(device_of(device))
    if is_index(path):
        return _open_index(path, metric, layers, backend, device, nprobe)
    if nprobe is not None:
        raise ConfigError(f"nprobe is for an index with inverted lists; {path} is searched exactly")
    with load_embeddings(path, layers) as embeddings:
        return _open_embeddings(embeddings, metric or "cosine", backend, device)


def _open_embeddings(embeddings: Embeddings, metric: str, backend: str, device: str) -> Gallery:
    require_metric(metric)
    n = len(embeddings)
    if n == 0:
        raise DataError(f"{embeddings.path} has no rows to search")
    scan: Scan
    faiss = _faiss_or_none(backend, device)
    if faiss is not None:
        index = faiss.IndexFlat(embeddings.dim, faiss_metric(metric))
        vectors = read_vectors_into(allocate_flat(index, n), embeddings, metric)
        scan = FaissScan(index, metric, device)
    else:
        vectors = read_vectors_into(np.empty((n, embeddings.dim), np.float32), embeddings, metric)
        scan = TorchScan(vectors, metric, device)
    return Gallery(
        path=embeddings.path,
        meta=selected_meta(embeddings),
        metric=metric,
        ids=embeddings.ids,
        labels=embeddings.labels,
        search=Search(scan, metric, n, vectors),
        vectors=vectors,
        info=SearchInfo("Flat", exact=True, backend=_backend_name(scan), recall_at_10=1.0, nprobe=None),
    )


def _open_index(
    path: Path, metric: str | None, layers: Sequence[str] | None, backend: str, device: str, nprobe: int | None
) -> Gallery:
    info = read_info(path)
    _require_built_with(path, info, metric, layers)
    index = read_index(path, info)
    with parsing(f"{path} is not the exact index that its sidecar says", DataError):
        vectors = view_flat(index) if info.exact else None
    if nprobe is not None:
        _set_nprobe(path, index, info, nprobe)
    scan: Scan
    if vectors is not None and _faiss_or_none(backend, device) is None:
        scan = TorchScan(vectors, info.metric, device)
    elif backend == "torch":
        raise ConfigError(
            f"{path} has factory {info.factory}, which only faiss can search: "
            "leave --backend torch out, or search the embedding file"
        )
    else:
        scan = FaissScan(index, info.metric, device)
    ids, labels = read_rows(path, info.n)
    return Gallery(
        path=path,
        meta=info.embeddings,
        metric=info.metric,
        ids=ids,
        labels=labels,
        search=Search(scan, info.metric, info.n, vectors),
        vectors=vectors,
        info=SearchInfo(
            info.factory,
            info.exact,
            _backend_name(scan),
            recall_at_10=info.recall_at_10 if nprobe in (None, info.nprobe) else None,
            nprobe=nprobe or info.nprobe,
        ),
    )


def _require_built_with(path: Path, info: IndexInfo, metric: str | None, layers: Sequence[str] | None) -> None:
    if metric is not None and metric != info.metric:
        require_metric(metric)
        raise ConfigError(
            f"{path} was built for metric {info.metric!r}, not {metric!r}: leave --metric out, or build another index"
        )
    require_list(layers)
    built = tuple(name for name, _ in info.embeddings.layers)
    if layers is not None and tuple(layers) != built:
        raise ConfigError(
            f"{path} was built on layers {', '.join(built)}, not {', '.join(layers)}: "
            "leave --layers out, or build another index"
        )


def _set_nprobe(path: Path, index: Any, info: IndexInfo, nprobe: int) -> None:
    if info.nprobe is None:
        raise ConfigError(f"nprobe is for an index with inverted lists; {path} is {info.factory}")
    lists = load_faiss().extract_index_ivf(index)
    if nprobe > lists.nlist:
        raise ConfigError(f"nprobe {nprobe} is more than the {lists.nlist} lists of {path}")
    lists.nprobe = nprobe


def _faiss_or_none(backend: str, device: str) -> Any:
    """Return the module faiss, or None if torch is to search."""
    if backend == "torch" or (backend == "auto" and not has_faiss()):
        return None
    faiss = load_faiss()
    # this faiss would search on the CPU
    if backend == "auto" and device.startswith("cuda") and not gpu_count():
        return None
    return faiss


def _backend_name(scan: Scan) -> str:
    if isinstance(scan, FaissScan):
        return f"faiss {load_faiss().__version__}"
    return "torch" if has_faiss() else "torch (faiss is not installed)"
