"""Differentiable augmentation of D's images (DiffAugment, Zhao et al. 2020).

Parameters are drawn once for each image of a batch and can then be applied to any number of variables.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Augment = Callable[[Tensor], Tensor]


def draw(names: Sequence[str], batch: int, size: int, generator: torch.Generator, device: torch.device) -> Augment:
    """Draw an augmentation for each of `batch` images: a function of images (batch, C, size, size) in [-1, 1].

    It does the same to image i whenever it is called, is differentiable, and does not wait for the device. `names` are
    keys of `AUGMENTATIONS`, applied in this order.
    """
    steps = [AUGMENTATIONS[name](batch, size, generator, device) for name in names]

    def augment(images: Tensor) -> Tensor:
        for step in steps:
            images = step(images)
        return images

    return augment


def _color(batch: int, size: int, generator: torch.Generator, device: torch.device) -> Augment:  # noqa: ARG001
    """Draw brightness, saturation and contrast, applied in this order.

    Brightness adds U(-1/2, 1/2); saturation multiplies the difference from the mean of the channels by U(0, 2);
    contrast multiplies the difference from the mean of the image by U(1/2, 3/2).
    """
    brightness, saturation, contrast = torch.rand(3, batch, 1, 1, 1, generator=generator, device=device)

    def augment(images: Tensor) -> Tensor:
        images = images + (brightness - 0.5)
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * (2 * saturation)
        mean = images.mean((1, 2, 3), keepdim=True)
        contrasted: Tensor = mean + (images - mean) * (contrast + 0.5)
        return contrasted

    return augment


def _translation(batch: int, size: int, generator: torch.Generator, device: torch.device) -> Augment:
    """Draw a shift by whole pixels, uniform up to 1/8 of the side (rounded) in each direction, padded with 0."""
    max_shift = int(size / 8 + 0.5)
    shift = torch.randint(-max_shift, max_shift + 1, (2, batch, 1), generator=generator, device=device)
    # (2, B, S): the row and the column that each pixel is taken from
    source = torch.arange(size, device=device) + shift
    inside = (source >= 0) & (source < size)
    rows, columns = source.clamp(0, size - 1)
    kept = inside[0, :, None, :, None] & inside[1, :, None, None, :]  # (B, 1, S, S)

    def augment(images: Tensor) -> Tensor:
        images = images.gather(2, rows[:, None, :, None].expand_as(images))
        images = images.gather(3, columns[:, None, None, :].expand_as(images))
        return images * kept

    return augment


def _cutout(batch: int, size: int, generator: torch.Generator, device: torch.device) -> Augment:
    """Draw a square of half the side (rounded) to set to 0.

    Its centre is uniform over the image, so it may be cut off at the border.
    """
    side = int(size / 2 + 0.5)
    corner = torch.randint(0, size + 1 - side % 2, (2, batch, 1), generator=generator, device=device) - side // 2
    position = torch.arange(size, device=device)
    covered = (position >= corner) & (position < corner + side)  # (2, B, S)
    kept = ~(covered[0, :, None, :, None] & covered[1, :, None, None, :])
    return lambda images: images * kept


AUGMENTATIONS: dict[str, Callable[[int, int, torch.Generator, torch.device], Augment]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
