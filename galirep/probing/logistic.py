"""Multinomial logistic regression by scikit-learn's L-BFGS, in the span of the rows where they are few.

With n rows of D > n columns the optimum lies in the span of the (centred) rows, for the penalty |w|^2 / 2 grows with
every part outside it. So the rows are written in an orthonormal basis of their span first, (N, n) instead of (N, D):
the same function, the same optimum, a third of the time or less. The intercept is not regularised, so that centring
changes nothing either.
"""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from galirep.probing.linear_classifier import LinearClassifier, Matrix
from galirep.probing.scaled_rows import span_of

# scikit-learn's: on the largest entry of the gradient of the mean loss; its own 1e-4 stops short where C is large
TOLERANCE = 1e-5
_ITERATIONS = 1000
# up to this many rows, their eigenvalues are quick
_MAX_SPAN_ROWS = 3000


def prefers_span(n_rows: int, n_columns: int) -> bool:
    """Return whether (n_rows, n_columns) features are fitted in the span of their rows."""
    return n_rows <= min(n_columns, _MAX_SPAN_ROWS)


def fit_path(
    features: NDArray[np.floating[Any]], labels: NDArray[Any], grid: Iterable[float]
) -> Iterator[LinearClassifier]:
    """Fit (N, D) features and (N,) labels of two or more classes for each C of an ascending grid, with warm starts."""
    model = LogisticRegression(tol=TOLERANCE, max_iter=_ITERATIONS, warm_start=True)
    for C in grid:
        model.C = C
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, labels)
        coef = np.vstack([model.coef_.T, model.intercept_])
        if coef.shape[1] == 1:
            coef = np.hstack([-coef, coef])
        yield LinearClassifier(model.classes_, coef, C, bool(model.n_iter_.max() < _ITERATIONS))


def fit(features: Matrix, labels: NDArray[Any], C: float) -> LinearClassifier:
    """Fit (N, D) float64 features, centred, and (N,) labels of two or more classes."""
    if not prefers_span(*features.shape):
        return next(fit_path(features, labels, [C]))
    rows, basis = span_of(features @ features.T)
    model = next(fit_path(rows, labels, [C]))
    coef = np.vstack([features.T @ (basis @ model.coef[:-1]), model.coef[-1:]])
    return LinearClassifier(model.classes, coef, C, model.converged)
