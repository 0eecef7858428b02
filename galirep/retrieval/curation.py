"""What users do with embeddings first: near-duplicates and outliers."""

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
_TOLERANCE = 1e-6  # of a distance: vectors that are equal may be this far apart once they are normalised in float32


@dataclass
class Duplicates:
    """Pairs at least as near as the threshold, nearest first: rows of queries, rows of the gallery, distances.

    `groups` are the sets of rows that pairs connect, largest first, where gallery and queries are the same rows; else empty.
    """

    threshold: float
    queries: Ints
    rows: Ints
    distances: F32
    groups: list[Ints]


def radius_of(threshold: float, metric: str) -> float:
    """The distance that THRESHOLD stands for: a similarity under cosine (-1 to 1) and ip, itself a distance under l2.

    Raises:
        ConfigError: out of range.
    """
    low, high = {"cosine": (-1.0, 1.0), "l2": (0.0, np.inf), "ip": (-np.inf, np.inf)}[metric]
    if not low <= threshold <= high:
        what = (
            "a cosine similarity from -1 to 1"
            if metric == "cosine"
            else "a distance of 0 or more"
            if metric == "l2"
            else "a number"
        )
        raise ConfigError(f"duplicates threshold {threshold}: under metric {metric} it is {what}")
    return {"cosine": 1 - threshold, "l2": threshold, "ip": -threshold}[metric] + _TOLERANCE


def nearness(distance: float, metric: str) -> dict[str, float]:
    """A distance in the terms of `threshold`: {"similarity": ...}, or {"distance": ...} under l2."""
    return (
        {"distance": distance} if metric == "l2" else {"similarity": 1 - distance if metric == "cosine" else -distance}
    )


def near_duplicates(
    search: Search, blocks: Iterable[tuple[slice, F32]], threshold: float, metric: str, *, itself: bool
) -> Duplicates:
    """Every pair of a query and a row at least as near as `threshold` (see `radius_of`); with `itself`, queries being the rows, each pair
    once.

    Raises:
        ConfigError: a threshold out of range.
        DataError: more than a million pairs.
    """
    radius = radius_of(threshold, metric)
    found: list[tuple[Ints, Ints, F32]] = []
    total = 0
    for place, vectors in blocks:
        for queries, rows, distances in search.within(vectors, radius):
            queries += place.start
            keep = rows > queries if itself else np.ones(len(rows), dtype=bool)
            found.append((queries[keep], rows[keep], distances[keep]))
            total += int(keep.sum())
            if total > MAX_PAIRS:
                raise DataError(f"more than {MAX_PAIRS:,} pairs are as near as {threshold}: ask for nearer ones")
    queries, rows, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((rows, queries, distances))
    queries, rows = queries[order], rows[order]
    return Duplicates(threshold, queries, rows, distances[order], _groups(queries, rows) if itself else [])


def _groups(a: Ints, b: Ints) -> list[Ints]:
    members, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    if not len(members):
        return []
    edges = coo_matrix((np.ones(len(a)), (places[: len(a)], places[len(a) :])), shape=(len(members), len(members)))
    _, group = connected_components(edges, directed=False)
    order = np.argsort(group, kind="stable")
    parts = np.split(members[order], np.flatnonzero(np.diff(group[order])) + 1)
    return sorted(parts, key=lambda part: (-len(part), part[0]))


def outliers(distances: F32, n: int) -> tuple[Ints, NDArray[np.float64]]:
    """(Q, k) distances to the k nearest -> the n queries farthest from their neighbours, by mean distance, and those means, farthest first.

    The mean distance to the k nearest neighbours ranks as the sum does that Angiulli and Pizzuti (2002, "Fast Outlier Detection in High
    Dimensional Spaces") define.
    """
    score = distances.mean(axis=1, dtype=np.float64)
    order = np.argsort(-score, kind="stable")[:n]
    return order, score[order]
