"""Linear support vector machines on dense features: the optimum of scikit-learn's LinearSVC, found faster.

For each class, with y_i = +1 on its rows and -1 on the others (liblinear's L2-regularised squared hinge, Fan et al.
2008; one versus rest, the intercept regularised like a weight, as LinearSVC does by default):

    F(w) = 1/2 |w|^2 + C sum_i max(0, 1 - y_i w.x_i)^2        with x_i = (features, 1)

LinearSVC turns dense features into liblinear's sparse format, takes one class at a time and has no warm start:
`benchmarks/probe_cost.py` measures it 3 to 20 times slower, and a protocol fits hundreds of them. Problems that are
small on one side are solved here by exact Newton steps at any C, on the Gram matrix of the rows or on the columns.
Problems that are large on both sides are solved by L-BFGS on all classes at once, preconditioned by the Hessian of all
rows. F is 1-strongly convex, so F(w) - min F <= 1/2 |grad F(w)|^2: a fit stops, and counts as converged, where that
bound is below `TOLERANCE` F(w).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

TOLERANCE = 1e-5
# up to this many rows, a Newton step on their Gram matrix is quick ...
_MAX_GRAM_ROWS = 2000
# ... and up to this rows x columns^2, so is one on the columns
_MAX_COLUMN_WORK = 1e9
_NEWTON_STEPS = 100
_LBFGS_ITERATIONS = 2000

Matrix = NDArray[np.float64]
_Fit = tuple[float, Matrix, bool]  # C, coefficients, converged


@dataclass(frozen=True)
class LinearSVM:
    """A fitted classifier: K `classes`, `coef` (D + 1, K) with the intercepts in its last row, and its `C`."""

    classes: NDArray[Any]
    coef: Matrix
    C: float
    converged: bool

    def predict(self, features: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Return the (N,) labels of (N, D) features."""
        coef = self.coef.astype(features.dtype, copy=False)
        labels: NDArray[Any] = self.classes[np.argmax(features @ coef[:-1] + coef[-1], axis=1)]
        return labels


def fit_path(features: NDArray[np.floating[Any]], labels: NDArray[Any], grid: Iterable[float]) -> Iterator[LinearSVM]:
    """Fit (N, D) features and (N,) labels of two or more classes for each C of an ascending grid, with warm starts."""
    classes, codes = np.unique(labels, return_inverse=True)
    signs = np.where(codes[:, None] == np.arange(len(classes)), 1.0, -1.0)  # (N, K)
    rows = np.ones((len(features), features.shape[1] + 1))
    rows[:, :-1] = features
    n, width = rows.shape
    fits: Iterator[_Fit]
    if n <= min(2 * width, _MAX_GRAM_ROWS):
        gram = rows @ rows.T
        fits = ((C, rows.T @ dual, converged) for C, dual, converged in _fit_newton(gram, signs, grid, dual=True))
    elif n * width**2 <= _MAX_COLUMN_WORK:
        fits = _fit_newton(rows, signs, grid, dual=False)
    else:
        fits = _fit_lbfgs(rows, signs, grid)
    for C, coef, converged in fits:
        yield LinearSVM(classes, coef, C, converged)


def fit(features: NDArray[np.floating[Any]], labels: NDArray[Any], C: float) -> LinearSVM:
    """Fit (N, D) features and (N,) labels of two or more classes."""
    return next(fit_path(features, labels, [C]))


def _fit_newton(matrix: Matrix, signs: Matrix, grid: Iterable[float], dual: bool) -> Iterator[_Fit]:
    """Fit class by class for each C; with `dual`, on the Gram matrix, and the coefficients are those of the rows."""
    squares = np.diag(matrix) if dual else np.sum(matrix * matrix, axis=1)
    # past this C, 1/(2C) is lost in the rounding of what it is added to, and the classifier does not change any more
    max_C = 1 / (2e-10 * max(float(np.mean(squares)), 1e-10))
    solution = np.zeros((matrix.shape[1], signs.shape[1]))
    for C in grid:
        converged = True
        for column in range(signs.shape[1]):
            solution[:, column], column_converged = _minimize_newton(
                matrix, signs[:, column], min(C, max_C), solution[:, column], dual
            )
            converged = converged and column_converged
        yield C, solution.copy(), converged


