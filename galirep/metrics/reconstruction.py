"""Error of reconstructed images."""

from collections.abc import Iterable

import torch
from torch import Tensor


def pixel_mse(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Mean squared error over images, channels and pixels of images in [0, 1], from blocks (x, reconstruction) in [-1, 1].

    Summed in float64, so that the blocks' size does not matter (Dandi et al. 2021, section 4, measure it so).

    Raises:
        ZeroDivisionError: there are no images.
    """
    total, count = 0.0, 0
    for images, rebuilt in pairs:
        total += float((images - rebuilt).square().sum(dtype=torch.float64))
        count += images.numel()
    return total / 4 / count  # [-1, 1] is twice as wide as [0, 1]
