"""Grids of images as one PNG."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image


def save_grid(path: Path, images: Tensor, columns: int) -> None:
    """Write images (N, C, S, S) in [-1, 1] as one PNG, `columns` in a row; small ones are enlarged by whole pixels so that a person can see
    them.
    """
    times = max(1, 48 // images.shape[-1])
    big = images.float().cpu().repeat_interleave(times, 2).repeat_interleave(times, 3)
    save_image(
        make_grid(big, nrow=columns, padding=2, normalize=True, value_range=(-1, 1), pad_value=1.0), path, format="png"
    )


def interleave(images: Tensor, others: Tensor) -> Tensor:
    """Two batches (N, C, S, S) as one of 2N in pairs: each image, then its partner."""
    return torch.stack((images, others), 1).flatten(0, 1)
