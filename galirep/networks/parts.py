"""What every family of networks is made of: E, G, the parts of D, and the layers in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_SIGMA_RANGE = (-7.0, 2.0)
GRID = 4  # hidden convolutions are max-pooled to at most GRID x GRID before they become features (Radford et al. 2016, section 5.1)


@dataclass(frozen=True)
class Shapes:
    """What the networks must fit: square images of `size` with `channels` colours, `latent` dimensions of z, `features` of M (0 without M),
    `width`, and the `norm` of E and G (D has none): `batch`, or `group`, of one image alone.
    """

    size: int
    channels: int
    latent: int
    width: int = 32
    features: int = 0
    norm: str = "batch"


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


def largest_divisor(number: int, most: float) -> int:
    """The largest divisor of `number` up to `most`, at least 1."""
    return next((d for d in range(min(number, int(most)), 1, -1) if number % d == 0), 1)


def norm_layers(norm: str, channels: int, *, dense: bool = False) -> list[nn.Module]:
    """The normalisation after a layer of `channels` outputs: one module, or none where `norm` is `none`.

    `group` takes groups of some 16 channels, at most 32 groups (Wu & He 2018, Table 3), whose number divides the channels; a dense layer is
    one group, which is layer norm (Ba et al. 2016).
    """
    match norm:
        case "none":
            return []
        case "group":
            return [nn.GroupNorm(1 if dense else largest_divisor(channels, min(32, channels / 16)), channels)]
        case _:
            return [nn.BatchNorm1d(channels) if dense else nn.BatchNorm2d(channels)]


def conv_block(
    cin: int, cout: int, kernel: int, stride: int, slope: float, norm: str, *, padding: int = 0
) -> nn.Sequential:
    """Convolution, normalisation, LeakyReLU."""
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, padding), *norm_layers(norm, cout), nn.LeakyReLU(slope))


def up_block(
    cin: int, cout: int, kernel: int, stride: int, slope: float, norm: str, *, padding: int = 0, extra: int = 0
) -> nn.Sequential:
    """Transposed convolution, normalisation, LeakyReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(cin, cout, kernel, stride, padding, extra), *norm_layers(norm, cout), nn.LeakyReLU(slope)
    )


def dense_block(cin: int, cout: int, slope: float, norm: str) -> nn.Sequential:
    """Flattening, linear layer, normalisation, LeakyReLU."""
    return nn.Sequential(nn.Flatten(1), nn.Linear(cin, cout), *norm_layers(norm, cout, dense=True), nn.LeakyReLU(slope))


def mlp(widths: Sequence[int], slope: float) -> nn.Sequential:
    """Linear layers and LeakyReLUs, for D's trunks: no normalisation."""
    return nn.Sequential(*(dense_block(a, b, slope, "none") for a, b in pairwise(widths)))


def latent_projection(latent: int, channels: int, side: int, slope: float, norm: str) -> nn.Sequential:
    """G's first layer: a transposed convolution of a 1 x 1 image, written as the matrix product it is."""
    return nn.Sequential(
        nn.Linear(latent, channels * side * side),
        nn.Unflatten(1, (channels, side, side)),
        *norm_layers(norm, channels),
        nn.LeakyReLU(slope),
    )


def init_normal(module: nn.Module, std: float) -> None:
    """Weights of linear and convolution layers from N(0, std), biases zero. To be called before spectral norm wraps the weights."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(m.weight, 0.0, std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
