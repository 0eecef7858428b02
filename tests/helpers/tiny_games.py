"""Games small enough for slow references of an update."""

import torch
from torch import nn

from galirep.game.discriminator import Discriminator
from galirep.game.step import Game
from galirep.game.variants import get_variant
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes, projector

BATCH, SIZE, LATENT, FEATURES = 4, 8, 5, 6
VIEWS = ("crop", "color")


def extractor():
    """Return a smooth M that is an ordinary module with weights."""
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, FEATURES))


def make(variant="gali-4", regularizer="none", double=False):
    variant = get_variant(variant)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = NETWORKS["compact"].build(
            Shapes(SIZE, 1, LATENT, width=4, features=FEATURES if variant.needs_features else 0)
        )
        m = extractor() if variant.needs_features else None
        discriminator = Discriminator(variant, parts, regularizer)
        nn.init.normal_(discriminator.last.weight, 0, 0.5)  # away from uniform, so that every gradient counts
        projection = projector(parts.encoder.hidden) if variant.needs_projector else None
    views = VIEWS if variant.views else ()
    game = Game(variant, parts.encoder, parts.generator, discriminator, m, views, projection)
    if double:
        for net in [*game.trained().values(), *([m] if m else [])]:
            net.double()
    return game


def images(seed=0):
    return torch.rand(BATCH, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def source(seed=7):
    return torch.Generator().manual_seed(seed)


def gradients(net):
    return {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


def count_calls(game):
    """Return a dict that counts the calls of E, G and M from now on."""
    calls = dict.fromkeys("EGM", 0)

    def hook(name):
        return lambda *_: calls.__setitem__(name, calls[name] + 1)

    for name, net in (("E", game.encoder), ("G", game.generator), ("M", game.extract)):
        if net is not None:
            net.register_forward_hook(hook(name))
    return calls
