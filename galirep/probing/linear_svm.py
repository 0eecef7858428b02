"""Linear support vector machines on dense features: the optimum of scikit-learn's LinearSVC, found faster.

For each class, with y_i = +1 on its rows and -1 on the others (liblinear's L2-regularised squared hinge, Fan et al. 2008; one versus rest,
the intercept regularised like a weight, as LinearSVC does by default):

    F(w) = 1/2 |w|^2 + C sum_i max(0, 1 - y_i w.x_i)^2        with x_i = (features, 1)

LinearSVC turns dense features into liblinear's sparse format, takes one class at a time and has no warm start: `benchmarks/probe_cost.py`
has it 3 to 20 times slower, and a protocol fits hundreds of them. Here Newton steps solve what is small on one side, exactly and at any C,
on the Gram matrix of the rows or on the columns; what is large on both goes to L-BFGS, all classes at once, preconditioned by the Hessian
of all rows. F is 1-strongly convex, so F(w) - min F <= 1/2 |grad F(w)|^2: fitting stops, and is called converged, where that
is below `TOLERANCE` F(w).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

TOLERANCE = 1e-5
_GRAM_ROWS = 2000  # up to this many rows, a Newton step on their Gram matrix is quick
_COLUMN_WORK = 1e9  # up to this rows x columns^2, so is one on the columns
_STEPS = 100
_ITERATIONS = 2000

Matrix = NDArray[np.float64]
_Fit = tuple[float, Matrix, bool]  # C, coefficients, converged


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
    n, width = rows.shape
    fits: Iterator[_Fit]
    if n <= min(2 * width, _GRAM_ROWS):
        gram = rows @ rows.T
        fits = ((C, rows.T @ dual, converged) for C, dual, converged in _exactly(gram, signs, grid, dual=True))
    elif n * width**2 <= _COLUMN_WORK:
        fits = _exactly(rows, signs, grid, dual=False)
    else:
        fits = _iteratively(rows, signs, grid)
    for C, coef, converged in fits:
        yield LinearSVM(classes, coef, C, converged)


def fit(features: NDArray[np.floating[Any]], labels: NDArray[Any], C: float) -> LinearSVM:
    """Fit (N, D) features and (N,) labels of two or more classes."""
    return next(fit_path(features, labels, [C]))


def _exactly(matrix: Matrix, signs: Matrix, grid: Iterable[float], dual: bool) -> Iterator[_Fit]:
    squares = np.diag(matrix) if dual else np.sum(matrix * matrix, axis=1)
    # past this C, 1/(2C) is lost in the rounding of what it is added to, and the classifier does not change any more
    largest = 1 / (2e-10 * max(float(np.mean(squares)), 1e-10))
    solution = np.zeros((matrix.shape[1], signs.shape[1]))
    for C in grid:
        converged = True
        for column in range(signs.shape[1]):
            solution[:, column], done = _newton(matrix, signs[:, column], min(C, largest), solution[:, column], dual)
            converged = converged and done
        yield C, solution.copy(), converged


def _newton(matrix: Matrix, sign: Matrix, C: float, found: Matrix, dual: bool) -> tuple[Matrix, bool]:
    """One class by Newton steps with a line search (Chapelle 2007, "Training a support vector machine in the primal").

    `matrix` holds the rows x_i and `found` is w; or, `dual`, it is their Gram matrix and w is the sum of found_i x_i.
    """

    def objective(found: Matrix, score: Matrix) -> float:
        return float(found @ (score if dual else found) / 2 + C * np.sum(np.maximum(1 - sign * score, 0) ** 2))

    score = matrix @ found
    for _ in range(_STEPS):
        within = np.flatnonzero(sign * score < 1)  # the rows with a loss: only they shape the solution
        part = matrix[within]
        system, target = (part[:, within], sign[within]) if dual else (part.T @ part, part.T @ sign[within])
        system.flat[:: len(system) + 1] += 1 / (2 * C)
        step = -found
        try:
            step[within if dual else slice(None)] += cho_solve(
                cho_factor(system, overwrite_a=True, check_finite=False), target
            )
        except LinAlgError:
            return found, False
        change, before, length = matrix @ step, objective(found, score), 1.0
        while objective(found + length * step, score + length * change) > before * (1 + 1e-12) and length > 1e-6:
            length /= 2
        found, score = found + length * step, score + length * change
        slack = np.maximum(1 - sign * score, 0)
        if length == 1 and np.array_equal(np.flatnonzero(slack), within):
            return found, True  # the quadratic that the step minimised is F itself here
        gradient = found - 2 * C * (sign * slack if dual else matrix.T @ (sign * slack))
        if gradient @ (matrix @ gradient if dual else gradient) / 2 <= TOLERANCE * objective(found, score):
            return found, True
    return found, False


def _iteratively(rows: Matrix, signs: Matrix, grid: Iterable[float]) -> Iterator[_Fit]:
    covariance = rows.T @ rows
    coef = np.zeros((rows.shape[1], signs.shape[1]))
    for C in grid:
        share = max(
            float(np.mean(signs * (rows @ coef) < 1)), 1e-3
        )  # of the rows, those with a loss where the fit starts
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
