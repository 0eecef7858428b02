"""Metrics of a ranking as pure functions of arrays.

`hits` (Q, K) bool: whether the neighbour at this rank, nearest first, has the query's label. `relevant` (Q,) int: how
many gallery rows have it (R), not counting the query itself. Metrics come per query, so that means over any group of
queries can be computed from them. A query without relevant rows has no value (NaN).
"""

from typing import Any

import numpy as np

from galirep.metrics.arrays import Bools, Floats, Ints

NO_LABEL = -1


def hits(neighbors: Ints, query_labels: Ints, gallery_labels: Ints) -> Bools:
    """Return whether each neighbour has its query's label: (Q, K), (Q,), (N,) -> (Q, K) bool.

    `neighbors` are rows of the gallery, -1 for none. Rows and queries without a label (-1) never hit.
    """
    labels = np.where(neighbors >= 0, gallery_labels[neighbors], NO_LABEL)
    return np.asarray((labels == query_labels[:, None]) & (labels != NO_LABEL))


def relevant(query_labels: Ints, gallery_labels: Ints, *, leave_one_out: bool) -> Ints:
    """Count the gallery rows that have each query's label: (Q,), (N,) -> (Q,).

    `leave_one_out` counts one fewer, the query itself. A query without a label has 0.
    """
    classes, counts = np.unique(gallery_labels[gallery_labels != NO_LABEL], return_counts=True)
    if not len(classes):
        return np.zeros(len(query_labels), dtype=np.int64)
    position = np.minimum(np.searchsorted(classes, query_labels), len(classes) - 1)
    count = np.where(classes[position] == query_labels, counts[position] - leave_one_out, 0)
    return count.astype(np.int64)


def precision_at_1(hits: Bools, relevant: Ints) -> Floats:
    """Return 1 where the nearest neighbour is of the query's class, else 0; (Q,)."""
    return _defined_where(relevant > 0, hits[:, 0].astype(np.float64))


def recall_at_k(hits: Bools, relevant: Ints, k: int) -> Floats:
    """Return 1 where at least one of the k nearest is of the query's class, else 0; (Q,).

    This is recall@k of metric learning (Jegou et al. 2011; Musgrave et al. 2020, section 2.3), not the share of
    relevant rows that were retrieved.
    """
    return _defined_where(relevant > 0, hits[:, :k].any(axis=1).astype(np.float64))


def reciprocal_rank(hits: Bools, relevant: Ints, k: int) -> Floats:
    """Return 1 / rank of the first hit among the k nearest, 0 without a hit; (Q,).

    Its mean is MRR@k (Voorhees 1999).
    """
    first = hits[:, :k].argmax(axis=1)
    return _defined_where(relevant > 0, hits[:, :k].any(axis=1).astype(np.float64) / (first + 1))


def average_precision_at_r(hits: Bools, relevant: Ints) -> Floats:
    """Return 1/R * sum over i = 1..R of precision(i) * hit(i), R being the query's number of relevant rows; (Q,).

    Its mean is MAP@R (Musgrave, Belongie, Lim 2020, "A Metric Learning Reality Check", section 3.2).

    Raises:
        ValueError: a query has more relevant rows than `hits` has columns.
    """
    if len(relevant) and relevant.max() > hits.shape[1]:
        raise ValueError(f"MAP@R needs {relevant.max()} neighbours of a query, not {hits.shape[1]}")
    ranks = np.arange(1, hits.shape[1] + 1)
    hits_to_r = hits & (ranks <= relevant[:, None])
    precision = hits_to_r.cumsum(axis=1) / ranks
    return _defined_where(relevant > 0, (precision * hits_to_r).sum(axis=1) / np.maximum(relevant, 1))


def _defined_where(defined: Bools, values: Any) -> Floats:
    return np.where(defined, values, np.nan)


def confusions(nearest_labels: Ints, query_labels: Ints) -> list[tuple[int, int, int]]:
    """Count how often the nearest neighbour is of another class: (Q,), (Q,) -> (query's class, other class, count)s.

    Most frequent first. Queries and neighbours without a label are left out.
    """
    wrong = (nearest_labels != query_labels) & (nearest_labels != NO_LABEL) & (query_labels != NO_LABEL)
    pairs, counts = np.unique(
        np.stack([query_labels[wrong], nearest_labels[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]
