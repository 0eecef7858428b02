"""Differentiable augmentation of D's images (Zhao et al. 2020, DiffAugment): one draw for each image of a batch, applied to any number of
its variables.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Augment = Callable[[Tensor], Tensor]


def draw(names: Sequence[str], batch: int, size: int, generator: torch.Generator, device: torch.device) -> Augment:
    """A random augmentation of each of `batch` images of side `size`: a function of images (batch, C, size, size) in [-1, 1].

    It does the same to image i whenever it is called, is differentiable, and waits for no device. `names` are of `AUGMENTATIONS`, done in
    this order.
    """
    drawn = [AUGMENTATIONS[name](batch, size, generator, device) for name in names]

    def augment(images: Tensor) -> Tensor:
        for one in drawn:
            images = one(images)
        return images

    return augment


def _color(batch: int, size: int, generator: torch.Generator, device: torch.device) -> Augment:  # noqa: ARG001
    """Brightness: plus U(-1/2, 1/2). Saturation: the distance from the mean of the channels times U(0, 2). Contrast: that from the mean of
    the image times U(1/2, 3/2).
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
    """A shift by whole pixels, uniform up to an eighth of the side (rounded) either way in each direction; 0 comes in from outside."""
    most = int(size / 8 + 0.5)
    shift = torch.randint(-most, most + 1, (2, batch, 1), generator=generator, device=device)
    source = (
        torch.arange(size, device=device) + shift
    )  # (2, B, S): the row and the column that each pixel is taken from
    inside = (source >= 0) & (source < size)
    rows, columns = source.clamp(0, size - 1)
    kept = inside[0, :, None, :, None] & inside[1, :, None, None, :]  # (B, 1, S, S)

    def augment(images: Tensor) -> Tensor:
        images = images.gather(2, rows[:, None, :, None].expand_as(images))
        images = images.gather(3, columns[:, None, None, :].expand_as(images))
        return images * kept

    return augment


def _cutout(batch: int, size: int, generator: torch.Generator, device: torch.device) -> Augment:
    """0 in a square of half the side (rounded), its centre uniform over the image, so that it may stand over the edge."""
    side = int(size / 2 + 0.5)
    corner = torch.randint(0, size + 1 - side % 2, (2, batch, 1), generator=generator, device=device) - side // 2
    place = torch.arange(size, device=device)
    covered = (place >= corner) & (place < corner + side)  # (2, B, S)
    kept = ~(covered[0, :, None, :, None] & covered[1, :, None, None, :])
    return lambda images: images * kept


AUGMENTATIONS: dict[str, Callable[[int, int, torch.Generator, torch.device], Augment]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
