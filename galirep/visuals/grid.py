"""Grids of images as one PNG."""

from pathlib import Path

import torch
from torch import Tensor

from galirep.data.image_file.pixel_limit import DEFAULT as LARGEST
from galirep.errors import ConfigError

GAP = 2
"""Pixels between images, and round the picture."""
# pixels; small images are enlarged by a whole factor up to this side
_ENLARGED_SIDE = 48


def require_drawable(width: int, height: int) -> None:
    """Check the size of a picture, in pixels.

    Raises:
        ConfigError: it has more pixels than galirep reads in one image.
    """
    if width * height > LARGEST:
        raise ConfigError(f"the picture would be {width} x {height} pixels: show fewer images or a smaller zoom")


def save_grid(path: Path, images: Tensor, columns: int, zoom: int | None = None) -> None:
    """Write images (N, C, S, S) in [-1, 1] as one PNG with `columns` images in a row, enlarged by the factor `zoom`.

    `zoom` None is the largest with which they have at most 48 pixels a side, and 1 for larger ones.

    Raises:
        ConfigError: see `require_drawable`.
    """
    # only pictures need torchvision; a run without them does not
    from torchvision.utils import make_grid, save_image

    scale = zoom or max(1, _ENLARGED_SIDE // images.shape[-1])
    cell = images.shape[-1] * scale + GAP
    require_drawable(min(columns, len(images)) * cell + GAP, -(-len(images) // columns) * cell + GAP)
    enlarged = images.float().cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(enlarged, nrow=columns, padding=GAP, normalize=True, value_range=(-1, 1), pad_value=1.0)
    save_image(grid, path, format="png")


def interleave(images: Tensor, others: Tensor) -> Tensor:
    """Interleave two batches (N, C, S, S) to (2N, C, S, S): each image, then its partner."""
    return torch.stack((images, others), 1).flatten(0, 1)
