"""The parts that every network family is built from: E, G, the parts of D, and their layers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from galirep.networks.map_pooling import pool_map

LOG_SIGMA_RANGE = (-7.0, 2.0)


@dataclass(frozen=True)
class Shapes:
    """The sizes that networks are built for.

    Square images of `size` pixels with `channels` channels, `latent` dimensions of z, `features` dimensions of M (0
    without M), and the `width` of the layers. `norm` is the normalisation of E and G (D has none): `batch` or `group`.
    """

    size: int
    channels: int
    latent: int
    width: int = 32
    features: int = 0
    norm: str = "batch"


@dataclass(frozen=True)
class Parts:
    """The networks of one family: E, G and the parts of D.

    D has a trunk for each kind of variable, with output width `trunk_dims`, and a joint head of hidden widths
    `head_widths` with LeakyReLUs of slope `slope`. The blocks of the trunk `image`, an `nn.Sequential`, are D's layers.
    The head's hidden weights start from N(0, `head_std`^2), its biases from 0; None keeps torch's own initialisation.
    """

    encoder: "Encoder"
    generator: "Generator"
    trunks: Mapping[str, nn.Module]
    trunk_dims: Mapping[str, int]
    head_widths: tuple[int, ...]
    slope: float
    head_std: float | None = None


class Encoder(nn.Module):
    """E: images (B, C, S, S) in [-1, 1] -> mu and log sigma, each (B, latent), of a Gaussian posterior.

    log sigma is clamped to `LOG_SIGMA_RANGE`. `hidden` is the width of the last hidden layer.
    """

    def __init__(self, blocks: Mapping[str, nn.Module], hidden: int, latent: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(blocks)
        self.latent, self.hidden = latent, hidden
        self.head = nn.Linear(hidden, 2 * latent)

    def forward(self, images: Tensor, *, with_hidden: bool = False) -> tuple[Tensor, ...]:
        """(B, C, S, S) -> mu (B, latent), log sigma (B, latent) and, if asked, the last hidden layer (B, hidden)."""
        for block in self.blocks.values():
            images = block(images)
        hidden = images.flatten(1)
        mu, log_sigma = self.head(hidden).chunk(2, 1)
        log_sigma = log_sigma.clamp(*LOG_SIGMA_RANGE)
        return (mu, log_sigma, hidden) if with_hidden else (mu, log_sigma)

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """Return every hidden layer by name, then mu, each (B, d).

        Convolutions are max-pooled to at most 4 x 4 and flattened as (channel, row, column).
        """
        return {name: pool_map(out) if out.ndim == 4 else out for name, out in self.outputs(images)}

    def outputs(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the output of every hidden layer, (B, C, H, W) or (B, d), then mu.

        A layer is computed when it is asked for, so that what stops early pays for no more.
        """
        output = images
        for name, output in block_outputs(self.blocks, images):
            yield name, output
        yield "mu", self.head(output.flatten(1)).chunk(2, 1)[0]


def block_outputs(blocks: Mapping[str, nn.Module] | nn.ModuleDict, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Run blocks one after the other, yielding the name and the output of each; the next runs when it is asked for."""
    for name, block in blocks.items():
        images = block(images)
        yield name, images


class Generator(nn.Module):
    """G: latents (B, latent) -> images (B, C, S, S) in [-1, 1], tanh of the body plus a bias for each pixel."""

    def __init__(self, body: nn.Module, channels: int, size: int) -> None:
        super().__init__()
        self.body = body
        self.bias = nn.Parameter(torch.zeros(channels, size, size))

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, C, S, S) in [-1, 1]."""
        return torch.tanh(self.body(z) + self.bias)

    @torch.no_grad()
    def start_from(self, mean_image: Tensor) -> None:
        """Set the output bias to atanh of the mean image (C, S, S) in [-1, 1], so that training starts there."""
        self.bias.copy_(torch.atanh(mean_image.clamp(-0.98, 0.98)))


def largest_divisor(number: int, limit: float) -> int:
    """Return the largest divisor of `number` that is at most `limit`, and at least 1."""
    return next((d for d in range(min(number, int(limit)), 1, -1) if number % d == 0), 1)


def norm_layers(norm: str, channels: int, *, dense: bool = False) -> list[nn.Module]:
    """Return the normalisation after a layer of `channels` outputs as a list of one module; an empty list for `none`.

    `group` takes groups of about 16 channels, at most 32 groups (Wu & He 2018, Table 3), whose number divides the
    channels; a dense layer is one group, which is layer norm (Ba et al. 2016).
    """
    match norm:
        case "none":
            return []
        case "group":
            return [nn.GroupNorm(1 if dense else largest_divisor(channels, min(32, channels / 16)), channels)]
        case _:
            return [nn.BatchNorm1d(channels) if dense else nn.BatchNorm2d(channels)]


def conv_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    slope: float,
    norm: str,
    *,
    padding: int = 0,
) -> nn.Sequential:
    """Return a convolution, normalisation and LeakyReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding),
        *norm_layers(norm, out_channels),
        nn.LeakyReLU(slope),
    )


def up_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    slope: float,
    norm: str,
    *,
    padding: int = 0,
    output_padding: int = 0,
) -> nn.Sequential:
    """Return a transposed convolution, normalisation and LeakyReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride, padding, output_padding),
        *norm_layers(norm, out_channels),
        nn.LeakyReLU(slope),
    )


def dense_block(in_features: int, out_features: int, slope: float, norm: str) -> nn.Sequential:
    """Return flattening, a linear layer, normalisation and LeakyReLU."""
    return nn.Sequential(
        nn.Flatten(1),
        nn.Linear(in_features, out_features),
        *norm_layers(norm, out_features, dense=True),
        nn.LeakyReLU(slope),
    )


def mlp(widths: Sequence[int], slope: float) -> nn.Sequential:
    """Return linear layers with LeakyReLUs and no normalisation, for D's trunks; `widths` begins with the input's."""
    return nn.Sequential(*(dense_block(a, b, slope, "none") for a, b in pairwise(widths)))


def projector(hidden: int) -> nn.Sequential:
    """Return the network between a hidden layer (B, hidden) of E and a loss between views: (B, 2 hidden).

    Two layers with batch norm and a linear one (the expander of Bardes et al. 2022, narrower); it is dropped after
    training.
    """
    width = 2 * hidden
    layers: list[nn.Module] = []
    for inputs in (hidden, width):
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, width, bias=False))


def latent_projection(latent: int, channels: int, side: int, slope: float, norm: str) -> nn.Sequential:
    """Return G's first layer: latents (B, latent) -> (B, channels, side, side).

    It is a transposed convolution of a 1 x 1 image, written as the matrix product that it is.
    """
    return nn.Sequential(
        nn.Linear(latent, channels * side * side),
        nn.Unflatten(1, (channels, side, side)),
        *norm_layers(norm, channels),
        nn.LeakyReLU(slope),
    )


def init_normal(module: nn.Module, std: float) -> None:
    """Initialise the weights of linear and convolution layers from N(0, std^2) and their biases with 0.

    Call it before spectral norm wraps the weights.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
