"""Conversion of images in memory to what networks take: uint8 in 0..255 -> float32 in [-1, 1]."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ImageFunction = Callable[[Tensor], Tensor]
"""A function of images (B, C, H, W) float32 in [-1, 1]: a feature extractor, M, an encoder."""
BLOCK = 256
"""The default number of images in one call of a network."""


def to_float(pixels: Tensor, device: torch.device | None = None) -> Tensor:
    """Scale uint8 in 0..255 to float32 in [-1, 1], on `device` (default: the device of the pixels)."""
    if device is not None:
        pixels = pixels.to(device, non_blocking=True)
    return pixels.float() / 127.5 - 1


def as_float32(value: Tensor) -> Tensor:
    """Convert half precision, which autocast produces, to float32; float64 stays as it is."""
    return value if value.dtype == torch.float64 else value.float()


def image_blocks(
    pixels: Tensor | NDArray[np.uint8], size: int = BLOCK, device: torch.device | None = None
) -> Iterator[Tensor]:
    """Yield (N, C, S, S) uint8 as float32 in [-1, 1], `size` images at a time, in order."""
    for block in torch.split(torch.as_tensor(pixels), size):
        yield to_float(block, device)
