"""D: embedding each distinct variable once, two ways to the same logits, spectral norm, and initialisation."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from galirep.game.discriminator import Discriminator
from galirep.game.variants import VARIANTS, get_variant
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes

BATCH = 3
SHAPES = Shapes(8, 1, 5, width=4, features=6)
SIZES = {"image": (1, 8, 8), "latent": (5,), "features": (6,)}


def make(variant="gali-4", regularizer="none", networks="compact", shapes=SHAPES):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Discriminator(get_variant(variant), NETWORKS[networks].build(shapes), regularizer)


def values_of(d, learned=True):
    generator = torch.Generator().manual_seed(1)
    return {
        e: torch.randn(BATCH, *SIZES[e.kind], generator=generator).requires_grad_(learned and e.learned)
        for e in d.variant.variables
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_each_tuple_alone(variant):
    d = make(variant)
    values = values_of(d)
    logits = d(values)
    assert logits.shape == (d.variant.n, BATCH, d.variant.n)
    for i, row in enumerate(d.variant.tuples):
        alone = torch.cat([d.trunks[e.kind](values[e]) for e in row], 1)
        torch.testing.assert_close(logits[i], d.last(d.hidden(alone)))
    torch.testing.assert_close(d.tuples([[values[e] for e in row] for row in d.variant.tuples]), logits)


@pytest.mark.parametrize("learned", (True, False))
@pytest.mark.parametrize("variant", ("ali", "gali-4", "gali-8", "gali-mix", "gali-pt"))
def test_each_distinct_variable_passes_its_trunk_once(variant, learned):
    d, rows = make(variant), {}
    for kind, trunk in d.trunks.items():
        trunk.register_forward_hook(
            lambda m, args, out, kind=kind: rows.__setitem__(kind, rows.get(kind, 0) + len(out))
        )
    d(values_of(d, learned))
    images, latents = {"ali": (2, 2), "gali-4": (3, 3), "gali-8": (4, 4), "gali-mix": (5, 4), "gali-pt": (3, 3)}[
        variant
    ]
    expected = {"image": images * BATCH, "latent": latents * BATCH}
    assert rows == (expected | {"features": 3 * BATCH} if variant == "gali-pt" else expected)


def largest_singular_values(d):
    return [
        float(torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2))
        for m in d.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]


def test_spectral_norm_makes_the_largest_singular_value_of_every_layer_1():
    d = make(regularizer="sn")
    for _ in range(30):
        d(values_of(d))
    singular_values = largest_singular_values(d)
    assert len(singular_values) == 2 + 1 + 2 + 3
    assert all(s == pytest.approx(1, abs=0.05) for s in singular_values)
    assert d.log_scale is None


def test_sn_scale_leaves_the_last_layer_free_and_learns_the_scale():
    d = make(regularizer="sn-scale")
    assert not parametrize.is_parametrized(d.last) and parametrize.is_parametrized(d.hidden[0][0])
    values = values_of(d)
    before = d.eval()(values)
    with torch.no_grad():
        d.log_scale.fill_(1.5)
    after = d(values)
    torch.testing.assert_close(after, before * torch.e**1.5)
    (gradient,) = torch.autograd.grad(after.square().sum(), d.log_scale)
    assert gradient != 0
    with torch.no_grad():
        d.last.weight *= 7
        assert float(torch.linalg.matrix_norm(d.last.weight, 2)) > 0.3  # nothing normalises it


@pytest.mark.parametrize("regularizer", ("r1r2", "none"))
def test_without_spectral_norm_layers_are_plain(regularizer):
    assert not any(parametrize.is_parametrized(m) for m in make(regularizer=regularizer).modules())


def test_a_forward_makes_one_power_iteration_however_often_a_trunk_is_called():
    d, calls = make("gali-4", "sn"), []
    layer = d.trunks["latent"][0][1]
    layer.register_forward_hook(lambda *_: calls.append("layer"))
    layer.parametrizations.weight[0].register_forward_hook(lambda *_: calls.append("norm"))
    d(values_of(d))  # the latent trunk runs on z alone, and on E(x) with E(G(E(x)))
    assert sorted(calls) == ["layer", "layer", "norm"]


def test_the_papers_initialisation_reaches_the_weights_under_spectral_norm():
    d = make("gali-4", "sn", "svhn32", Shapes(32, 3, 64))
    layers = [m for m in d.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert {id(m) for m in d.hidden.modules() if isinstance(m, nn.Linear)} < {id(m) for m in layers}
    for module in layers:
        assert float(module.parametrizations.weight.original.detach().std()) == pytest.approx(0.01, rel=0.15)
        assert not module.bias.detach().any()


@pytest.mark.parametrize("networks", ["compact", "resnet"])
def test_the_head_of_other_families_keeps_torchs_initialisation(networks):
    with torch.random.fork_rng():
        d = make("gali-4", "none", networks)
    for layer in (m for m in d.hidden.modules() if isinstance(m, nn.Linear)):
        bound = layer.in_features**-0.5
        assert (
            float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1) and layer.bias.detach().any()
        )


def test_logits_start_near_uniform():
    for regularizer in ("sn-scale", "r1r2", "none"):
        d = make("gali-8", regularizer)
        assert d(values_of(d)).detach().abs().max() < 0.5


def test_parts_of_kinds_that_the_variant_lacks_are_left_out():
    assert list(make("gali-4").trunks) == ["image", "latent"] and list(make("gali-pt").trunks) == [
        "image",
        "latent",
        "features",
    ]
