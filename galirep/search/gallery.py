"""The searched side of a retrieval: the rows of an embedding file or of an index, with their ids and labels, and how to search them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.errors import ConfigError, DataError, unknown
from galirep.metrics.arrays import F32
from galirep.search.distances import check_metric
from galirep.search.faiss_library import has_faiss, load_faiss
from galirep.search.index_file import IndexInfo, is_index, meta_of, read_index, read_info, read_rows
from galirep.search.nearest import FaissScan, Scan, Search, TorchScan, gpus
from galirep.search.vectors import fill, flat_memory, flat_vectors
from galirep.system.devices import device_of

BACKENDS = ("auto", "faiss", "torch")


@dataclass
class Gallery:
    """What `open_gallery` gives. `vectors` (N, D) are the prepared features, None of an index that holds codes; `about` tells how it is
    searched."""

    path: Path
    meta: StoreMeta
    metric: str
    ids: NDArray[np.object_]
    labels: NDArray[np.int64] | None
    search: Search
    vectors: F32 | None
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)


def open_gallery(
    path: Path,
    *,
    metric: str | None = None,
    layers: Sequence[str] | None = None,
    backend: str = "auto",
    device: str = "auto",
    nprobe: int | None = None,
) -> Gallery:
    """Open FILE.h5, read into memory (4 bytes a feature), or FILE.faiss, for which metric and layers are what it was built with.

    `backend` auto is faiss where it is installed, unless `device` is a GPU that this faiss cannot use; else torch.

    Raises:
        ConfigError: unknown metric, backend or device; a metric or layers other than the index's; nprobe where there are no lists; no
        faiss.
        DataError: see `load_embeddings` and `index_file.read_info`; NaN, or under cosine zero vectors, in the file.
    """
    if backend not in BACKENDS:
        raise ConfigError(unknown("backend", backend, BACKENDS))
    if nprobe is not None and nprobe < 1:
        raise ConfigError(f"nprobe {nprobe}: search at least one list")
    device = str(device_of(device))
    if is_index(path):
        return _open_index(path, metric, layers, backend, device, nprobe)
    if nprobe is not None:
        raise ConfigError(f"nprobe is for an index with inverted lists; {path} is searched exactly")
    with load_embeddings(path, layers) as embeddings:
        return _open_embeddings(embeddings, check_metric(metric or "cosine"), backend, device)


def _open_embeddings(embeddings: Embeddings, metric: str, backend: str, device: str) -> Gallery:
    n = len(embeddings)
    if n == 0:
        raise DataError(f"{embeddings.path} has no rows to search")
    faiss = _faiss_or_none(backend, device)
    index = faiss and faiss.IndexFlat(embeddings.dim, faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    vectors = fill(flat_memory(index, n) if index else np.empty((n, embeddings.dim), np.float32), embeddings, metric)
    scan = FaissScan(index, metric, device) if index else TorchScan(vectors, metric, device)
    about = {"factory": "Flat", "exact": True, "backend": _backend(scan), "recall_at_10": 1.0, "nprobe": None}
    search = Search(scan, metric, n, vectors)
    return Gallery(
        embeddings.path, meta_of(embeddings), metric, embeddings.ids, embeddings.labels, search, vectors, about
    )


def _open_index(
    path: Path, metric: str | None, layers: Sequence[str] | None, backend: str, device: str, nprobe: int | None
) -> Gallery:
    info = read_info(path)
    built = tuple(name for name, _ in info.embeddings.layers)
    if metric not in (None, info.metric):
        check_metric(metric or "")
        raise ConfigError(
            f"{path} was built for metric {info.metric!r}, not {metric!r}: leave --metric out, or build another index"
        )
    if layers is not None and tuple(layers) != built:
        asked, has = ", ".join(layers), ", ".join(built)
        raise ConfigError(f"{path} was built on layers {has}, not {asked}: leave --layers out, or build another index")
    index = read_index(path, info)
    vectors = flat_vectors(index) if info.exact else None
    if nprobe is not None:
        _set_nprobe(path, index, info, nprobe)
    if vectors is not None and _faiss_or_none(backend, device) is None:
        scan: Scan = TorchScan(vectors, info.metric, device)
    elif backend == "torch":
        raise ConfigError(
            f"{path} is {info.factory}, which only faiss can search: leave --backend torch out, or search the embedding file"
        )
    else:
        scan = FaissScan(index, info.metric, device)
    ids, labels = read_rows(path)
    about = {
        "factory": info.factory,
        "exact": info.exact,
        "backend": _backend(scan),
        "recall_at_10": info.recall_at_10 if nprobe in (None, info.nprobe) else None,
        "nprobe": nprobe or info.nprobe,
    }
    return Gallery(
        path, info.embeddings, info.metric, ids, labels, Search(scan, info.metric, info.n, vectors), vectors, about
    )


def _set_nprobe(path: Path, index: Any, info: IndexInfo, nprobe: int) -> None:
    if info.nprobe is None:
        raise ConfigError(f"nprobe is for an index with inverted lists; {path} is {info.factory}")
    lists = load_faiss().extract_index_ivf(index)
    if nprobe > lists.nlist:
        raise ConfigError(f"nprobe {nprobe} is more than the {lists.nlist} lists of {path}")
    lists.nprobe = nprobe


def _faiss_or_none(backend: str, device: str) -> Any:
    if backend == "torch" or (backend == "auto" and not has_faiss()):
        return None
    faiss = load_faiss()
    return None if backend == "auto" and device.startswith("cuda") and not gpus(faiss) else faiss


def _backend(scan: Scan) -> str:
    if isinstance(scan, FaissScan):
        return f"faiss {load_faiss().__version__}"
    return "torch" if has_faiss() else "torch (faiss is not installed)"
