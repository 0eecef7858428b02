"""Linear support vector machines on dense features: the optimum of scikit-learn's LinearSVC, found faster.

For each class, with y_i = +1 on its rows and -1 on the others (liblinear's L2-regularised squared hinge, Fan et al.
2008; one versus rest, the intercept regularised like a weight, as LinearSVC does by default):

    F(w) = 1/2 |w|^2 + C sum_i max(0, 1 - y_i w.x_i)^2        with x_i = (features, 1)

or, with a free intercept, F(w, b) = 1/2 |w|^2 + C sum_i max(0, 1 - y_i (w.x_i + b))^2 with x_i = features, whose
optimum does not depend on where the features have their origin.

LinearSVC turns dense features into liblinear's sparse format, takes one class at a time and has no warm start:
`benchmarks/probe_cost.py` measures it 3 to 20 times slower, and a protocol fits hundreds of them. Problems that are
small on one side are solved here by exact Newton steps at any C, on the Gram matrix of the rows or on the columns.
Problems that are large on both sides are solved by L-BFGS on all classes at once, preconditioned by the Hessian of all
rows. F is 1-strongly convex, so F(w) - min F <= 1/2 |grad F(w)|^2: a fit stops, and counts as converged, where that
bound is below `TOLERANCE` F(w); so is min_b F(w, b) (see `free_intercept`).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from galirep.probing.free_intercept import NewtonSystem, best_intercept
from galirep.probing.linear_classifier import LinearClassifier, Matrix

TOLERANCE = 1e-5
# up to this many rows, a Newton step on their Gram matrix is quick ...
_MAX_GRAM_ROWS = 2000
# ... and up to this rows x columns^2, so is one on the columns
_MAX_COLUMN_WORK = 1e9
_NEWTON_STEPS = 100
_LBFGS_ITERATIONS = 2000

_Fit = tuple[float, Matrix, Matrix, bool]  # C, coefficients, free intercepts (0 without), converged


def prefers_gram(n_rows: int, n_columns: int) -> bool:
    """Return whether (n_rows, n_columns) features are fitted on the Gram matrix of their rows."""
    return n_rows <= min(2 * n_columns, _MAX_GRAM_ROWS)


def fit_path(
    features: NDArray[np.floating[Any]], labels: NDArray[Any], grid: Iterable[float], free_intercept: bool = False
) -> Iterator[LinearClassifier]:
    """Fit (N, D) features and (N,) labels of two or more classes for each C of an ascending grid, with warm starts.

    The intercept is regularised like a weight, or free: not regularised.
    """
    classes, signs = _one_versus_rest(labels, free_intercept)
    centre = np.zeros(0)
    if free_intercept:
        centre = features.mean(axis=0, dtype=np.float64)
        rows = features - centre
    else:
        rows = np.ones((len(features), features.shape[1] + 1))
        rows[:, :-1] = features
    # a large matrix is not held twice
    del features
    n, width = rows.shape
    fits: Iterator[_Fit]
    if prefers_gram(n, width):
        gram = rows @ rows.T
        newton = _fit_newton(gram, signs, grid, dual=True, free=free_intercept)
        fits = ((C, rows.T @ dual, intercept, converged) for C, dual, intercept, converged in newton)
    elif n * width**2 <= _MAX_COLUMN_WORK:
        fits = _fit_newton(rows, signs, grid, dual=False, free=free_intercept)
    else:
        fits = _fit_lbfgs(rows, signs, grid, free_intercept)
    for C, coef, intercept, converged in fits:
        whole = np.vstack([coef, intercept - centre @ coef]) if free_intercept else coef
        yield _classifier(classes, whole, C, converged)


def fit_gram_path(gram: Matrix, labels: NDArray[Any], grid: Iterable[float]) -> Iterator[LinearClassifier]:
    """Fit rows known by their Gram matrix (N, N), with a free intercept, for each C of an ascending grid.

    The classifiers' coefficients are those of the training rows: they take the inner products (M, N) of new rows with
    the training rows as features.
    """
    classes, signs = _one_versus_rest(labels, free_intercept=True)
    for C, dual, intercept, converged in _fit_newton(gram, signs, grid, dual=True, free=True):
        yield _classifier(classes, np.vstack([dual, intercept]), C, converged)


def _one_versus_rest(labels: NDArray[Any], free_intercept: bool) -> tuple[NDArray[Any], Matrix]:
    """Return the classes and the signs (N, K): 1 for the rows of the class, -1 for the others.

    Two classes are one problem and its mirror image; with a free intercept it is solved once (K = 1).
    """
    classes, codes = np.unique(labels, return_inverse=True)
    signs = np.where(codes[:, None] == np.arange(len(classes)), 1.0, -1.0)
    return classes, signs[:, 1:] if free_intercept and len(classes) == 2 else signs


def _classifier(classes: NDArray[Any], coef: Matrix, C: float, converged: bool) -> LinearClassifier:
    if coef.shape[1] < len(classes):
        coef = np.hstack([-coef, coef])
    return LinearClassifier(classes, coef, C, converged)


def fit(
    features: NDArray[np.floating[Any]], labels: NDArray[Any], C: float, free_intercept: bool = False
) -> LinearClassifier:
    """Fit (N, D) features and (N,) labels of two or more classes."""
    return next(fit_path(features, labels, [C], free_intercept))


def _fit_newton(matrix: Matrix, signs: Matrix, grid: Iterable[float], dual: bool, free: bool) -> Iterator[_Fit]:
    """Fit class by class for each C; with `dual`, on the Gram matrix, and the coefficients are those of the rows."""
    squares = np.diag(matrix) if dual else np.sum(matrix * matrix, axis=1)
    # past this C, 1/(2C) is lost in the rounding of what it is added to, and the classifier does not change any more;
    # a free intercept is the quotient of two such sums
    max_C = 1 / ((2e-8 if free else 2e-10) * max(float(np.mean(squares)), 1e-10))
    solution = np.zeros((matrix.shape[1], signs.shape[1]))
    intercept = np.zeros(signs.shape[1])
    for C in grid:
        converged = True
        system = NewtonSystem(matrix, min(C, max_C), dual) if free else None
        for k in range(signs.shape[1]):
            solution[:, k], intercept[k], column_converged = _minimize_newton(
                matrix, signs[:, k], min(C, max_C), solution[:, k], dual, system
            )
            converged = converged and column_converged
        yield C, solution.copy(), intercept.copy(), converged


def _minimize_newton(
    matrix: Matrix, sign: Matrix, C: float, start: Matrix, dual: bool, system: NewtonSystem | None
) -> tuple[Matrix, float, bool]:
    """Fit one class by Newton steps with a line search; return solution, intercept and whether it converged.

    The method is that of Chapelle 2007, "Training a support vector machine in the primal". `matrix` holds the rows x_i
    and the solution is w; or, with `dual`, it is their Gram matrix and the solution is the b of w = sum_i b_i x_i.
    With a `system` the intercept is free, without one it stays 0.
    """

    def objective(solution: Matrix, scores: Matrix, intercept: float) -> float:
        norm = solution @ (scores if dual else solution)
        return float(norm / 2 + C * np.sum(np.maximum(1 - sign * (scores + intercept), 0) ** 2))

    def best(scores: Matrix) -> float:
        return float(best_intercept(scores[:, None], sign[:, None])[0]) if system else 0.0

    solution = start
    scores = matrix @ solution
    intercept = best(scores)
    for _ in range(_NEWTON_STEPS):
        # the rows with a loss: only they shape the solution
        active = np.flatnonzero(sign * (scores + intercept) < 1)
        try:
            if system:
                target, new_intercept = system.minimum(sign, active, intercept)
            else:
                target, new_intercept = _newton_minimum(matrix, sign, active, C, dual), 0.0
        except LinAlgError:
            return solution, intercept, False
        step, move = target - solution, new_intercept - intercept
        change = matrix @ step
        current = objective(solution, scores, intercept) * (1 + 1e-12)
        length = 1.0
        while (
            objective(solution + length * step, scores + length * change, intercept + length * move) > current
            and length > 1e-6
        ):
            length /= 2
        solution = solution + length * step
        scores = scores + length * change
        slack = np.maximum(1 - sign * (scores + intercept + length * move), 0)
        # with the same active rows, the quadratic that the full step minimised is F itself
        if length == 1 and np.array_equal(np.flatnonzero(slack), active):
            return solution, new_intercept, True
        if system:
            intercept = best(scores)
            slack = np.maximum(1 - sign * (scores + intercept), 0)
        gradient = solution - 2 * C * (sign * slack if dual else matrix.T @ (sign * slack))
        bound = gradient @ (matrix @ gradient if dual else gradient) / 2
        if bound <= TOLERANCE * objective(solution, scores, intercept):
            return solution, intercept, True
    return solution, intercept, False


def _newton_minimum(matrix: Matrix, sign: Matrix, active: NDArray[np.int64], C: float, dual: bool) -> Matrix:
    """Return the minimum of F's quadratic at given active rows, the intercept being one of the weights."""
    active_rows = matrix[active]
    if dual:
        hessian, target = active_rows[:, active], sign[active]
    else:
        hessian, target = active_rows.T @ active_rows, active_rows.T @ sign[active]
    hessian.flat[:: len(hessian) + 1] += 1 / (2 * C)
    solution = np.zeros(matrix.shape[1])
    factor = cho_factor(hessian, overwrite_a=True, check_finite=False)
    solution[active if dual else slice(None)] = cho_solve(factor, target)
    return solution


