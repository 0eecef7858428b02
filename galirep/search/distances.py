"""Distances between feature vectors: cosine, l2, ip; smaller is nearer in all of them, and one pair has one value whatever searched for
it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from galirep.errors import ConfigError, DataError, unknown
from galirep.metrics.arrays import F32

METRICS = ("cosine", "l2", "ip")


def check_metric(metric: str) -> str:
    """`metric` itself if it is one of METRICS.

    Raises:
        ConfigError: it is not.
    """
    if metric not in METRICS:
        raise ConfigError(unknown("metric", metric, METRICS))
    return metric


def prepare_vectors(
    rows: NDArray[np.floating], metric: str, id_of: Callable[[int], str], what: str, out: F32 | None = None
) -> F32:
    """(N, D) features -> (N, D) float32, contiguous, of unit length under cosine: what is indexed and what is searched with; in `out` if
    that is given.

    Raises:
        DataError: NaN or infinity, or under cosine a vector of zeros, which has no direction; both name `what` and the first ids by
        `id_of(row)`.
    """
    plain = np.ascontiguousarray(rows, dtype=np.float32)
    squares = np.einsum("nd,nd->n", plain, plain)
    odd = ~(squares > np.finfo(np.float32).tiny) | ~np.isfinite(
        squares
    )  # too small or too large to be told from 0 or infinity in float32
    squares = squares.astype(np.float64)
    squares[odd] = np.square(plain[odd], dtype=np.float64).sum(axis=1)
    _refuse(~np.isfinite(squares), id_of, f"{what} has NaN or infinite features")
    if metric == "cosine":
        _refuse(
            squares == 0,
            id_of,
            f"{what} has vectors of zeros, which have no direction (take --metric l2 or leave them out)",
        )
        divisors: F32 = np.sqrt(squares).astype(np.float32)[:, None]
        return np.divide(plain, divisors, out=out)
    if out is None:
        return plain
    out[...] = plain
    return out


def _refuse(bad: NDArray[np.bool_], id_of: Callable[[int], str], problem: str) -> None:
    if bad.any():
        where = np.flatnonzero(bad)
        names = ", ".join(repr(id_of(int(i))) for i in where[:5]) + (
            f" and {len(where) - 5} more" if len(where) > 5 else ""
        )
        raise DataError(f"{problem}: {names}")


def distance(a: F32, b: F32, metric: str) -> F32:
    """Distances of prepared vectors along the last axis, the others broadcast: 1 - cos in [0, 2], the Euclidean length |a - b|, or -<a, b>.

    Summed in float64 in an order that depends on the length alone, so equal pairs have equal distances; that is what makes ties ties.
    """
    if metric == "l2":
        exact = np.sqrt(np.square(np.subtract(a, b, dtype=np.float64)).sum(axis=-1))
    else:
        product = np.multiply(a, b, dtype=np.float64).sum(axis=-1)
        exact = np.maximum(1 - product, 0) if metric == "cosine" else -product
    return np.asarray(exact, dtype=np.float32)