def _minimize_newton(matrix: Matrix, sign: Matrix, C: float, start: Matrix, dual: bool) -> tuple[Matrix, bool]:
    """Fit one class by Newton steps with a line search; return the solution and whether it converged.

    The method is that of Chapelle 2007, "Training a support vector machine in the primal". `matrix` holds the rows x_i
    and the solution is w; or, with `dual`, it is their Gram matrix and the solution is the b of w = sum_i b_i x_i.
    """

    def objective(solution: Matrix, scores: Matrix) -> float:
        norm = solution @ (scores if dual else solution)
        return float(norm / 2 + C * np.sum(np.maximum(1 - sign * scores, 0) ** 2))

    solution = start
    scores = matrix @ solution
    for _ in range(_NEWTON_STEPS):
        # the rows with a loss: only they shape the solution
        active = np.flatnonzero(sign * scores < 1)
        active_rows = matrix[active]
        if dual:
            hessian, target = active_rows[:, active], sign[active]
        else:
            hessian, target = active_rows.T @ active_rows, active_rows.T @ sign[active]
        hessian.flat[:: len(hessian) + 1] += 1 / (2 * C)
        step = -solution
        try:
            factor = cho_factor(hessian, overwrite_a=True, check_finite=False)
            step[active if dual else slice(None)] += cho_solve(factor, target)
        except LinAlgError:
            return solution, False
        change = matrix @ step
        current = objective(solution, scores)
        length = 1.0
        while objective(solution + length * step, scores + length * change) > current * (1 + 1e-12) and length > 1e-6:
            length /= 2
        solution = solution + length * step
        scores = scores + length * change
        slack = np.maximum(1 - sign * scores, 0)
        # with the same active rows, the quadratic that the full step minimised is F itself
        if length == 1 and np.array_equal(np.flatnonzero(slack), active):
            return solution, True
        gradient = solution - 2 * C * (sign * slack if dual else matrix.T @ (sign * slack))
        if gradient @ (matrix @ gradient if dual else gradient) / 2 <= TOLERANCE * objective(solution, scores):
            return solution, True
    return solution, False


def _fit_lbfgs(rows: Matrix, signs: Matrix, grid: Iterable[float]) -> Iterator[_Fit]:
    """Fit all classes at once for each C."""
    covariance = rows.T @ rows
    coef = np.zeros((rows.shape[1], signs.shape[1]))
    for C in grid:
        # of the rows, those with a loss where the fit starts
        active_share = max(float(np.mean(signs * (rows @ coef) < 1)), 1e-3)
        hessian = np.eye(len(covariance)) + 2 * C * active_share * covariance
        factor = cholesky(hessian, overwrite_a=True, check_finite=False)
        coef, converged = _minimize_lbfgs(rows, signs, C, factor, coef)
        yield C, coef, converged


class _Converged(Exception):
    """Raised inside the objective to stop L-BFGS once the tolerance is met."""


def _minimize_lbfgs(rows: Matrix, signs: Matrix, C: float, factor: Matrix, start: Matrix) -> tuple[Matrix, bool]:
    """Minimise F of all classes over the variables `factor @ w`; return w and whether it converged."""
    coef = start

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        nonlocal coef
        coef = solve_triangular(factor, flat.reshape(start.shape), check_finite=False)
        slack = np.maximum(1 - signs * (rows @ coef), 0)
        gradient = coef - 2 * C * (rows.T @ (slack * signs))
        value = np.sum(coef * coef) / 2 + C * np.sum(slack * slack)
        if np.sum(gradient * gradient) / 2 <= TOLERANCE * value:
            raise _Converged
        return float(value), solve_triangular(factor, gradient, trans="T", check_finite=False).ravel()

    options = {"maxiter": _LBFGS_ITERATIONS, "maxfun": 2 * _LBFGS_ITERATIONS, "gtol": 0.0, "ftol": 0.0, "maxcor": 20}
    try:
        last = minimize(objective, (factor @ start).ravel(), jac=True, method="L-BFGS-B", options=options)
    except _Converged:
        return coef, True
    return solve_triangular(factor, last.x.reshape(start.shape), check_finite=False), False
