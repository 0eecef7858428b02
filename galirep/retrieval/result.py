"""What `retrieve` found, as arrays, as JSON, and as a file in the keys of ann-benchmarks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.errors import ConfigError
from galirep.metrics.arrays import F32, Ints
from galirep.retrieval.curation import Duplicates, nearness
from galirep.retrieval.measured import MEASURES, Measured, name_of
from galirep.system.files import atomic_write, write_json

_ANN_NAMES = {"cosine": "angular", "l2": "euclidean", "ip": "ip"}  # of ann-benchmarks
_KINDS = (".h5", ".json")


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
    duplicates: Duplicates | None = None
    outliers: tuple[Ints, NDArray[np.float64]] | None = (
        None  # rows of the queries and their mean distances, farthest first
    )

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
            "duplicates": self._duplicates(),
            "outliers": self._outliers(),
            "seconds": round(self.seconds, 4),
            "index": self.index,
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the neighbours as .h5 (the keys of ann-benchmarks, neighbors and distances, with query_ids and neighbor_ids) or .json.

        Raises:
            ConfigError: another suffix, or an output that exists.
        """
        path = Path(path)
        require_kind(path)
        if path.suffix == ".json":
            write_json(
                path, {**self.summary(), "results": [self.row(i) for i in range(len(self.query_ids))]}, overwrite
            )
            return
        with atomic_write(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
            file.attrs.update({"distance": _ANN_NAMES[self.metric], "type": "dense"})
            file.attrs.update(
                {name: getattr(self, name) for name in ("metric", "k", "leave_one_out", "gallery", "queries")}
            )
            file["neighbors"], file["distances"] = self.neighbors, self.distances
            file.create_dataset("query_ids", data=self.query_ids, dtype=h5py.string_dtype())
            names = np.where(self.neighbors < 0, "", self.gallery_ids[self.neighbors])
            file.create_dataset("neighbor_ids", data=names, dtype=h5py.string_dtype())

    def row(self, i: int) -> dict[str, Any]:
        """Query i and its neighbours by id, with labels by name."""
        found = [
            (int(row), float(distance))
            for row, distance in zip(self.neighbors[i], self.distances[i], strict=True)
            if row >= 0
        ]
        neighbors = [
            {"id": self.gallery_ids[row], "row": row, "distance": d, **self._label(self.gallery_labels, row)}
            for row, d in found
        ]
        return {"id": self.query_ids[i], **self._label(self.query_labels, i), "neighbors": neighbors}

    def _duplicates(self) -> dict[str, Any] | None:
        if (found := self.duplicates) is None:
            return None
        columns = (a.tolist() for a in (found.queries, found.rows, found.distances))
        pairs = [
            {"query": self.query_ids[query], "gallery": self.gallery_ids[row], **nearness(distance, self.metric)}
            for query, row, distance in zip(*columns, strict=True)
        ]
        groups = [self.gallery_ids[group].tolist() for group in found.groups]
        return {"threshold": found.threshold, "n_pairs": len(pairs), "groups": groups, "pairs": pairs}

    def _outliers(self) -> list[dict[str, Any]] | None:
        if self.outliers is None:
            return None
        rows = zip(*(a.tolist() for a in self.outliers), strict=True)
        return [
            {"id": self.query_ids[row], **self._label(self.query_labels, row), "mean_distance": score}
            for row, score in rows
        ]

    def _label(self, labels: Ints | None, row: int) -> dict[str, str]:
        return {} if labels is None or labels[row] < 0 else {"label": name_of(int(labels[row]), self.label_names)}


def require_kind(path: Path) -> None:
    """Refuse a file of results that is neither .h5 nor .json.

    Raises:
        ConfigError: it is not.
    """
    if path.suffix not in _KINDS:
        raise ConfigError(f"{path}: results are written as {' or '.join(_KINDS)}")
