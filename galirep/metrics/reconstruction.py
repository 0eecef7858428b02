"""Errors of reconstructed images, in pixels and in features."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from galirep.errors import DataError


def pixel_mse(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the mean squared error over images, channels and pixels, for images in [0, 1].

    `pairs` are blocks (images, reconstructions) in [-1, 1]. Dandi et al. (2021, section 4) measure it so. The sum is in
    float64, so that the size of the blocks does not matter.

    Raises:
        ZeroDivisionError: there are no images.
    """
    total, count = 0.0, 0
    for images, reconstructions in pairs:
        total += float((images - reconstructions).square().sum(dtype=torch.float64))
        count += images.numel()
    # [-1, 1] is twice as wide as [0, 1], so the square is 4 times as large
    return total / 4 / count


def feature_mse(features: NDArray[np.floating[Any]], rebuilt: NDArray[np.floating[Any]]) -> float:
    """Return the mean squared error of the features of reconstructions, divided by the variance of the features.

    `features` (N, D) are those of the images, `rebuilt` (N, D) those of their reconstructions, by the same network. The
    variance is the mean over the D dimensions, so 1 is the error of always answering the mean.

    Raises:
        DataError: different shapes, not two-dimensional, NaN or infinity, or features that are equal in all rows.
    """
    if features.ndim != 2 or features.shape != rebuilt.shape:
        raise DataError(f"feature-MSE needs two arrays (N, D) of one shape, not {features.shape} and {rebuilt.shape}")
    if not np.isfinite(features).all() or not np.isfinite(rebuilt).all():
        raise DataError("feature-MSE needs finite features: some are NaN or infinite")
    variance = features.var(0).mean() if len(features) else 0.0
    if not variance:
        raise DataError("feature-MSE needs features that vary: they are equal in all rows")
    return float(np.mean((features - rebuilt) ** 2) / variance)
