"""Errors of reconstructed images, in pixels and in features."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from galirep.errors import DataError
from galirep.metrics.arrays import Floats

BATCH = 100
"""Images in a batch of `batch_std`."""


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


def squared_errors(images: Tensor, rebuilt: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared error of each image, for images in [0, 1]: (B, C, S, S) twice -> (B,) float64.

    Both are given in [-1, 1]. With a mask (B, 1, S, S) bool the mean is over the pixels inside it alone, so divided by
    its area and the number of channels; no mask may be empty.
    """
    squares = (images.double() - rebuilt.double()).square() / 4
    if mask is None:
        return squares.mean((1, 2, 3))
    return (squares * mask).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * images.shape[1])


def batch_std(values: Floats, size: int = BATCH) -> float | None:
    """Return the standard deviation (n - 1) of the means over batches of `size` values.

    This is what Dandi et al. (2021) write behind ±. The values are put into a random order first, the same for every
    call: many sets are sorted by class, and batches of one class would differ more. What does not fill a batch does
    not count; None for fewer than two whole ones.
    """
    batches = len(values) // size
    if batches < 2:
        return None
    order = np.random.default_rng(0).permutation(len(values))[: batches * size]
    return float(values[order].reshape(batches, size).mean(1).std(ddof=1))


class FeatureErrors:
    """Feature-MSE over blocks, so that the features of a large set are never in memory at once.

    The errors equal those of `feature_mse` on all rows together. `of` says in messages whose features they are.
    """

    def __init__(self, of: str = "") -> None:
        self._of = f" of {of}" if of else ""
        self._bad = 0
        self._rows: list[Floats] = []
        self._shift: Floats | None = None
        self._sum = self._squares = np.zeros(1)

    def add(self, features: Tensor, rebuilt: Tensor) -> None:
        """Add the features of a block of images and of their reconstructions, (B, D) both."""
        x, y = (part.double().cpu().numpy() for part in (features, rebuilt))
        bad = ~(np.isfinite(x).all(1) & np.isfinite(y).all(1))
        self._bad += int(bad.sum())
        # all rows are counted before they are refused
        x, y = (np.where(bad[:, None], 0.0, part) for part in (x, y))
        if self._shift is None:
            # sums of squares lose no digits around a value near the mean
            self._shift = x.mean(0)
        self._rows.append(((x - y) ** 2).mean(1))
        self._sum = self._sum + (x - self._shift).sum(0)
        self._squares = self._squares + ((x - self._shift) ** 2).sum(0)

    @property
    def rows(self) -> Floats:
        """The mean squared error of each image, unscaled: (N,)."""
        return np.concatenate(self._rows)

    def variance(self) -> float:
        """Return the variance of the images' features, the mean over the dimensions.

        Raises:
            DataError: features are NaN or infinite, or equal in all rows.
        """
        n = sum(map(len, self._rows))
        if self._bad:
            raise DataError(
                f"feature-MSE{self._of} needs finite features: those of {self._bad} of {n} images, or of their "
                "reconstructions, are NaN or infinite"
            )
        variance = float((self._squares / n - (self._sum / n) ** 2).mean())
        if not variance > 0:
            raise DataError(f"feature-MSE{self._of} needs features that vary: they are equal in all rows")
        return variance
