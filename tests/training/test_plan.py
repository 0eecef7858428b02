"""What a run is going to do and take: settings decided by the data, and the memory of an update."""

import pytest
import torch
from tiny_runs import config, tiny

from galirep.errors import ConfigError, DataError
from galirep.game.discriminator import Discriminator
from galirep.game.step import Game, Rules, compute_gradients
from galirep.game.variant import Penalty, Variant
from galirep.game.variants import get_variant
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.system.tensor_memory import TensorMemory
from galirep.training.plan import estimate_update, resolve
from galirep.training.preparation import describe_memory


def test_a_plan_leaves_nothing_open():
    plan = resolve(config(steps=None, epochs=2.0, latent_dim=None, evaluate_every=None), get_variant("gali-4"), tiny())
    # 20 images of 8 x 8, none held out, batches of 8
    assert (plan.steps, plan.holdout, plan.evaluate_every) == (5, 0, 0)
    assert plan.shapes == Shapes(8, 1, 64, 4)
    assert None not in (plan.config.image_size, plan.config.channels, plan.config.latent_dim, plan.config.steps)
    assert plan.with_features(7).shapes.features == 7


VIEWED = Variant("viewed", (("x", "E(T1(x))"), ("G(z)", "z")))
PROJECTED = Variant("projected", VIEWED.classes, penalties=(Penalty("vicreg", "E(T1(x))", "E(T2(x))"),))


def test_what_views_do_is_decided_where_the_variant_has_them_and_refused_elsewhere():
    assert resolve(config(), VIEWED, tiny()).config.view_names == ("crop",)
    assert resolve(config(views="flip, color"), VIEWED, tiny()).config.view_names == ("flip", "color")
    assert resolve(config(), get_variant("gali-4"), tiny()).config.views is None
    with pytest.raises(ConfigError, match=r"views 'crop': the variant 'gali-4' has no view operator T1, T2"):
        resolve(config(views="crop"), get_variant("gali-4"), tiny())


def test_projector_and_views_are_estimated():
    shapes = Shapes(16, 1, 8, 8)
    plain, viewed, projected = (
        estimate_update(config(batch_size=16), v, shapes).memory for v in (get_variant("ali"), VIEWED, PROJECTED)
    )
    assert plain < viewed < projected


@pytest.mark.parametrize("variant", ("gali-4", "gali-mix"))
def test_the_estimate_is_what_real_tensors_take(variant):
    """The same update with data, counted tensor by tensor."""
    settings, shapes = config(batch_size=16, d_regularizer="sn", instance_noise=0.1), Shapes(16, 3, 8, 8)
    variant = get_variant(variant)
    estimated = estimate_update(settings, variant, shapes).memory
    with TensorMemory() as memory:
        parts, averages = NETWORKS["compact"].build(shapes), NETWORKS["compact"].build(shapes)
        averages = (averages.encoder, averages.generator)
        game = Game(variant, parts.encoder, parts.generator, Discriminator(variant, parts, "sn"))
        optimizers = [torch.optim.Adam(net.parameters()) for net in game.players().values()]
        images = torch.rand(16, 3, 16, 16)
        for _ in range(2):
            compute_gradients(game, images, torch.Generator(), Rules(), noise=0.1)
            for optimizer in optimizers:
                optimizer.step()
    assert estimated == pytest.approx(memory.peak, rel=0.05)
    weights = sum(p.nbytes for net in (*game.players().values(), *averages) for p in net.parameters())
    assert estimated > 3 * weights
    # twice the images, about twice what is not weights
    assert estimate_update(config(batch_size=64, d_regularizer="sn"), variant, shapes).memory > 2 * estimated


def test_a_gradient_penalty_takes_more():
    shapes, variant = Shapes(16, 1, 8, 8), get_variant("gali-4")
    plain, penalized = (estimate_update(config(d_regularizer=r), variant, shapes).memory for r in ("none", "r1r2"))
    assert penalized > 1.15 * plain
    drawn, every = (estimate_update(config(r1_on=on), variant, shapes).memory for on in ("pairs", "all-pairs"))
    # each further class adds a backward pass that is kept for the second derivative
    assert drawn == penalized and every > 1.1 * drawn


def test_memory_in_words():
    text = describe_memory(config(data="sklearn:digits"))
    assert text.startswith("memory of an update: about ") and "1 x 8 x 8 in fp32, without the 1352 images" in text
    assert "M(.)" in describe_memory(config(data="sklearn:digits", variant="gali-pt", adapter="pixels"))
    # what train would refuse before it decodes an image is refused
    with pytest.raises(ConfigError, match="views 'crop': the variant 'gali-4' has no view operator"):
        describe_memory(config(data="sklearn:digits", views="crop"))
    with pytest.raises(DataError, match=r"the folder or \.tar 'nowhere' does not exist"):
        describe_memory(config(data="nowhere"))
    text = describe_memory(config(data="nowhere"), download=True)
    assert text.startswith("memory of an update: not known before the download, since the folder")
    with pytest.raises(ConfigError, match="take images of"):
        estimate_update(config(networks="svhn32"), get_variant("ali"), Shapes(16, 3, 8))
