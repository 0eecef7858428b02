"""`build_index` over an embedding file, and `retrieve`: the nearest rows of a gallery for each query, and how often they are of its
class."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep import index_build
from galirep.devices import device_of
from galirep.distances import F32, Ints, prepare
from galirep.errors import ConfigError, DataError
from galirep.evaluation import MEASURES, Measured, joined, measure, name_of
from galirep.files import replacing, require_free, write_json
from galirep.gallery import Gallery, open_gallery
from galirep.index_file import IndexInfo
from galirep.queries import Queries, open_queries
from galirep.ranking import same_labels

__all__ = ["Retrieval", "build_index", "retrieve"]

_ANN_NAMES = {"cosine": "angular", "l2": "euclidean", "ip": "ip"}  # of ann-benchmarks
_ROWS = 4096  # queries searched at a time


def _quiet(_: int) -> None: ...


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
    progress: Callable[[int], object] = _quiet,
) -> IndexInfo:
    """Build a FAISS index of the embedding file `source` at `out`, with `out.rows.h5` (ids and labels) and `out.json` (what it is) beside
    it.

    `metric` is cosine (vectors of unit length, inner product), l2 or ip. `factory` is a faiss factory string, or auto: Flat to 10^6 rows,
    IVF to 10^7, IVF-PQ beyond (`index_build.auto_factory`). An index other than Flat is trained on a sample, and its recall@10 against
    exact search is measured on up to 256 of its own rows, each left out of its own neighbours; an inverted file gets as many probes as a
    recall of 0.95 takes, if its codes allow. Features are read block by block. `device` cuda trains and fills the index on a GPU if faiss
    has one. `progress` is called with the number of rows added.

    Raises:
        ConfigError: unknown metric, a factory that faiss refuses, no faiss, an output that exists.
        DataError: no embedding file, an unknown layer, NaN, vectors of zeros under cosine, or no space left.
    """
    options: dict[str, Any] = {"metric": metric, "factory": factory, "layers": layers, "device": str(device_of(device)), "seed": seed}
    return index_build.build(Path(source), Path(out), **options, overwrite=overwrite, progress=progress)


@dataclass
class Retrieval:
    """What `retrieve` found.

    `neighbors` (Q, k) int64 are rows of the gallery, nearest first, the lower row first where equally near (-1: an inexact index found no
    more); `distances` (Q, k) float32: 1 - cos for cosine, |q - g| for l2, -<q, g> for ip. Labels are numbered as in `label_names`, -1 for
    none, and are None, as is `measured`, where that side has none.
    """

    k: int
    metric: str
    leave_one_out: bool
    neighbors: Ints
    distances: F32
    query_ids: NDArray[np.object_]
    gallery_ids: NDArray[np.object_]
    query_labels: Ints | None
    gallery_labels: Ints | None
    label_names: tuple[str, ...]
    measured: Measured | None
    seconds: float
    index: dict[str, Any]
    gallery: str
    queries: str

    def summary(self) -> dict[str, Any]:
        """The result as `galirep retrieve --json` prints it; measures are None where they are not defined."""
        measures = self.measured.means() if self.measured else dict.fromkeys(MEASURES)
        return {
            "gallery": self.gallery,
            "queries": self.queries,
            "n_gallery": len(self.gallery_ids),
            "n_queries": len(self.query_ids),
            "k": self.k,
            "metric": self.metric,
            "leave_one_out": self.leave_one_out,
            **measures,
            "queries_unlabelled": self.measured.unlabelled if self.measured else None,
            "queries_without_relevant": self.measured.without_relevant if self.measured else None,
            "classes": self.measured.classes(self.label_names) if self.measured else [],
            "confusions": self.measured.confusions(self.label_names)[:20] if self.measured else [],
            "seconds": round(self.seconds, 4),
            "index": self.index,
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the neighbours as .h5 (the keys of ann-benchmarks, neighbors and distances, with query_ids and neighbor_ids) or .json.

        Raises:
            ConfigError: another suffix, or an output that exists.
        """
        path = Path(path)
        if _output_kind(path) == ".json":
            write_json(path, {**self.summary(), "results": [self.row(i) for i in range(len(self.query_ids))]}, overwrite)
            return
        with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
            file.attrs.update({"distance": _ANN_NAMES[self.metric], "type": "dense"})
            file.attrs.update({name: getattr(self, name) for name in ("metric", "k", "leave_one_out", "gallery", "queries")})
            file["neighbors"], file["distances"] = self.neighbors, self.distances
            file.create_dataset("query_ids", data=self.query_ids, dtype=h5py.string_dtype())
            names = np.where(self.neighbors < 0, "", self.gallery_ids[self.neighbors])
            file.create_dataset("neighbor_ids", data=names, dtype=h5py.string_dtype())

    def row(self, i: int) -> dict[str, Any]:
        """Query i and its neighbours by id, with labels by name."""
        found = [(int(row), float(distance)) for row, distance in zip(self.neighbors[i], self.distances[i], strict=True) if row >= 0]
        neighbors = [{"id": self.gallery_ids[row], "row": row, "distance": d, **self._label(self.gallery_labels, row)} for row, d in found]
        return {"id": self.query_ids[i], **self._label(self.query_labels, i), "neighbors": neighbors}

    def _label(self, labels: Ints | None, row: int) -> dict[str, str]:
        return {} if labels is None or labels[row] < 0 else {"label": name_of(int(labels[row]), self.label_names)}


