"""Error of reconstructed images."""

from collections.abc import Iterable

import torch
from torch import Tensor


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
