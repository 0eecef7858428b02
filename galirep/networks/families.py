"""The families of networks by name, each a function of the shapes that it must fit."""

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
    "resnet": Family(
        resnet,
        lambda s: s in (8, 16, 32, 64, 128),
        "8, 16, 32, 64, 128",
        128,
        "residual blocks, none of them normalised in D; 1.7 M parameters in E, 1.1 M in G, 1.9 M in D of GALI-4 at 32 pixels and width 32",
    ),
}


_BY_SIZE = {"auto": ("compact",), "paper": ("svhn32", "celeba64")}


def family(name: str, size: int) -> tuple[str, Family]:
    """The family of a name; `auto` is `compact`, and `paper` the one of the paper's that takes the size.

    Raises:
        ConfigError: the name is unknown, or the family does not take images of this size.
    """
    if name in _BY_SIZE:
        fitting = [n for n in _BY_SIZE[name] if NETWORKS[n].takes(size)]
        if name == "paper" and not fitting:
            raise ConfigError(
                f"the paper has networks for images of 32 and 64 pixels, not {size}: pass --networks compact"
            )
        name = (fitting or _BY_SIZE[name])[0]
    if name not in NETWORKS:
        raise ConfigError(unknown("networks", name, [*NETWORKS, *_BY_SIZE]))
    found = NETWORKS[name]
    if not found.takes(size):
        near = min(max(8, math.floor(size / 8 + 0.5) * 8), 128)
        hint = f"; pass --image-size {near}" if name == "compact" else ""
        raise ConfigError(f"the networks {name!r} take images of {found.sizes} pixels, not {size}{hint}")
    return name, found
