"""Small supervised networks; their last hidden layer, 256 wide, is the feature."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from galirep.errors import ConfigError, unknown

HIDDEN = 256


class Classifier(nn.Module):
    """A classifier in two parts.

    `trunk` maps images (B, C, S, S) in [-1, 1] to the hidden layer (B, 256), after its ReLU; `head` maps that to
    logits.
    """

    def __init__(self, trunk: nn.Sequential, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, S, S) in [-1, 1] to logits (B, n)."""
        logits: Tensor = self.head(self.trunk(images))
        return logits


@dataclass(frozen=True)
class Net:
    """A family of trunks: `trunk(size, channels)` builds one; image sizes are multiples of `multiple`."""

    trunk: Callable[[int, int], nn.Sequential]
    multiple: int
    description: str


def _digits(size: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (32, 64, 128):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * (size // 8) ** 2, HIDDEN), nn.ReLU())


def _attributes(size: int, channels: int) -> nn.Sequential:
    # without padding, 64 pixels end at 2x2, the 2048 inputs of the paper's FC 2048-1024-256; smaller images need it to
    # end there
    padding = 0 if size >= 64 else 1
    layers: list[nn.Module] = []
    for width in (64, 128, 256, 512):
        layers += [nn.Conv2d(channels, width, 3, padding=padding), nn.MaxPool2d(2), nn.ReLU()]
        channels = width
        size = (size - 2 + 2 * padding) // 2
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(512 * size**2, 1024), nn.ReLU(), nn.Linear(1024, HIDDEN), nn.ReLU()
    )


NETS = {
    "digits": Net(_digits, 8, "3 x [conv3, pool, BatchNorm, ReLU] 32-64-128, FC 256-n"),
    "attributes": Net(
        _attributes,
        16,
        "4 x [conv3, pool, ReLU] 64-128-256-512, FC 2048-1024-256-n (Dandi et al. 2021, CelebA attributes)",
    ),
}


def build_net(net: str, size: int, channels: int, classes: int) -> Classifier:
    """Build an untrained classifier for images (channels, size, size); its weights come from torch's global seed.

    Raises:
        ConfigError: see `require_size`.
    """
    require_size(net, size)
    return Classifier(NETS[net].trunk(size, channels), classes)


def require_size(net: str, size: int) -> None:
    """Raise unless the net takes images of that size.

    Raises:
        ConfigError: unknown net, or a size it does not take.
    """
    if net not in NETS:
        raise ConfigError(unknown("net", net, NETS))
    if size != fitting_size(net, size):
        raise ConfigError(
            f"image size {size}: the net {net!r} takes multiples of {NETS[net].multiple}, "
            f"such as {fitting_size(net, size)}"
        )


def fitting_size(net: str, size: int) -> int:
    """Return the smallest size, at least `size`, that the net takes."""
    multiple = NETS[net].multiple
    return max(1, math.ceil(size / multiple)) * multiple
