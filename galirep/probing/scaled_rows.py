"""The training rows of a probe under a scaling, as the solvers take them: columns, or inner products of the rows.

Inner products of layers side by side are the sums of the layers' own, so that a search over layers computes each
layer's once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.probing.linear_classifier import Matrix

Rows = NDArray[np.int64]

SCALINGS = ("columns", "one")
"""`columns`: each column is divided by its standard deviation; `one`: all by one number. Both are centred, and both
end with rows of mean squared length 1, so that one grid of C serves any number of columns."""


def span_of(gram: Matrix) -> tuple[Matrix, Matrix]:
    """Return rows (N, R) with the inner products `gram` (N, N), and the basis (N, R) of rows = gram @ basis."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-12 * max(values[-1], 1e-300)
    roots = np.sqrt(values[kept])
    return vectors[:, kept] * roots, vectors[:, kept] / roots


@dataclass(frozen=True)
class Scaling:
    """Means and divisors (D,) of columns, and the mean squared `length` that rows have after both."""

    mean: Matrix
    divisor: Matrix
    length: float

    @classmethod
    def fit(cls, features: NDArray[np.floating[Any]], kind: str) -> "Scaling":
        """Fit one of `SCALINGS` to features (N, D); constant columns count as 0."""
        mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        # what rounding leaves of a constant column is not its standard deviation
        varies = deviation > 1e-6 * np.abs(mean)
        if kind == "one":
            return cls(mean, np.ones_like(mean), float(np.sum(deviation**2)))
        return cls(mean, np.where(varies, deviation, 1.0), float(np.sum(varies)))

    def apply(self, features: NDArray[np.floating[Any]], unit: bool = True) -> Matrix:
        """Return the scaled rows (N, D), float64; with `unit`, of mean squared length 1 on the rows of `fit`."""
        rows: Matrix = features - self.mean
        rows /= self.divisor * np.sqrt(self.length or 1.0) if unit else self.divisor
        return rows


class ScaledRows:
    """Rows of one or more layers, (N, D) each, for fits on some of them and answers on the others.

    With `keep`, the inner products of each layer are kept for the next choice of layers: N^2 numbers a layer and fold.
    """

    def __init__(self, layers: Mapping[str, NDArray[np.floating[Any]]], keep: bool = False) -> None:
        self.layers = layers
        self._keep = keep
        self._kept: dict[tuple[str, str, bytes], tuple[Matrix, float]] = {}
        self._span: tuple[tuple[str, ...], Matrix] | None = None

    def n_columns(self, names: Sequence[str]) -> int:
        """Return the number of columns of these layers."""
        return sum(self.layers[name].shape[1] for name in names)

    def columns(self, names: Sequence[str], scaling: str, rows: Rows) -> Matrix:
        """Return all rows (N, D) of these layers side by side, scaled by the statistics of `rows`."""
        parts = [self.layers[name] for name in names]
        features = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return Scaling.fit(features[rows], scaling).apply(features)

    def gram(self, names: Sequence[str], scaling: str, rows: Rows) -> Matrix:
        """Return the inner products (N, N) of `columns`; with the scaling `one`, about the mean of all rows.

        A free intercept makes up for the origin.
        """
        grams, lengths = zip(*(self._layer_gram(name, scaling, rows) for name in names), strict=True)
        total: Matrix = grams[0] if len(grams) == 1 else np.sum(grams, axis=0)
        return total / (sum(lengths) or 1.0)

    def span(self, names: Sequence[str], rows: Rows) -> Matrix:
        """Return rows (N, R), R <= N, with the inner products of `gram` under the scaling `one`.

        Folds differ by a factor only.
        """
        grams, lengths = zip(*(self._layer_gram(name, "one", rows) for name in names), strict=True)
        if self._span is None or self._span[0] != tuple(names):
            self._span = tuple(names), span_of(np.sum(grams, axis=0))[0]
        spanned: Matrix = self._span[1] / np.sqrt(sum(lengths) or 1.0)
        return spanned

    def _layer_gram(self, name: str, scaling: str, rows: Rows) -> tuple[Matrix, float]:
        """Return the inner products of a layer before its rows get unit length, and their mean squared length."""
        if scaling == "one":
            # the same for all folds
            gram, _ = self._compute(name, scaling, np.arange(len(self.layers[name])), keep=True)
            length = np.mean(np.diag(gram)[rows]) - np.mean(gram[np.ix_(rows, rows)])
            return gram, float(max(length, 0.0))
        return self._compute(name, scaling, rows, self._keep)

    def _compute(self, name: str, scaling: str, rows: Rows, keep: bool) -> tuple[Matrix, float]:
        key = (name, scaling, rows.tobytes())
        if key in self._kept:
            return self._kept[key]
        features = self.layers[name]
        fitted = Scaling.fit(features[rows], scaling)
        scaled = fitted.apply(features, unit=False)
        result = scaled @ scaled.T, fitted.length
        if keep:
            self._kept[key] = result
        return result
