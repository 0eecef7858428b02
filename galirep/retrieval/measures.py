"""How well a gallery is searched by class: the measures of `ranking` per query, and their means over all queries and over each class."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from galirep.metrics import ranking
from galirep.metrics.arrays import F32, Floats, Ints
from galirep.search.nearest import Search

MEASURES = ("precision_at_1", "recall_at_k", "map_at_r", "mrr")


@dataclass
class Measured:
    """(Q,) each, NaN for queries that have no measure: `unlabelled` ones and those `without_relevant` rows in the gallery (R = 0)."""

    precision_at_1: Floats
    recall_at_k: Floats
    map_at_r: Floats
    mrr: Floats
    first: Ints  # label of the nearest neighbour
    labels: Ints
    unlabelled: int
    without_relevant: int

    def means(self) -> dict[str, float | None]:
        """Each measure's mean over the queries that have one; None where no query has."""
        return {name: _mean(getattr(self, name)) for name in MEASURES}

    def classes(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The means for each class of the queries, `name` and `n` first, the worst MAP@R (or MRR) first."""
        rows = []
        for label in np.unique(self.labels[~np.isnan(self.mrr)]):
            own = self.labels == label
            means = {name: _mean(getattr(self, name)[own]) for name in MEASURES}
            rows.append({"name": name_of(int(label), names), "label": int(label), "n": int(own.sum()), **means})
        return sorted(rows, key=lambda row: row["mrr"] if row["map_at_r"] is None else row["map_at_r"])

    def confusions(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """Which class took the nearest place of which other's queries, most frequent first."""
        return [
            {"query": name_of(own, names), "nearest": name_of(other, names), "n": n}
            for own, other, n in ranking.confusions(self.first, self.labels)
        ]


def name_of(label: int, names: tuple[str, ...]) -> str:
    """The name of a class, its number where it has none, and '' for no label."""
    return "" if label < 0 else names[label] if label < len(names) else str(label)


def measure(
    search: Search, queries: F32, neighbors: Ints, labels: Ints, gallery_labels: Ints, exclude: Ints | None
) -> Measured:
    """The measures of some queries: (Q, D) prepared, (Q, k) their neighbours, (Q,) labels in the numbering of the gallery's (N,).

    MAP@R ranks whole classes, so an inexact index, which finds a part of them, has none.
    """
    k = neighbors.shape[1]
    hits = ranking.hits(neighbors, labels, gallery_labels)
    relevant = ranking.relevant(labels, gallery_labels, leave_one_out=exclude is not None)
    return Measured(
        precision_at_1=ranking.precision_at_1(hits, relevant),
        recall_at_k=ranking.recall_at_k(hits, relevant, k),
        map_at_r=_map_at_r(search, queries, labels, gallery_labels, relevant, exclude),
        mrr=ranking.reciprocal_rank(hits, relevant, k),
        first=np.where(neighbors[:, 0] >= 0, gallery_labels[neighbors[:, 0]], ranking.NO_LABEL),
        labels=labels,
        unlabelled=int((labels < 0).sum()),
        without_relevant=int(((labels >= 0) & (relevant == 0)).sum()),
    )


def joined(parts: list[Measured]) -> Measured:
    """The measures of all queries from those of blocks of them."""
    whole: dict[str, Any] = {}
    for name in Measured.__dataclass_fields__:
        values = [getattr(part, name) for part in parts]
        whole[name] = sum(values) if isinstance(values[0], int) else np.concatenate(values)
    return Measured(**whole)


def _map_at_r(
    search: Search, queries: F32, labels: Ints, gallery_labels: Ints, relevant: Ints, exclude: Ints | None
) -> Floats:
    out = np.full(len(queries), np.nan)
    asked = np.flatnonzero(relevant)
    start = 0
    if len(asked) and search.exact:
        for rows in search.rank(queries[asked], int(relevant.max()), None if exclude is None else exclude[asked]):
            part = asked[start : start + len(rows)]
            out[part] = ranking.average_precision_at_r(ranking.hits(rows, labels[part], gallery_labels), relevant[part])
            start += len(rows)
    return out


def _mean(values: Floats) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
