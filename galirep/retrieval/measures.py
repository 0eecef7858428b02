"""Measures of a retrieval by class: those of `metrics.ranking` per query, and their means overall and per class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from galirep.metrics import ranking
from galirep.metrics.arrays import F32, Floats, Ints
from galirep.search.nearest import Search

MEASURES = ("precision_at_1", "recall_at_k", "map_at_r", "mrr")


@dataclass(frozen=True)
class Measures:
    """Measures per query, (Q,) each, NaN where a query has none.

    Not measured are the `unlabelled` queries and those `without_relevant` rows in the gallery (R = 0). `first` is the
    label of the nearest neighbour, `labels` that of the query.
    """

    precision_at_1: Floats
    recall_at_k: Floats
    map_at_r: Floats
    mrr: Floats
    first: Ints
    labels: Ints
    unlabelled: int
    without_relevant: int

    def means(self) -> dict[str, float | None]:
        """Return each measure's mean over the queries that have one, None if no query has."""
        return {name: _mean(getattr(self, name)) for name in MEASURES}

    def classes(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return the means per class of the queries, with its name, label and `n`; lowest MAP@R (or MRR) first."""
        rows = []
        for label in np.unique(self.labels[~np.isnan(self.mrr)]):
            of_class = self.labels == label
            means = {name: _mean(getattr(self, name)[of_class]) for name in MEASURES}
            rows.append({"name": class_name(int(label), names), "label": int(label), "n": int(of_class.sum()), **means})
        return sorted(rows, key=lambda row: row["mrr"] if row["map_at_r"] is None else row["map_at_r"])

    def confusions(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """Count the pairs (class of the query, other class of its nearest neighbour), most frequent first."""
        return [
            {"query": class_name(label, names), "nearest": class_name(nearest, names), "n": n}
            for label, nearest, n in ranking.confusions(self.first, self.labels)
        ]


def class_name(label: int, names: tuple[str, ...]) -> str:
    """Return the name of a class: '' for no label, the number as text if it has no name."""
    if label < 0:
        return ""
    return names[label] if label < len(names) else str(label)


def measure(
    search: Search, queries: F32, neighbors: Ints, labels: Ints, gallery_labels: Ints, exclude: Ints | None
) -> Measures:
    """Measure some queries: (Q, D) prepared vectors, their (Q, k) neighbours and (Q,) labels.

    `labels` are numbered as `gallery_labels` (N,). MAP@R ranks whole classes, so it is NaN for an inexact index.
    """
    k = neighbors.shape[1]
    hits = ranking.hits(neighbors, labels, gallery_labels)
    relevant = ranking.relevant(labels, gallery_labels, leave_one_out=exclude is not None)
    return Measures(
        precision_at_1=ranking.precision_at_1(hits, relevant),
        recall_at_k=ranking.recall_at_k(hits, relevant, k),
        map_at_r=_map_at_r(search, queries, labels, gallery_labels, relevant, exclude),
        mrr=ranking.reciprocal_rank(hits, relevant, k),
        first=np.where(neighbors[:, 0] >= 0, gallery_labels[neighbors[:, 0]], ranking.NO_LABEL),
        labels=labels,
        unlabelled=int((labels < 0).sum()),
        without_relevant=int(((labels >= 0) & (relevant == 0)).sum()),
    )


def concatenate(parts: Sequence[Measures]) -> Measures:
    """Concatenate the measures of consecutive blocks of queries."""
    fields: dict[str, Any] = {}
    for name in Measures.__dataclass_fields__:
        values = [getattr(part, name) for part in parts]
        fields[name] = sum(values) if isinstance(values[0], int) else np.concatenate(values)
    return Measures(**fields)


def _map_at_r(
    search: Search, queries: F32, labels: Ints, gallery_labels: Ints, relevant: Ints, exclude: Ints | None
) -> Floats:
    out = np.full(len(queries), np.nan)
    measurable = np.flatnonzero(relevant)
    if not len(measurable) or not search.exact:
        return out
    depth = int(relevant.max())
    start = 0
    for rows in search.rank(queries[measurable], depth, None if exclude is None else exclude[measurable]):
        part = measurable[start : start + len(rows)]
        out[part] = ranking.average_precision_at_r(ranking.hits(rows, labels[part], gallery_labels), relevant[part])
        start += len(rows)
    return out


def _mean(values: Floats) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
