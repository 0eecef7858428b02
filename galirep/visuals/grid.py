"""Grids of images as one PNG."""

from pathlib import Path

import torch
from torch import Tensor

# pixels; small images are enlarged by a whole factor up to this side
_ENLARGED_SIDE = 48


def default_zoom(size: int) -> int:
    """Return the factor that small images of this side are enlarged by where nothing else is asked for."""
    return max(1, _ENLARGED_SIDE // size)


def save_grid(path: Path, images: Tensor, columns: int, zoom: int | None = None) -> None:
    """Write images (N, C, S, S) in [-1, 1] as one PNG with `columns` images in a row, enlarged by the factor `zoom`.

    `zoom` None is `default_zoom`.
    """
    # only pictures need torchvision; a run without them does not
    from torchvision.utils import make_grid, save_image

    scale = zoom or default_zoom(images.shape[-1])
    enlarged = images.float().cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(enlarged, nrow=columns, padding=2, normalize=True, value_range=(-1, 1), pad_value=1.0)
    save_image(grid, path, format="png")


def interleave(images: Tensor, others: Tensor) -> Tensor:
    """Interleave two batches (N, C, S, S) to (2N, C, S, S): each image, then its partner."""
    return torch.stack((images, others), 1).flatten(0, 1)
