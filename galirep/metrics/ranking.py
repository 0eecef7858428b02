"""Measures of a ranking as pure functions of arrays.

`hits` (Q, K) bool: does the neighbour at this rank, nearest first, carry the query's label. `relevant` (Q,) int: how many gallery rows do
(R), the query itself not counted. Measures come per query, so that means over any group of queries derive from them. A query without
relevant rows has no value (NaN).
"""

from typing import Any

import numpy as np

from galirep.metrics.arrays import Bools, Floats, Ints

NO_LABEL = -1


def hits(neighbors: Ints, query_labels: Ints, gallery_labels: Ints) -> Bools:
    """(Q, K) rows of the gallery (-1: none found), (Q,) and (N,) labels (-1: none) -> (Q, K) bool. What has no label never hits."""
    found = np.where(neighbors >= 0, gallery_labels[neighbors], NO_LABEL)
    return np.asarray((found == query_labels[:, None]) & (found != NO_LABEL))


def relevant(query_labels: Ints, gallery_labels: Ints, *, leave_one_out: bool) -> Ints:
    """(Q,) how many gallery rows have the query's label; with `leave_one_out` one fewer, the query itself. 0 for a query without a
    label."""
    known, counts = np.unique(gallery_labels[gallery_labels != NO_LABEL], return_counts=True)
    if not len(known):
        return np.zeros(len(query_labels), dtype=np.int64)
    at = np.minimum(np.searchsorted(known, query_labels), len(known) - 1)
    found = np.where(known[at] == query_labels, counts[at] - leave_one_out, 0)
    return found.astype(np.int64)


def precision_at_1(hits: Bools, relevant: Ints) -> Floats:
    """(Q,) 1 where the nearest neighbour is of the query's class."""
    return _where(relevant > 0, hits[:, 0].astype(np.float64))


def recall_at_k(hits: Bools, relevant: Ints, k: int) -> Floats:
    """(Q,) 1 where at least one of the k nearest is of the query's class: recall@k of metric learning (Jegou et al. 2011; Musgrave et al.
    2020, section 2.3), not the share of relevant rows that were found."""
    return _where(relevant > 0, hits[:, :k].any(axis=1).astype(np.float64))


def reciprocal_rank(hits: Bools, relevant: Ints, k: int) -> Floats:
    """(Q,) 1 / rank of the first hit among the k nearest, 0 where there is none; its mean is MRR@k (Voorhees 1999)."""
    first = hits[:, :k].argmax(axis=1)
    return _where(relevant > 0, hits[:, :k].any(axis=1).astype(np.float64) / (first + 1))


def average_precision_at_r(hits: Bools, relevant: Ints) -> Floats:
    """(Q,) 1/R * sum over i = 1..R of precision(i) * hit(i), with R the query's own number of relevant rows; its mean is MAP@R
    (Musgrave, Belongie, Lim 2020, "A Metric Learning Reality Check", section 3.2).

    Raises:
        ValueError: a query has more relevant rows than `hits` has columns.
    """
    if len(relevant) and relevant.max() > hits.shape[1]:
        raise ValueError(f"MAP@R needs {relevant.max()} neighbours of a query, not {hits.shape[1]}")
    ranks = np.arange(1, hits.shape[1] + 1)
    counted = hits & (ranks <= relevant[:, None])
    precision = counted.cumsum(axis=1) / ranks
    return _where(relevant > 0, (precision * counted).sum(axis=1) / np.maximum(relevant, 1))


def _where(defined: Bools, values: Any) -> Floats:
    return np.where(defined, values, np.nan)


def confusions(first: Ints, query_labels: Ints) -> list[tuple[int, int, int]]:
    """(Q,) label of each query's nearest neighbour, (Q,) its own -> (own, other, how often) where they differ, most frequent first;
    unlabelled left out."""
    wrong = (first != query_labels) & (first != NO_LABEL) & (query_labels != NO_LABEL)
    pairs, counts = np.unique(np.stack([query_labels[wrong], first[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]
