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
    # [-1, 1] is twice as wide as [0, 1], so the square is 4 times as large
    return _mean_squared_error(pairs) / 4


def latent_mse(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the mean squared error over latents and dimensions: the cycle error of a posterior, mu(G(z)) against z.

    `pairs` are blocks (z, mu(G(z))), each (B, latent), of z from N(0, I); 1, the prior's variance, is the error of
    always answering the prior's mean. The sum is in float64.

    Raises:
        ZeroDivisionError: there are no latents.
    """
    return _mean_squared_error(pairs)


def _mean_squared_error(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    total, count = 0.0, 0
    for truth, answer in pairs:
        total += float((truth - answer).square().sum(dtype=torch.float64))
        count += truth.numel()
    return total / count


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
