"""Near-duplicates and outliers of an embedding."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from galirep.errors import ConfigError, DataError
from galirep.metrics.arrays import F32, Ints
from galirep.search.nearest import Search

MAX_PAIRS = 1_000_000
# equal vectors may be this far apart once they are normalised in float32
_DISTANCE_TOLERANCE = 1e-6
# metric -> (lowest threshold, highest threshold, what it is)
_THRESHOLDS = {
    "cosine": (-1.0, 1.0, "a cosine similarity from -1 to 1"),
    "l2": (0.0, np.inf, "a distance of 0 or more"),
    "ip": (-np.inf, np.inf, "a number"),
}


@dataclass(frozen=True)
class Duplicates:
    """Pairs of a query and a gallery row that are at least as near as the threshold, nearest first, (P,) each.

    If gallery and queries are the same rows, `groups` are the connected components of the pairs, largest first; else it
    is empty.
    """

    threshold: float
    queries: Ints
    rows: Ints
    distances: F32
    groups: list[Ints]


def threshold_to_radius(threshold: float, metric: str) -> float:
    """Convert a threshold (a similarity under cosine and ip, a distance under l2) to a search radius.

    Raises:
        ConfigError: the threshold is out of range.
    """
    low, high, meaning = _THRESHOLDS[metric]
    if not low <= threshold <= high:
        raise ConfigError(f"duplicates threshold {threshold} is out of range: for metric {metric} it is {meaning}")
    return {"cosine": 1 - threshold, "l2": threshold, "ip": -threshold}[metric] + _DISTANCE_TOLERANCE


def similarity_or_distance(distance: float, metric: str) -> tuple[str, float]:
    """Express a distance in the terms of a threshold: ("distance", ...) under l2, otherwise ("similarity", ...)."""
    if metric == "l2":
        return "distance", distance
    return "similarity", 1 - distance if metric == "cosine" else -distance


def near_duplicates(
    search: Search, blocks: Iterable[tuple[slice, F32]], threshold: float, metric: str, *, leave_one_out: bool
) -> Duplicates:
    """Find every pair of a query and a gallery row at least as near as `threshold` (see `threshold_to_radius`).

    `blocks` are the prepared queries with their positions. With `leave_one_out` the queries are the gallery's own rows,
    and each pair is listed once.

    Raises:
        ConfigError: the threshold is out of range.
        DataError: there are more than a million pairs.
    """
    radius = threshold_to_radius(threshold, metric)
    parts: list[tuple[Ints, Ints, F32]] = []
    total = 0
    for positions, vectors in blocks:
        for queries, rows, distances in search.range_search(vectors, radius):
            queries += positions.start
            keep = rows > queries if leave_one_out else np.ones(len(rows), dtype=bool)
            parts.append((queries[keep], rows[keep], distances[keep]))
            total += int(keep.sum())
            if total > MAX_PAIRS:
                raise DataError(
                    f"more than {MAX_PAIRS:,} pairs are within the duplicates threshold {threshold}: use a stricter one"
                )
    queries, rows, distances = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((rows, queries, distances))
    queries, rows = queries[order], rows[order]
    groups = _connect_pairs(queries, rows) if leave_one_out else []
    return Duplicates(threshold, queries, rows, distances[order], groups)


def _connect_pairs(a: Ints, b: Ints) -> list[Ints]:
    members, positions = np.unique(np.concatenate([a, b]), return_inverse=True)
    if not len(members):
        return []
    n = len(members)
    edges = coo_matrix((np.ones(len(a)), (positions[: len(a)], positions[len(a) :])), shape=(n, n))
    _, group = connected_components(edges, directed=False)
    order = np.argsort(group, kind="stable")
    groups = np.split(members[order], np.flatnonzero(np.diff(group[order])) + 1)
    return sorted(groups, key=lambda rows: (-len(rows), rows[0]))


def outliers(distances: F32, n: int) -> tuple[Ints, NDArray[np.float64]]:
    """Return the n queries with the largest mean distance to their neighbours, largest first, and those means.

    `distances` are (Q, k), to the k nearest neighbours. Their mean ranks as the sum that Angiulli and Pizzuti (2002,
    "Fast Outlier Detection in High Dimensional Spaces") define.
    """
    score = distances.mean(axis=1, dtype=np.float64)
    order = np.argsort(-score, kind="stable")[:n]
    return order, score[order]
