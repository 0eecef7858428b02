"""E, G and the parts of D, in families: `svhn32` and `celeba64` are the paper's, `compact` fits small images and small machines."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galirep.errors import ConfigError, unknown

LOG_SIGMA_RANGE = (-7.0, 2.0)
GRID = 4  # hidden convolutions are max-pooled to at most GRID x GRID before they become features (Radford et al. 2016, section 5.1)


@dataclass(frozen=True)
class Shapes:
    """What the networks must fit: square images of `size` with `channels` colours, `latent` dimensions of z, `features` of M (0 without M),
    `width`.
    """

    size: int
    channels: int
    latent: int
    width: int = 32
    features: int = 0


@dataclass(frozen=True)
class Parts:
    """One family's networks: E, G, and D's trunk for each kind of variable with its output width, and the hidden widths of D's joint
    head.
    """

    encoder: "Encoder"
    generator: "Generator"
    trunks: Mapping[str, nn.Module]
    trunk_dims: Mapping[str, int]
    head_widths: tuple[int, ...]
    slope: float  # of the LeakyReLU in D's head


class Encoder(nn.Module):
    """Images (B, C, S, S) in [-1, 1] -> mu, log sigma, each (B, latent), of a Gaussian posterior; log sigma is clamped to
    `LOG_SIGMA_RANGE`.
    """

    def __init__(self, blocks: Mapping[str, nn.Module], hidden: int, latent: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(blocks)
        self.latent = latent
        self.head = nn.Linear(hidden, 2 * latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) -> mu (B, latent), log sigma (B, latent)."""
        for block in self.blocks.values():
            images = block(images)
        mu, log_sigma = self.head(images.flatten(1)).chunk(2, 1)
        return mu, log_sigma.clamp(*LOG_SIGMA_RANGE)

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """Every hidden layer by name, then mu, each (B, d): convolutions are max-pooled to at most 4 x 4 and flattened as (channel, row,
        column).
        """
        out: dict[str, Tensor] = {}
        for name, block in self.blocks.items():
            images = block(images)
            pooled = F.adaptive_max_pool2d(images, GRID) if images.ndim == 4 and images.shape[-1] > GRID else images
            out[name] = pooled.flatten(1)
        out["mu"] = self.head(images.flatten(1)).chunk(2, 1)[0]
        return out


