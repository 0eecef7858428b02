"""Random boxes to hide parts of images, and what is done with them (Dandi et al. 2021, section 3.3)."""

import torch
from torch import Tensor

ERASED = -2.0  # outside the images' range [-1, 1], so that E can tell a hole from a colour


def random_boxes(batch: int, size: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """One box an image: (B, 1, S, S) bool, True inside.

    Height and width are uniform on {1, ..., S}, the corner uniform over the places where the box fits; the mean area is about 0.258 of the
    image.
    """
    u = torch.rand(4, batch, 1, generator=generator, device=device)
    height, width = ((u[i] * size).floor().clamp(max=size - 1) + 1 for i in (0, 1))
    top, left = ((u[i + 2] * (size - side + 1)).floor().minimum(size - side) for i, side in enumerate((height, width)))
    at = torch.arange(size, device=device)
    rows, columns = (at >= top) & (at < top + height), (at >= left) & (at < left + width)  # (B, S)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def erase(images: Tensor, mask: Tensor) -> Tensor:
    """Images (B, C, S, S) with the pixels inside the mask (B, 1, S, S) set to `ERASED`."""
    return images.masked_fill(mask, ERASED)


def mix(outside: Tensor, inside: Tensor, mask: Tensor) -> Tensor:
    """The first images outside the mask (B, 1, S, S), the second inside."""
    return torch.where(mask, inside, outside)