def retrieve(
    gallery: str | Path,
    queries: str | Path | Sequence[str | Path] | None = None,
    *,
    k: int = 10,
    metric: str | None = None,
    layers: Sequence[str] | None = None,
    split: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    nprobe: int | None = None,
    num_workers: int | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int], object] = _quiet,
) -> Retrieval:
    """Find the k nearest rows of `gallery` for each of `queries`; measure by class where both have labels.

    `gallery` is an embedding file (searched exactly) or an index; `queries` an embedding file, image files, or a data set whose `split` is
    embedded with the gallery's own encoder; None: the gallery's own embedding file. Where queries are the gallery's own rows (the same
    images in the same order), each is left out of its own neighbours. `metric` defaults to the index's, or cosine. Classes are matched by
    name. The measures are defined in `ranking`: precision@1, recall@k, MRR@k, and MAP@R, for which each query's whole class is ranked.

    Raises:
        ConfigError: k < 1, k larger than the gallery, an output that exists, options that do not fit.
        DataError: files that cannot be read or compared, NaN, vectors of zeros under cosine.
    """
    if k < 1:
        raise ConfigError(f"k {k}: ask for at least one neighbour")
    if out is not None:
        _output_kind(Path(out))
        require_free(Path(out), overwrite)
    opened = open_gallery(Path(gallery), metric=metric, layers=layers, backend=backend, device=device, nprobe=nprobe)
    options: dict[str, Any] = {"split": split, "device": device, "num_workers": num_workers, "data_root": data_root, "download": download}
    with open_queries(_own(gallery, opened) if queries is None else queries, opened, **options) as asked:
        found = _search(opened, asked, k, progress)
    if out is not None:
        found.save(out, overwrite=overwrite)
    return found


def _output_kind(path: Path) -> str:
    if path.suffix not in (".h5", ".json"):
        raise ConfigError(f"{path}: results are written as .h5 or .json")
    return path.suffix


def _own(gallery: str | Path, opened: Gallery) -> str | Path:
    if opened.path.suffix in (".h5", ".hdf5"):
        return gallery
    raise ConfigError(f"{gallery} is an index: name the queries, for instance the embedding file it was built from")


def _search(gallery: Gallery, queries: Queries, k: int, progress: Callable[[int], object]) -> Retrieval:
    itself = queries.same_as(gallery)
    if k > len(gallery) - itself:
        left = " besides the query itself" if itself else ""
        raise ConfigError(f"k {k} is larger than the gallery: {gallery.path} has {len(gallery) - itself} rows{left}")
    if len(queries) == 0:
        raise DataError(f"{queries.name} has no rows to search for")
    names, labels = gallery.meta.label_names, queries.labels
    if labels is not None:
        labels, names = same_labels(names, queries.meta.label_names, labels)
    neighbors, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    measured, seconds = [], 0.0
    for rows, block in queries.rows.blocks():
        vectors = prepare(block, gallery.metric, lambda i, start=rows.start: str(queries.ids[start + i]), queries.name)  # type: ignore[misc]
        for first in range(0, len(vectors), _ROWS):
            part = slice(rows.start + first, min(rows.start + first + _ROWS, rows.stop))
            asked = vectors[first : first + _ROWS]
            exclude = np.arange(part.start, part.stop) if itself else None
            start = time.perf_counter()
            distances[part], neighbors[part] = gallery.search(asked, k, exclude)
            seconds += time.perf_counter() - start
            if labels is not None and gallery.labels is not None:
                measured.append(measure(gallery.search, asked, neighbors[part], labels[part], gallery.labels, exclude))
            progress(len(asked))
    return Retrieval(
        k=k,
        metric=gallery.metric,
        leave_one_out=itself,
        neighbors=neighbors,
        distances=distances,
        query_ids=queries.ids,
        gallery_ids=gallery.ids,
        query_labels=labels,
        gallery_labels=gallery.labels,
        label_names=names,
        measured=joined(measured) if measured else None,
        seconds=seconds,
        index=gallery.about,
        gallery=str(gallery.path),
        queries=queries.name,
    )
