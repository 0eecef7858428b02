"""Views of images for self-supervision: crop, shift, flip, colour, grey; drawn once for each image of a batch."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

View = Callable[[Tensor], Tensor]

CROP_AREA = (0.2, 1.0)  # share of the image's area
CROP_ASPECT = (3 / 4, 4 / 3)
MAX_SHIFT = 1 / 8  # of the side
JITTER = 0.4
# how often a view does anything to an image
FLIPPED, COLORED, GREYED = 0.5, 0.8, 0.2

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's


def draw(
    names: Sequence[str], batch: int, size: int, generator: torch.Generator, device: torch.device, channels: int
) -> View:
    """Draw a view for each of `batch` images: a function of images (batch, channels, size, size), same shape and range.

    Images are in [-1, 1]. The function does the same to image i whenever it is called, is differentiable, and does not
    wait for the device. `names` are keys of `VIEWS`, applied in this order; `generator` is one of the device.
    """
    steps = [VIEWS[name](batch, size, generator, device, channels) for name in names]

    def view(images: Tensor) -> Tensor:
        for step in steps:
            images = step(images)
        return images

    return view


def _crop(batch: int, size: int, generator: torch.Generator, device: torch.device, channels: int) -> View:  # noqa: ARG001
    """Draw a rectangle anywhere inside the image, which is stretched to the whole.

    Its share of the area is uniform in `CROP_AREA`, the logarithm of its aspect ratio (width by height) uniform in that
    of `CROP_ASPECT`; a side longer than the image's is cut to it.
    """
    area, aspect, *position = torch.rand(4, batch, generator=generator, device=device)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area
    low, high = (math.log(ratio) for ratio in CROP_ASPECT)
    root = (0.5 * (low + (high - low) * aspect)).exp()
    sides = torch.stack([area.sqrt() * root, area.sqrt() / root]).clamp(max=1)
    # in grid_sample's coordinates the image is [-1, 1]: a centre may be 1 - side away from 0
    return _resample(sides, (1 - sides) * (2 * torch.stack(position) - 1))


def _shift(batch: int, size: int, generator: torch.Generator, device: torch.device, channels: int) -> View:  # noqa: ARG001
    """Draw a shift, uniform up to `MAX_SHIFT` of the side in each direction; the border's pixels are repeated."""
    position = torch.rand(2, batch, generator=generator, device=device)
    return _resample(torch.ones_like(position), 2 * MAX_SHIFT * (2 * position - 1))


def _resample(scale: Tensor, centre: Tensor) -> View:
    """Return the view that shows the rectangle of these sides about these centres, (2, B): x and y; bilinear."""
    theta = torch.cat([torch.diag_embed(scale.T), centre.T[..., None]], 2)  # (B, 2, 3)

    def view(images: Tensor) -> Tensor:
        grid = F.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    return view


def _flip(batch: int, size: int, generator: torch.Generator, device: torch.device, channels: int) -> View:  # noqa: ARG001
    """Draw which images are mirrored, left to right."""
    flipped = _chosen(FLIPPED, batch, generator, device)
    return lambda images: torch.where(flipped, images.flip(3), images)


def _color(batch: int, size: int, generator: torch.Generator, device: torch.device, channels: int) -> View:  # noqa: ARG001
    """Draw brightness, contrast and saturation, applied in this order to most images (`COLORED`).

    On the scale from black 0 to white 1, brightness multiplies the image, contrast its difference from its mean grey,
    saturation that from each pixel's grey, by factors uniform in 1 +- `JITTER`; each result is cut to the scale
    (SimCLR's colour jitter without hue, Chen et al. 2020, appendix A, at the strength for small images). Images of one
    channel have no saturation to change.
    """
    factors = 1 + JITTER * (2 * torch.rand(3, batch, 1, 1, 1, generator=generator, device=device) - 1)
    colored = _chosen(COLORED, batch, generator, device)

    def view(images: Tensor) -> Tensor:
        brightness, contrast, saturation = factors.to(images.dtype)
        x = ((images + 1) / 2 * brightness).clamp(0, 1)
        mean = _grey_of(x).mean((1, 2, 3), keepdim=True)
        x = (mean + (x - mean) * contrast).clamp(0, 1)
        if channels > 1:
            grey = _grey_of(x)
            x = (grey + (x - grey) * saturation).clamp(0, 1)
        return torch.where(colored, 2 * x - 1, images)

    return view


def _grey(batch: int, size: int, generator: torch.Generator, device: torch.device, channels: int) -> View:  # noqa: ARG001
    """Draw which images lose their colour; grey images stay as they are."""
    greyed = _chosen(GREYED, batch, generator, device)
    return lambda images: torch.where(greyed, _grey_of(images).expand_as(images), images)


def _chosen(probability: float, batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(batch, 1, 1, 1, generator=generator, device=device) < probability


def _grey_of(images: Tensor) -> Tensor:
    """Return the luma of colour images, the mean of any other number of channels: (B, 1, S, S)."""
    if images.shape[1] != len(_LUMA):
        return images.mean(1, keepdim=True)
    red, green, blue = (weight * images[:, i : i + 1] for i, weight in enumerate(_LUMA))
    return red + green + blue


VIEWS: Mapping[str, Callable[[int, int, torch.Generator, torch.device, int], View]] = {
    "crop": _crop,
    "shift": _shift,
    "flip": _flip,
    "color": _color,
    "grey": _grey,
}
