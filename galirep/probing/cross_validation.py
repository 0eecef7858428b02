"""C, and the scaling of features, chosen by cross-validation on the training rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from galirep.probing import linear_svm, logistic
from galirep.probing.labelled import RareClassError
from galirep.probing.linear_classifier import LinearClassifier, Matrix
from galirep.probing.scaled_rows import Rows, ScaledRows

Fold = tuple[Rows, Rows]
"""The rows that a fit sees, and those that it is judged by."""

# a search goes on for so many C past the best
_PATIENCE = 3


@dataclass(frozen=True)
class Classifier:
    """A linear classifier as cross-validation needs it.

    `fold_path` fits the fold's first rows for each C of an ascending grid and yields the number of wrong answers on its
    other rows and whether the fit converged; `fit` fits scaled features (N, D).
    """

    fold_path: Callable[[ScaledRows, Sequence[str], str, NDArray[Any], Fold, Sequence[float]], "FoldPath"]
    fit: Callable[[Matrix, NDArray[Any], float], LinearClassifier]


FoldPath = Iterator[tuple[int, bool]]


@dataclass(frozen=True)
class Selection:
    """The scaling and C that were chosen, their error over all folds, and every (scaling, C, error) of the search."""

    scaling: str
    C: float
    error: float
    steps: list[dict[str, Any]]
    converged: bool

    end: str = ""
    """`smallest` or `largest` where C is the first or the last of its grid, else empty."""

    @property
    def notes(self) -> list[str]:
        """Return a note if C lies at an end of its grid."""
        if not self.end:
            return []
        return [
            f"the chosen C, {self.C:.3g}, is the {self.end} of its grid: a better one may lie beyond it "
            "(--set grid=[...] sets another)"
        ]


def make_folds(labels: Rows, wanted: int, seed: int, name: Callable[[int], str], source: str) -> list[Fold]:
    """Return `wanted` folds with each class in each, or as many as the rarest class has rows.

    `name` gives a class's name and `source` that of the rows, for the message.

    Raises:
        RareClassError: a class has a single row.
    """
    classes, counts = np.unique(labels, return_counts=True)
    rarest = int(np.argmin(counts))
    if counts[rarest] < 2:
        raise RareClassError(
            f"{source} has 1 training row of class {name(int(classes[rarest]))!r}: cross-validation needs 2 or more of "
            "each class"
        )
    folds = StratifiedKFold(min(wanted, int(counts[rarest])), shuffle=True, random_state=seed)
    return list(folds.split(np.zeros(len(labels)), labels))


def select(
    classifier: Classifier,
    rows: ScaledRows,
    names: Sequence[str],
    labels: NDArray[Any],
    folds: Sequence[Fold],
    scalings: Sequence[str],
    grid: Sequence[float],
) -> Selection:
    """Choose the scaling and C with the smallest error over the held-out rows of all folds.

    For each scaling, C goes up the grid until the last three errors are all above that scaling's best. Of scalings with
    the same error the first is taken, of its C with the same error the middle one.
    """
    grid = sorted(grid)
    steps: list[dict[str, Any]] = []
    converged = True
    for scaling in scalings:
        paths = [classifier.fold_path(rows, names, scaling, labels, fold, grid) for fold in folds]
        errors: list[float] = []
        for C, outcomes in zip(grid, zip(*paths, strict=True), strict=False):
            wrong, fits_converged = zip(*outcomes, strict=True)
            errors.append(sum(wrong) / len(labels))
            converged = converged and all(fits_converged)
            steps.append({"scaling": scaling, "C": C, "error": errors[-1]})
            if len(errors) > _PATIENCE and min(errors[-_PATIENCE:]) > min(errors):
                break
    error = min(step["error"] for step in steps)
    best = [step for step in steps if step["error"] == error]
    tied = [step["C"] for step in best if step["scaling"] == best[0]["scaling"]]
    C = tied[(len(tied) - 1) // 2]
    end = "smallest" if grid[0] == C else "largest" if grid[-1] == C else ""
    return Selection(best[0]["scaling"], C, error, steps, converged, end)


def _svm_fold_path(
    rows: ScaledRows, names: Sequence[str], scaling: str, labels: NDArray[Any], fold: Fold, grid: Sequence[float]
) -> FoldPath:
    fitted, held_out = fold
    if linear_svm.prefers_gram(len(fitted), rows.n_columns(names)):
        gram = rows.gram(names, scaling, fitted)
        judged = gram[np.ix_(held_out, fitted)]
        models = linear_svm.fit_gram_path(gram[np.ix_(fitted, fitted)], labels[fitted], grid)
        del gram
    else:
        columns = rows.columns(names, scaling, fitted)
        judged = columns[held_out]
        models = linear_svm.fit_path(columns[fitted], labels[fitted], grid, free_intercept=True)
        # five folds are at work side by side: none holds its matrix twice
        del columns
    yield from _judge(models, judged, labels[held_out])


def _logistic_fold_path(
    rows: ScaledRows, names: Sequence[str], scaling: str, labels: NDArray[Any], fold: Fold, grid: Sequence[float]
) -> FoldPath:
    fitted, held_out = fold
    if logistic.prefers_span(len(labels), rows.n_columns(names)):
        matrix = rows.span(names, fitted)
    else:
        matrix = rows.columns(names, scaling, fitted)
    models = logistic.fit_path(matrix[fitted], labels[fitted], grid)
    judged = matrix[held_out]
    del matrix
    yield from _judge(models, judged, labels[held_out])


def _judge(models: Iterator[LinearClassifier], judged: Matrix, labels: NDArray[Any]) -> FoldPath:
    for model in models:
        yield int(np.sum(model.predict(judged) != labels)), model.converged


SVM = Classifier(_svm_fold_path, lambda features, labels, C: linear_svm.fit(features, labels, C, free_intercept=True))
LOGISTIC = Classifier(_logistic_fold_path, logistic.fit)