def _fit_lbfgs(rows: Matrix, signs: Matrix, grid: Iterable[float], free: bool) -> Iterator[_Fit]:
    """Fit all classes at once for each C."""
    covariance = rows.T @ rows
    coef = np.zeros((rows.shape[1], signs.shape[1]))
    intercept = _intercept(rows @ coef, signs, free)
    for C in grid:
        # of the rows, those with a loss where the fit starts
        active_share = max(float(np.mean(signs * (rows @ coef + intercept) < 1)), 1e-3)
        hessian = np.eye(len(covariance)) + 2 * C * active_share * covariance
        factor = cholesky(hessian, overwrite_a=True, check_finite=False)
        coef, intercept, converged = _minimize_lbfgs(rows, signs, C, factor, coef, free)
        yield C, coef, intercept, converged


def _intercept(scores: Matrix, signs: Matrix, free: bool) -> Matrix:
    """Return the best intercept of each class if it is free, else 0."""
    return best_intercept(scores, signs) if free else np.zeros(signs.shape[1])


class _Converged(Exception):
    """Raised inside the objective to stop L-BFGS once the tolerance is met."""


def _minimize_lbfgs(
    rows: Matrix, signs: Matrix, C: float, factor: Matrix, start: Matrix, free: bool
) -> tuple[Matrix, Matrix, bool]:
    """Minimise F of all classes over the variables `factor @ w`; return w, the intercepts and whether it converged."""
    coef, intercept = start, np.zeros(signs.shape[1])

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        nonlocal coef, intercept
        coef = solve_triangular(factor, flat.reshape(start.shape), check_finite=False)
        scores = rows @ coef
        intercept = _intercept(scores, signs, free)
        slack = np.maximum(1 - signs * (scores + intercept), 0)
        gradient = coef - 2 * C * (rows.T @ (slack * signs))
        value = np.sum(coef * coef) / 2 + C * np.sum(slack * slack)
        if np.sum(gradient * gradient) / 2 <= TOLERANCE * value:
            raise _Converged
        return float(value), solve_triangular(factor, gradient, trans="T", check_finite=False).ravel()

    options = {"maxiter": _LBFGS_ITERATIONS, "maxfun": 2 * _LBFGS_ITERATIONS, "gtol": 0.0, "ftol": 0.0, "maxcor": 20}
    try:
        last = minimize(objective, (factor @ start).ravel(), jac=True, method="L-BFGS-B", options=options)
    except _Converged:
        return coef, intercept, True
    coef = solve_triangular(factor, last.x.reshape(start.shape), check_finite=False)
    return coef, _intercept(rows @ coef, signs, free), False
