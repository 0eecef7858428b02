"""Linear support vector machines on dense features: the optimum of scikit-learn's LinearSVC, found faster.

For each class, with y_i = +1 on its rows and -1 on the others (liblinear's L2-regularised squared hinge, Fan et al. 2008; one versus rest,
the intercept regularised like a weight, as LinearSVC does by default):

    F(w) = 1/2 |w|^2 + C sum_i max(0, 1 - y_i w.x_i)^2        with x_i = (features, 1)

LinearSVC turns dense features into liblinear's sparse format, takes one class at a time and has no warm start: minutes a fit at
10,000 x 5,376, and at the large C of `ali-l2svm/v1` it does not converge. Here fewer rows than columns are solved by Newton steps on the
Gram matrix, exact at any C; more rows than columns by L-BFGS on all classes at once, preconditioned by the Hessian of all rows.
F is 1-strongly convex, so F(w) - min F <= 1/2 |grad F(w)|^2: fitting stops, and is called converged, where that is below `TOLERANCE` F(w).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

TOLERANCE = 1e-5
_GRAM_ROWS = 2000  # a Newton step solves a system of up to this many rows; beyond it L-BFGS is quicker
_STEPS = 100
_ITERATIONS = 2000

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LinearSVM:
    """A fitted classifier: `coef` is (D + 1, K), the last row the intercepts; `classes` are the K labels; `C` is what it was given."""

    classes: NDArray[Any]
    coef: Matrix
    C: float
    converged: bool

    def predict(self, features: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """(N, D) -> (N,) labels."""
        coef = self.coef.astype(features.dtype, copy=False)
        labels: NDArray[Any] = self.classes[np.argmax(features @ coef[:-1] + coef[-1], axis=1)]
        return labels


def fit_path(features: NDArray[np.floating[Any]], labels: NDArray[Any], grid: Iterable[float]) -> Iterator[LinearSVM]:
    """Fit (N, D) features and (N,) labels of two or more classes for each C of a rising grid, each fit started from the one before."""
    classes, codes = np.unique(labels, return_inverse=True)
    signs = np.where(codes[:, None] == np.arange(len(classes)), 1.0, -1.0)  # (N, K)
    rows = np.ones((len(features), features.shape[1] + 1))
    rows[:, :-1] = features
    fits = _by_rows if len(rows) <= min(rows.shape[1], _GRAM_ROWS) else _by_columns
    for C, coef, converged in fits(rows, signs, grid):
        yield LinearSVM(classes, coef, C, converged)


def fit(features: NDArray[np.floating[Any]], labels: NDArray[Any], C: float) -> LinearSVM:
    """Fit (N, D) features and (N,) labels of two or more classes."""
    return next(fit_path(features, labels, [C]))


def _by_rows(rows: Matrix, signs: Matrix, grid: Iterable[float]) -> Iterator[tuple[float, Matrix, bool]]:
    gram = rows @ rows.T
    # past this C, 1/(2C) is lost in the rounding of the Gram matrix, and the margin is hard
    largest = 1 / (2e-10 * max(float(np.mean(np.diag(gram))), 1e-10))
    dual = np.zeros_like(signs)
    for C in grid:
        converged = True
        for column in range(signs.shape[1]):
            dual[:, column], done = _newton(gram, signs[:, column], min(C, largest), dual[:, column])
            converged = converged and done
        yield C, rows.T @ dual, converged


def _newton(gram: Matrix, sign: Matrix, C: float, dual: Matrix) -> tuple[Matrix, bool]:
    """w = sum_i dual_i x_i for one class, by Newton steps (Chapelle 2007, "Training a support vector machine in the primal")."""

    def objective(dual: Matrix, score: Matrix) -> float:
        return float(dual @ score / 2 + C * np.sum(np.maximum(1 - sign * score, 0) ** 2))

    score = gram @ dual
    for _ in range(_STEPS):
        within = np.flatnonzero(sign * score < 1)  # the rows with a loss; only they are in the solution
        system = gram[np.ix_(within, within)]
        system.flat[:: len(within) + 1] += 1 / (2 * C)
        step = -dual
        step[within] += cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), sign[within], check_finite=False)
        change, before, length = gram @ step, objective(dual, score), 1.0
        while objective(dual + length * step, score + length * change) > before * (1 + 1e-12) and length > 1e-6:
            length /= 2
        dual, score = dual + length * step, score + length * change
        slack = np.maximum(1 - sign * score, 0)
        gradient = dual - 2 * C * sign * slack  # of F, in the same terms as `dual`
        settled = length == 1 and np.array_equal(np.flatnonzero(slack), within)
        if settled or gradient @ gram @ gradient / 2 <= TOLERANCE * objective(dual, score):
            return dual, True
    return dual, False


def _by_columns(rows: Matrix, signs: Matrix, grid: Iterable[float]) -> Iterator[tuple[float, Matrix, bool]]:
    covariance = rows.T @ rows
    coef = np.zeros((rows.shape[1], signs.shape[1]))
    for C in grid:
        share = max(float(np.mean(signs * (rows @ coef) < 1)), 1e-3)  # of the rows, those with a loss where the fit starts
        factor = cholesky(np.eye(len(covariance)) + 2 * C * share * covariance, overwrite_a=True, check_finite=False)
        coef, converged = _lbfgs(rows, signs, C, factor, coef)
        yield C, coef, converged


class _Reached(Exception):
    """The tolerance is met."""


def _lbfgs(rows: Matrix, signs: Matrix, C: float, factor: Matrix, coef: Matrix) -> tuple[Matrix, bool]:
    """All classes at once, in the variables `factor @ w`."""
    best = coef

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        nonlocal best
        best = solve_triangular(factor, flat.reshape(coef.shape), check_finite=False)
        slack = np.maximum(1 - signs * (rows @ best), 0)
        gradient = best - 2 * C * (rows.T @ (slack * signs))
        value = np.sum(best * best) / 2 + C * np.sum(slack * slack)
        if np.sum(gradient * gradient) / 2 <= TOLERANCE * value:
            raise _Reached
        return float(value), solve_triangular(factor, gradient, trans="T", check_finite=False).ravel()

    options = {"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "gtol": 0.0, "ftol": 0.0, "maxcor": 20}
    try:
        last = minimize(objective, (factor @ coef).ravel(), jac=True, method="L-BFGS-B", options=options)
    except _Reached:
        return best, True
    return solve_triangular(factor, last.x.reshape(coef.shape), check_finite=False), False
