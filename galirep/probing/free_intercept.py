"""The parts of an SVM's fit that an intercept without regularisation needs; `linear_svm` has the formula and the fit.

With the best intercept for each w, P(w) = min_b F(w, b) is as strongly convex as F with a regularised intercept, and
its gradient is that of F in w at that b (the derivative in b is 0 there). So the stopping rule stays what it is.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from galirep.probing.linear_classifier import Matrix

Rows = NDArray[np.int64]
# ridge over the mean of the Gram matrix's diagonal
_ILL_CONDITIONED = 1e-7


def best_intercept(scores: Matrix, signs: Matrix) -> Matrix:
    """Return the (K,) b that minimise sum_i max(0, 1 - y_i (s_i + b))^2 for scores s and signs y (N, K), exactly.

    With t_i = y_i - s_i the sum is that of (t_i - b)^2 over the positive rows with t_i > b and the negative ones with
    t_i < b: a quadratic between two neighbouring t. Where several b leave no row with a loss, one of them.
    """
    kinks = signs - scores
    order = np.argsort(kinks, axis=0)
    kinks = np.take_along_axis(kinks, order, axis=0)
    positive = np.take_along_axis(signs, order, axis=0) > 0

    def sum_losing(values: Matrix) -> Matrix:
        """Sum over the rows with a loss for b between a kink and the one below it."""
        of_positive, of_negative = np.where(positive, values, 0), np.where(positive, 0, values)
        losing: Matrix = of_positive[::-1].cumsum(axis=0)[::-1] + of_negative.cumsum(axis=0) - of_negative
        return losing

    count, total = sum_losing(np.ones_like(kinks)), sum_losing(kinks)
    slope = count * kinks - total
    # the derivative is not negative at the largest kink; rounding could say otherwise
    slope[-1] = np.maximum(slope[-1], 0)
    first = np.argmax(slope >= 0, axis=0)
    columns = np.arange(kinks.shape[1])
    upper, lower = kinks[first, columns], kinks[np.maximum(first - 1, 0), columns]
    losing = np.round(count[first, columns])
    inside = np.where(losing > 0, total[first, columns] / np.maximum(losing, 1), (lower + upper) / 2)
    best: Matrix = np.where(first > 0, np.clip(inside, lower, upper), np.minimum(inside, upper))
    return best


class NewtonSystem:
    """The minimum of F's quadratic at given active rows, over the weights and the intercept, for one C.

    `matrix` is as in `linear_svm`: the rows, or with `dual` their Gram matrix. The inverse of the Gram matrix with its
    ridge is shared by all classes and steps: where most rows are active, a step solves for the few that are not.
    """

    def __init__(self, matrix: Matrix, C: float, dual: bool) -> None:
        self.matrix, self.dual, self.ridge = matrix, dual, 1 / (2 * C)
        self._ill_conditioned = dual and self.ridge < _ILL_CONDITIONED * float(np.mean(np.diag(matrix)))

    def minimum(self, sign: Matrix, active: Rows, intercept: float) -> tuple[Matrix, float]:
        """Return the solution and the intercept for one class; `intercept` where no row is active.

        Raises:
            LinAlgError: the system is singular in float64.
        """
        if not len(active):
            return np.zeros(self.matrix.shape[1]), intercept
        target = sign[active]
        if not self.dual:
            rows = self.matrix[active]
            mean = rows.mean(axis=0)
            rows = rows - mean
            weights = cho_solve(self._factor(rows.T @ rows), rows.T @ target)
            return weights, float(target.mean() - mean @ weights)
        solution = np.zeros(len(self.matrix))
        if self._ill_conditioned:
            solution[active], intercept = self._minimum_centred(target, active)
            return solution, intercept
        of_target, of_ones = self._solve_gram(active, np.stack([target, np.ones_like(target)], axis=1)).T
        intercept = float(of_target.sum() / of_ones.sum())
        solution[active] = of_target - intercept * of_ones
        return solution, intercept

    def _minimum_centred(self, target: Matrix, active: Rows) -> tuple[Matrix, float]:
        """Return the solution of the active rows and the intercept from their centred Gram matrix.

        The solution sums to 0, so K may be centred to PKP: (PKP + ridge) x = P target. `_solve_gram` gives the same as
        the difference of two vectors, which are of the size of 1 / ridge where K is singular, and so is their rounding.
        """
        block = self.matrix[np.ix_(active, active)]
        centred = block - block.mean(axis=0)
        centred -= centred.mean(axis=1, keepdims=True)
        solution: Matrix = cho_solve(self._factor(centred), target - target.mean(), check_finite=False)
        return solution, float(np.mean(target - block @ solution))

    def _factor(self, hessian: Matrix) -> tuple[Matrix, bool]:
        hessian.flat[:: len(hessian) + 1] += self.ridge
        factor: tuple[Matrix, bool] = cho_factor(hessian, overwrite_a=True, check_finite=False)
        return factor

    @cached_property
    def _inverse(self) -> Matrix:
        n = len(self.matrix)
        inverse: Matrix = cho_solve(self._factor(self.matrix.copy()), np.eye(n), overwrite_b=True, check_finite=False)
        return inverse

    def _solve_gram(self, active: Rows, targets: Matrix) -> Matrix:
        """Solve (K_AA + ridge) x = targets; where the active rows A are many, by those that are not."""
        if 2 * len(active) <= len(self.matrix):
            solution: Matrix = cho_solve(self._factor(self.matrix[np.ix_(active, active)]), targets, check_finite=False)
            return solution
        inverse = self._inverse
        rest = np.setdiff1d(np.arange(len(self.matrix)), active, assume_unique=True)
        solved: Matrix = inverse[:, active] @ targets if len(rest) else inverse @ targets
        if len(rest):
            # the inverse of a block, from the blocks of the inverse P: P_AA - P_AR P_RR^-1 P_RA
            factor = cho_factor(inverse[np.ix_(rest, rest)], overwrite_a=True, check_finite=False)
            solved = solved[active] - inverse[np.ix_(active, rest)] @ cho_solve(factor, solved[rest])
        return solved
