"""Distances between feature vectors (cosine, l2, ip; smaller is nearer) and the vectors that they take."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from galirep.errors import ConfigError, DataError, format_list, unknown
from galirep.metrics.arrays import F32

METRICS = ("cosine", "l2", "ip")
MAX_LENGTH = float(np.sqrt(np.finfo(np.float32).max)) / 2
"""Length of a vector up to which products and squared distances of two such vectors are float32: 9.2e18."""


def require_metric(metric: str) -> None:
    """Raise unless `metric` is one of METRICS.

    Raises:
        ConfigError: the metric is unknown.
    """
    if metric not in METRICS:
        raise ConfigError(unknown("metric", metric, METRICS))


def prepare_vectors(
    rows: NDArray[np.floating], metric: str, id_of: Callable[[int], str], what: str, out: F32 | None = None
) -> F32:
    """Convert (N, D) features to contiguous (N, D) float32, scaled to unit length for metric cosine.

    Galleries and queries both pass through here before they are indexed or searched. The result is written to `out` if
    that is given.

    Raises:
        DataError: a row has NaN or infinity, is zero under cosine, or is longer than MAX_LENGTH under l2 and ip. The
            message names `what` and the first ids, by `id_of(row)`.
    """
    # a float64 beyond float32 becomes infinity, which is told below
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(rows, dtype=np.float32)
    squared_norms = np.einsum("nd,nd->n", vectors, vectors)
    # In float32 these may have underflowed to 0 or overflowed to infinity: compute them again in float64.
    uncertain = ~(squared_norms > np.finfo(np.float32).tiny) | ~np.isfinite(squared_norms)
    squared_norms = squared_norms.astype(np.float64)
    squared_norms[uncertain] = np.square(vectors[uncertain], dtype=np.float64).sum(axis=1)
    _raise_if_any(~np.isfinite(squared_norms), id_of, f"{what} has NaN or infinite features")
    if metric == "cosine":
        problem = f"{what} has zero vectors, which have no direction (use --metric l2 or leave them out)"
        _raise_if_any(squared_norms == 0, id_of, problem)
        return _scale_to_unit_length(vectors, squared_norms, uncertain, out)
    too_long = np.flatnonzero(squared_norms > MAX_LENGTH**2)
    if len(too_long):
        largest = np.abs(vectors[too_long]).max(axis=1)
        raise DataError(
            f"{what} has features too large for metric {metric}: up to {largest.max():.3g}, in "
            f"{id_of(int(too_long[largest.argmax()]))!r}; vectors longer than {MAX_LENGTH:.2g} have squares that are "
            f"no float32: {len(too_long)} of {len(vectors)} rows here (use --metric cosine, or divide all features by "
            "one number)"
        )
    if out is None:
        return vectors
    out[...] = vectors
    return out


def _scale_to_unit_length(
    vectors: F32, squared_norms: NDArray[np.float64], uncertain: NDArray[np.bool_], out: F32 | None
) -> F32:
    """Divide rows by their lengths; where squares are no float32 (`uncertain`), lengths may be none either."""
    lengths = np.sqrt(squared_norms)
    safe: F32 = np.where(uncertain, 1, lengths).astype(np.float32)[:, None]
    units = np.divide(vectors, safe, out=out)
    if uncertain.any():
        units[uncertain] = vectors[uncertain] / lengths[uncertain, None]
    return units


def _raise_if_any(bad: NDArray[np.bool_], id_of: Callable[[int], str], problem: str) -> None:
    if bad.any():
        raise DataError(f"{problem}: {format_list(repr(id_of(int(row))) for row in np.flatnonzero(bad))}")


def distance(a: F32, b: F32, metric: str) -> F32:
    """Compute distances of prepared vectors along the last axis; the other axes broadcast.

    cosine: 1 - cos, in [0, 2]; l2: Euclidean length |a - b|; ip: -<a, b>. The sum is taken in float64 in an order that
    depends only on D, so equal pairs always have equal distances, whichever backend searched: ties stay ties.
    """
    if metric == "l2":
        exact = np.sqrt(np.square(np.subtract(a, b, dtype=np.float64)).sum(axis=-1))
    else:
        product = np.multiply(a, b, dtype=np.float64).sum(axis=-1)
        exact = np.maximum(1 - product, 0) if metric == "cosine" else -product
    return np.asarray(exact, dtype=np.float32)
