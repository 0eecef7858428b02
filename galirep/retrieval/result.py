"""The result of `retrieve`: as arrays, as JSON, and as an HDF5 file with the keys of ann-benchmarks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.errors import ConfigError
from galirep.metrics.arrays import F32, Ints
from galirep.retrieval.curation import Duplicates, similarity_or_distance
from galirep.retrieval.measures import MEASURES, Measures, class_name
from galirep.system.files import atomic_write, write_json
from galirep.system.outputs.hdf5 import writing_hdf5

# the names that ann-benchmarks gives to the metrics
_ANN_BENCHMARKS_METRICS = {"cosine": "angular", "l2": "euclidean", "ip": "ip"}
_SUFFIXES = (".h5", ".json")
_MAX_CONFUSIONS = 20


@dataclass(frozen=True)
class Retrieval:
    """The result of `retrieve`.

    `neighbors` (Q, k) int64 are rows of the gallery, nearest first, the lower row first at equal distance (-1: an
    inexact index found no more); `distances` (Q, k) float32: 1 - cos for cosine, |q - g| for l2, -<q, g> for ip. Labels
    are numbered as in `label_names`, -1 for none; they are None, and so is `measured`, if that side has no labels.
    `index` says how the gallery was searched (`gallery.SearchInfo`). `outliers` are rows of the queries and their mean
    distances, largest first. `notes` are remarks that a reader needs, one sentence each.
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
    measured: Measures | None
    seconds: float
    index: dict[str, Any]
    gallery: str
    queries: str
    duplicates: Duplicates | None = None
    outliers: tuple[Ints, NDArray[np.float64]] | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return the result as `galirep retrieve --json` prints it; measures that are not defined are None."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as `galirep retrieve --json` prints it; measures that are not defined are None."""
        measures = self.measured
        return {
            "gallery": self.gallery,
            "queries": self.queries,
            "n_gallery": len(self.gallery_ids),
            "n_queries": len(self.query_ids),
            "k": self.k,
            "metric": self.metric,
            "leave_one_out": self.leave_one_out,
            **(measures.means() if measures else dict.fromkeys(MEASURES)),
            "queries_unlabelled": measures.unlabelled if measures else None,
            "queries_without_relevant": measures.without_relevant if measures else None,
            "classes": measures.classes(self.label_names) if measures else [],
            "confusions": measures.confusions(self.label_names)[:_MAX_CONFUSIONS] if measures else [],
            "duplicates": self._duplicates_to_dict(),
            "outliers": self._outliers_to_list(),
            "seconds": round(self.seconds, 4),
            "index": self.index,
            "notes": list(self.notes),
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the neighbours as .h5 (keys of ann-benchmarks plus query_ids and neighbor_ids) or .json.

        Raises:
            ConfigError: another suffix, or an output that exists.
        """
        path = Path(path)
        require_result_suffix(path)
        if path.suffix == ".json":
            results = [self.row(i) for i in range(len(self.query_ids))]
            write_json(path, {**self.to_dict(), "results": results}, overwrite)
            return
        with atomic_write(path, overwrite) as temporary, writing_hdf5(temporary) as file:
            file.attrs.update({"distance": _ANN_BENCHMARKS_METRICS[self.metric], "type": "dense"})
            attributes = ("metric", "k", "leave_one_out", "gallery", "queries")
            file.attrs.update({name: getattr(self, name) for name in attributes})
            file.attrs["notes"] = json.dumps(self.notes)
            file["neighbors"] = self.neighbors
            file["distances"] = self.distances
            file.create_dataset("query_ids", data=self.query_ids, dtype=h5py.string_dtype())
            neighbor_ids = np.where(self.neighbors < 0, "", self.gallery_ids[self.neighbors])
            file.create_dataset("neighbor_ids", data=neighbor_ids, dtype=h5py.string_dtype())

    def row(self, i: int) -> dict[str, Any]:
        """Return query i and its neighbours with ids and class names."""
        neighbors = [
            {
                "id": self.gallery_ids[row],
                "row": row,
                "distance": distance,
                **self._label_field(self.gallery_labels, row),
            }
            for row, distance in zip(self.neighbors[i].tolist(), self.distances[i].tolist(), strict=True)
            if row >= 0
        ]
        return {"id": self.query_ids[i], **self._label_field(self.query_labels, i), "neighbors": neighbors}

    def _duplicates_to_dict(self) -> dict[str, Any] | None:
        duplicates = self.duplicates
        if duplicates is None:
            return None
        pairs = []
        columns = (duplicates.queries.tolist(), duplicates.rows.tolist(), duplicates.distances.tolist())
        for query, row, distance in zip(*columns, strict=True):
            name, value = similarity_or_distance(distance, self.metric)
            pairs.append({"query": self.query_ids[query], "gallery": self.gallery_ids[row], name: value})
        groups = [self.gallery_ids[group].tolist() for group in duplicates.groups]
        return {"threshold": duplicates.threshold, "n_pairs": len(pairs), "groups": groups, "pairs": pairs}

    def _outliers_to_list(self) -> list[dict[str, Any]] | None:
        if self.outliers is None:
            return None
        rows, mean_distances = self.outliers
        return [
            {"id": self.query_ids[row], **self._label_field(self.query_labels, row), "mean_distance": mean_distance}
            for row, mean_distance in zip(rows.tolist(), mean_distances.tolist(), strict=True)
        ]

    def _label_field(self, labels: Ints | None, row: int) -> dict[str, str]:
        if labels is None or labels[row] < 0:
            return {}
        return {"label": class_name(int(labels[row]), self.label_names)}


def require_result_suffix(path: Path) -> None:
    """Raise unless `path` ends in .h5 or .json.

    Raises:
        ConfigError: it has another suffix.
    """
    if path.suffix not in _SUFFIXES:
        raise ConfigError(f"{path}: results are written as {' or '.join(_SUFFIXES)}")
