"""The networks of `train_classifier`: small ones of its own, and the encoders of the network families."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from galirep.errors import ConfigError, unknown
from galirep.networks.families import NETWORKS, family
from galirep.networks.parts import Encoder, Shapes

HIDDEN = 256
_LARGEST = 512  # image size


class EncoderTrunk(nn.Module):
    """E of a network family without its head: images (B, C, S, S) in [-1, 1] -> its last hidden layer (B, hidden)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.blocks = encoder.blocks

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, hidden)."""
        for block in self.blocks.values():
            images = block(images)
        return images.flatten(1)


class Classifier(nn.Module):
    """A network in two parts.

    `trunk` maps images (B, C, S, S) in [-1, 1] to its last hidden layer (B, hidden), the feature; `head` maps that to
    logits, or to the projections that losses between views compare.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, S, S) in [-1, 1] to the head's output (B, n)."""
        out: Tensor = self.head(self.trunk(images))
        return out


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


def build_net(net: str, shapes: Shapes, *, classes: int = 0, projector: int = 0) -> Classifier:
    """Build an untrained network for `shapes`; its weights come from torch's global seed.

    Its head gives the logits of `classes`, or projections of `projector` columns by three layers of that width
    (VICReg's expander, Bardes et al. 2022, section 4.2). Only the encoders of families heed `shapes` beyond its size
    and channels.

    Raises:
        ConfigError: see `require_size`.
    """
    require_size(net, shapes.size)
    if net in NETS:
        return _with_head(NETS[net].trunk(shapes.size, shapes.channels), HIDDEN, classes, projector)
    encoder = NETWORKS[net].build(shapes).encoder
    return _with_head(EncoderTrunk(encoder), encoder.head.in_features, classes, projector)


def _with_head(trunk: nn.Module, hidden: int, classes: int, projector: int) -> Classifier:
    if not projector:
        return Classifier(trunk, nn.Linear(hidden, classes))
    layers: list[nn.Module] = []
    for width in (hidden, projector):
        layers += [nn.Linear(width, projector, bias=False), nn.BatchNorm1d(projector), nn.ReLU()]
    return Classifier(trunk, nn.Sequential(*layers, nn.Linear(projector, projector, bias=False)))


def net_shapes(net: str, size: int, channels: int, width: int = 32) -> Shapes:
    """Return the sizes of a net; the latent dimension, which no net here has, is the family's usual one."""
    return Shapes(size, channels, NETWORKS[net].latent if net in NETWORKS else 0, width)


def has_batch_statistics(net: nn.Module) -> bool:
    """Return whether a network has BatchNorm."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())


def require_size(net: str, size: int) -> None:
    """Raise unless the net takes images of that size.

    Raises:
        ConfigError: unknown net, or a size it does not take.
    """
    if net in NETWORKS:
        family(net, size)
        return
    if net not in NETS:
        raise ConfigError(unknown("net", net, [*NETS, *NETWORKS]))
    if size != fitting_size(net, size):
        raise ConfigError(
            f"image size {size}: the net {net!r} takes multiples of {NETS[net].multiple}, "
            f"such as {fitting_size(net, size)}"
        )


def fitting_size(net: str, size: int) -> int:
    """Return the smallest size, at least `size`, that the net takes; `size` itself where there is none."""
    if net in NETWORKS:
        return next((s for s in range(size, _LARGEST + 1) if NETWORKS[net].takes(s)), size)
    multiple = NETS[net].multiple
    return max(1, math.ceil(size / multiple)) * multiple
