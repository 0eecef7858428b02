"""Fréchet distance between two sets of features."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.errors import DataError


def frechet_distance(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """Return the Fréchet distance of the Gaussians fitted to features `a` (N, D) and `b` (M, D).

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) with means m and covariances C (Heusel et al. 2017, Eq. 6), in
    squared units of the features, computed in float64. With the 2,048 features of Inception it is the FID. It is biased
    upwards for few rows: compare sets of equal size only.

    Raises:
        DataError: not two-dimensional, different widths, fewer than two rows, NaN or infinity.
    """
    _require_features(a, b)
    c_a, c_b = _covariance(a), _covariance(b)
    # tr (C_a C_b)^1/2 from the symmetric matrix C_a^1/2 C_b C_a^1/2, which has the same eigenvalues
    values, vectors = np.linalg.eigh(c_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ c_b @ root), 0)).sum()
    difference = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    return float(difference @ difference + np.trace(c_a) + np.trace(c_b) - 2 * cross)


def _covariance(features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False))


def _require_features(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"the Fréchet distance needs features (N, D) and (M, D), not {a.shape} and {b.shape}")
    if min(len(a), len(b)) < 2:
        raise DataError(f"the Fréchet distance needs two or more rows of features on each side, not {len(a)}, {len(b)}")
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        raise DataError("the Fréchet distance needs finite features: some are NaN or infinite")
