"""A fitted linear classifier, whatever loss it was fitted by."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LinearClassifier:
    """K `classes`, `coef` (D + 1, K) with the intercepts in its last row, and the `C` it was fitted with."""

    classes: NDArray[Any]
    coef: Matrix
    C: float
    converged: bool

    def predict(self, features: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Return the (N,) labels of (N, D) features."""
        coef = self.coef.astype(features.dtype, copy=False)
        labels: NDArray[Any] = self.classes[np.argmax(features @ coef[:-1] + coef[-1], axis=1)]
        return labels
