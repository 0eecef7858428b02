"""The network families by name."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from galirep.errors import ConfigError, unknown
from galirep.networks.compact import compact
from galirep.networks.paper import celeba64, svhn32
from galirep.networks.parts import Parts, Shapes
from galirep.networks.resnet import resnet


@dataclass(frozen=True)
class Family:
    """A network family.

    `build` makes its networks, `takes` says whether it has networks for images of a size, `sizes` lists these sizes for
    the user, `latent` is the default latent dimension, and `about` describes the family in one line.
    """

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
    "resnet": Family(
        resnet,
        lambda s: s in (8, 16, 32, 64, 128),
        "8, 16, 32, 64, 128",
        128,
        "residual blocks, none of them normalised in D; "
        "1.7 M parameters in E, 1.1 M in G, 1.9 M in D of GALI-4 at 32 pixels and width 32",
    ),
}

_BY_SIZE = {"auto": ("compact",), "paper": ("svhn32", "celeba64")}
"""Names that stand for one of several families, by the size of the images."""


def family(name: str, size: int) -> tuple[str, Family]:
    """Return the name and the family that `name` stands for at this image size.

    `auto` is `compact`, and `paper` is the family of the paper for this size; other names stand for themselves.

    Raises:
        ConfigError: the name is unknown, or the family has no networks for this size.
    """
    if name in _BY_SIZE:
        candidates = [candidate for candidate in _BY_SIZE[name] if NETWORKS[candidate].takes(size)]
        if name == "paper" and not candidates:
            raise ConfigError(
                f"the paper has networks for images of 32 and 64 pixels, not {size}: pass --networks compact"
            )
        # where no size fits, the error below names the first
        name = candidates[0] if candidates else _BY_SIZE[name][0]
    if name not in NETWORKS:
        raise ConfigError(unknown("networks", name, [*NETWORKS, *_BY_SIZE]))
    chosen = NETWORKS[name]
    if not chosen.takes(size):
        nearest = min(max(8, math.floor(size / 8 + 0.5) * 8), 128)
        hint = f"; pass --image-size {nearest}" if name == "compact" else ""
        raise ConfigError(f"the networks {name!r} take images of {chosen.sizes} pixels, not {size}{hint}")
    return name, chosen