class Generator(nn.Module):
    """Latents (B, latent) -> images (B, C, S, S) in [-1, 1]: tanh of the body plus a bias for each pixel."""

    def __init__(self, body: nn.Module, channels: int, size: int) -> None:
        super().__init__()
        self.body = body
        self.bias = nn.Parameter(torch.zeros(channels, size, size))

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, C, S, S) in [-1, 1]."""
        return torch.tanh(self.body(z) + self.bias)

    @torch.no_grad()
    def start_from(self, mean_image: Tensor) -> None:
        """Set the output bias to atanh of the mean image (C, S, S) in [-1, 1], so that training starts from the mean."""
        self.bias.copy_(torch.atanh(mean_image.clamp(-0.98, 0.98)))


def _conv(cin: int, cout: int, kernel: int, stride: int, slope: float, *, padding: int = 0, norm: bool = True) -> nn.Sequential:
    norms = [nn.BatchNorm2d(cout)] if norm else []
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, padding), *norms, nn.LeakyReLU(slope))


def _up(cin: int, cout: int, kernel: int, stride: int, slope: float, *, padding: int = 0, extra: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, kernel, stride, padding, extra), nn.BatchNorm2d(cout), nn.LeakyReLU(slope))


def _dense(cin: int, cout: int, slope: float, *, norm: bool = True) -> nn.Sequential:
    norms = [nn.BatchNorm1d(cout)] if norm else []
    return nn.Sequential(nn.Flatten(1), nn.Linear(cin, cout), *norms, nn.LeakyReLU(slope))


def _mlp(widths: Sequence[int], slope: float) -> nn.Sequential:
    return nn.Sequential(*(_dense(a, b, slope, norm=False) for a, b in pairwise(widths)))


def _seed(latent: int, channels: int, side: int, slope: float) -> nn.Sequential:
    """A transposed convolution of a 1 x 1 image, written as the matrix product it is."""
    return nn.Sequential(
        nn.Linear(latent, channels * side * side), nn.Unflatten(1, (channels, side, side)), nn.BatchNorm2d(channels), nn.LeakyReLU(slope)
    )


def _paper(
    shapes: Shapes,
    convs: Sequence[tuple[int, int, int]],
    ups: Sequence[tuple[int, int, int]],
    *,
    slope: float,
    fc: int | None,
    to_pixels: Sequence[int],
    latent_trunk: Sequence[int],
    head: Sequence[int],
) -> Parts:
    """The paper's networks (GALI's Tables of architectures): (kernel, stride, out) of E's convolutions, the last of which covers its 4 x 4
    input.
    """
    *inner, (last, _, top) = convs
    widths = [shapes.channels, *(out for _, _, out in inner)]

    def image_trunk(norm: bool) -> dict[str, nn.Module]:
        blocks: dict[str, nn.Module] = {}
        for i, (kernel, stride, out) in enumerate(inner):
            blocks[f"conv{i + 1}"] = _conv(widths[i], out, kernel, stride, slope, norm=norm)
        blocks[f"conv{len(convs)}"] = _dense(widths[-1] * last * last, top, slope, norm=norm)
        return blocks

    blocks = image_trunk(norm=True)
    if fc:
        blocks["fc1"] = _dense(top, fc, slope)
    (first, _, out), *rest = ups
    body: list[nn.Module] = [_seed(shapes.latent, out, first, slope)]
    for kernel, stride, wide in rest:
        body.append(_up(out, wide, kernel, stride, slope))
        out = wide
    for wide in to_pixels:
        body.append(_conv(out, wide, 1, 1, slope))
        out = wide
    body.append(nn.Conv2d(out, shapes.channels, 1))
    trunks: dict[str, nn.Module] = {
        "image": nn.Sequential(*image_trunk(norm=False).values()),
        "latent": _mlp((shapes.latent, *latent_trunk), slope),
    }
    if shapes.features:
        trunks["features"] = _mlp((shapes.features, 512, 512), slope)
    parts = Parts(
        Encoder(blocks, fc or top, shapes.latent),
        Generator(nn.Sequential(*body), shapes.channels, shapes.size),
        trunks,
        {"image": top, "latent": latent_trunk[-1], "features": 512},
        tuple(head),
        slope,
    )
    for module in (parts.encoder, parts.generator, *trunks.values()):
        init_normal(module, 0.01)
    return parts


def svhn32(shapes: Shapes) -> Parts:
    """The paper's networks for 32 x 32 images (SVHN): E 3.32 M, G 1.77 M, D of GALI-4 5.29 M parameters at latent 256."""
    return _paper(
        shapes,
        [(5, 1, 32), (4, 2, 64), (4, 1, 128), (4, 2, 256), (4, 1, 512)],
        [(4, 1, 256), (4, 2, 128), (4, 1, 64), (4, 2, 32), (5, 1, 32)],
        slope=0.01,
        fc=512,
        to_pixels=(32,),
        latent_trunk=(512, 512),
        head=(1024, 1024),
    )


def celeba64(shapes: Shapes) -> Parts:
    """The paper's networks for 64 x 64 images (CelebA)."""
    return _paper(
        shapes,
        [(2, 1, 64), (7, 2, 128), (5, 2, 256), (7, 2, 256), (4, 1, 512)],
        [(4, 1, 512), (7, 2, 256), (5, 2, 256), (7, 2, 128), (2, 1, 64)],
        slope=0.02,
        fc=None,
        to_pixels=(),
        latent_trunk=(1024, 1024),
        head=(2048, 2048),
    )


