"""Random boxes, and the two ways they are applied to images (Dandi et al. 2021, section 3.3)."""

import torch
from torch import Tensor

ERASED = -2.0  # outside the images' range [-1, 1], so that E can tell a hole from a colour


def random_boxes(batch: int, size: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Draw one box for each image: (B, 1, S, S) bool, True inside.

    Height and width are uniform on {1, ..., S}, the corner is uniform over the positions where the box fits. The mean
    area is ((S + 1) / (2 S))^2 of the image: 0.266 at S = 32, 0.258 at S = 64.
    """
    u = torch.rand(4, batch, 1, generator=generator, device=device)
    height, width = ((u[i] * size).floor().clamp(max=size - 1) + 1 for i in (0, 1))
    top, left = ((u[i + 2] * (size - side + 1)).floor().minimum(size - side) for i, side in enumerate((height, width)))
    position = torch.arange(size, device=device)
    rows = (position >= top) & (position < top + height)  # (B, S)
    columns = (position >= left) & (position < left + width)  # (B, S)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def erase(images: Tensor, mask: Tensor) -> Tensor:
    """Set the pixels of images (B, C, S, S) inside the mask (B, 1, S, S) to `ERASED`."""
    return images.masked_fill(mask, ERASED)


def mix(outside: Tensor, inside: Tensor, mask: Tensor) -> Tensor:
    """Combine images (B, C, S, S): `inside` where the mask (B, 1, S, S) is True, `outside` elsewhere."""
    return torch.where(mask, inside, outside)