def compact(shapes: Shapes) -> Parts:
    """4 x 4 convolutions of stride 2 down to a side of 2 or 3 and back, width doubling up to 8 x `width`; any square size of 8, 16, 24,
    ..., 128.
    """
    sides = [shapes.size]
    while sides[-1] > 3:
        sides.append(sides[-1] // 2)
    widths = [shapes.channels, *(shapes.width * min(2**i, 8) for i in range(len(sides) - 1))]
    flat, fc, slope = widths[-1] * sides[-1] ** 2, 8 * shapes.width, 0.2

    def image_trunk(norm: bool) -> dict[str, nn.Module]:
        blocks: dict[str, nn.Module] = {
            f"conv{i + 1}": _conv(widths[i], widths[i + 1], 4, 2, slope, padding=1, norm=norm) for i in range(len(sides) - 1)
        }
        blocks["fc1"] = _dense(flat, fc, slope, norm=norm)
        return blocks

    body: list[nn.Module] = [_seed(shapes.latent, widths[-1], sides[-1], slope)]
    for i in range(len(sides) - 1, 1, -1):
        body.append(_up(widths[i], widths[i - 1], 4, 2, slope, padding=1, extra=sides[i - 1] - 2 * sides[i]))
    body.append(nn.ConvTranspose2d(widths[1], shapes.channels, 4, 2, 1, sides[0] - 2 * sides[1]))
    trunks: dict[str, nn.Module] = {
        "image": nn.Sequential(*image_trunk(norm=False).values()),
        "latent": _mlp((shapes.latent, fc, fc), slope),
    }
    if shapes.features:
        trunks["features"] = _mlp((shapes.features, fc, fc), slope)
    parts = Parts(
        Encoder(image_trunk(norm=True), fc, shapes.latent),
        Generator(nn.Sequential(*body), shapes.channels, shapes.size),
        trunks,
        dict.fromkeys(("image", "latent", "features"), fc),
        (fc, fc),
        slope,
    )
    for module in (parts.encoder, parts.generator):
        init_normal(module, 0.02)  # Radford et al. 2016; D keeps torch's own initialisation, whose scale does not shrink with depth
    return parts


def init_normal(module: nn.Module, std: float) -> None:
    """Weights of linear and convolution layers from N(0, std), biases zero. To be called before spectral norm wraps the weights."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(m.weight, 0.0, std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


@dataclass(frozen=True)
class Family:
    """A network family: how to build it, which sizes it takes, its usual latent dimension, and one line about it."""

    build: Callable[[Shapes], Parts]
    takes: Callable[[int], bool]
    sizes: str
    latent: int
    about: str


NETWORKS = {
    "svhn32": Family(svhn32, lambda s: s == 32, "32", 256, "the paper's networks for 32 x 32 images"),
    "celeba64": Family(celeba64, lambda s: s == 64, "64", 256, "the paper's networks for 64 x 64 images"),
    "compact": Family(
        compact,
        lambda s: 8 <= s <= 128 and s % 8 == 0,
        "8, 16, 24, ..., 128",
        64,
        "strided 4 x 4 convolutions, for small images and machines",
    ),
}


def family(name: str, size: int) -> tuple[str, Family]:
    """The family of a name; `auto` takes the paper's for 32 and 64 and `compact` for other sizes.

    Raises:
        ConfigError: the name is unknown, or the family does not take images of this size.
    """
    if name == "auto":
        name = next((n for n, f in NETWORKS.items() if f.takes(size)), "compact")
    if name not in NETWORKS:
        raise ConfigError(unknown("networks", name, [*NETWORKS, "auto"]))
    found = NETWORKS[name]
    if not found.takes(size):
        near = min(max(8, math.floor(size / 8 + 0.5) * 8), 128)
        hint = f"; pass --image-size {near}" if name == "compact" else ""
        raise ConfigError(f"the networks {name!r} take images of {found.sizes} pixels, not {size}{hint}")
    return name, found
