"""D's gradient penalty in `compute_gradients`, against a slow implementation, finite differences and R1 + R2."""

import copy

import pytest
import torch
from tiny_games import BATCH, FEATURES, LATENT, SIZE, gradients, make, source
from torch import nn

from galirep.game.expression import Expr
from galirep.game.step import Rules, compute_gradients


def game_with_smooth_d(variant, regularizer="r1r2"):
    """Make a game of double precision, smooth activations and no power iterations, for finite differences."""
    game = make(variant, regularizer, double=True)
    game.discriminator.eval()
    for module in list(game.discriminator.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LeakyReLU):
                setattr(module, name, nn.Softplus(beta=3))
    return game


def spelled_out_penalty(d, values, gamma):
    """gamma/n sum_y mean_i ||grad psi_y||^2, one class and one image at a time."""
    n, total = d.variant.n, 0.0
    for y, row in enumerate(d.variant.tuples):
        for i in range(BATCH):
            inputs = [values[e][i : i + 1].detach().requires_grad_() for e in row]
            embedded = [d.trunks[e.kind](v) for e, v in zip(row, inputs, strict=True)]
            logits = d.last(d.hidden(torch.cat(embedded, 1)))[0]
            psi = logits[y] - torch.stack([logits[j] for j in range(n) if j != y]).mean()
            for e, g in zip(row, torch.autograd.grad(psi, inputs, create_graph=True), strict=True):
                if e.kind != "features":
                    total = total + g.square().sum() / BATCH
    return gamma / n * total


def values_for(game):
    generator = torch.Generator().manual_seed(3)
    sizes = {"image": (1, SIZE, SIZE), "latent": (LATENT,), "features": (FEATURES,)}
    return {
        e: torch.randn(BATCH, *sizes[e.kind], generator=generator, dtype=torch.float64) for e in game.variant.variables
    }


def penalty_gradient(game, values, gamma):
    """Return the penalty and what `compute_gradients` adds to D's gradient for it.

    All variables are given as known, so that only the penalty differs.
    """
    with_penalty, without = copy.deepcopy(game), copy.deepcopy(game)
    statistics = compute_gradients(
        with_penalty, values[Expr("x")], source(), Rules(r1_gamma=gamma), known=values, d_only=True
    )
    compute_gradients(without, values[Expr("x")], source(), Rules(), known=values, d_only=True)
    one, other = gradients(with_penalty.discriminator), gradients(without.discriminator)
    return statistics["r1"], {k: one[k] - other[k] for k in one}


@pytest.mark.parametrize("variant", ("ali", "gali-4", "gali-8", "gali-pt"))
def test_it_is_the_spelled_out_one(variant):
    game = game_with_smooth_d(variant)
    values, gamma = values_for(game), 0.7
    value, added = penalty_gradient(game, values, gamma)
    slow = spelled_out_penalty(game.discriminator, values, gamma)
    torch.testing.assert_close(value, slow.detach())
    weights = dict(game.discriminator.named_parameters())
    slow_gradients = torch.autograd.grad(slow, list(weights.values()), allow_unused=True)
    for (name, weight), g in zip(weights.items(), slow_gradients, strict=True):
        expected = torch.zeros_like(weight) if g is None else g
        torch.testing.assert_close(added[name], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("regularizer", ("r1r2", "sn+r1r2", "sn-scale+r1r2"))
def test_it_agrees_with_finite_differences(regularizer):
    game = game_with_smooth_d("gali-4", regularizer)
    values, d = values_for(game), game.discriminator
    _, added = penalty_gradient(game, values, 0.7)
    generator, h = torch.Generator().manual_seed(5), 1e-5
    for name, weight in d.named_parameters():
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * h * direction
            sides.append(float(penalty_gradient(game, values, 0.7)[0]))
            with torch.no_grad():
                weight -= sign * h * direction
        assert (sides[0] - sides[1]) / (2 * h) == pytest.approx(
            float((added[name] * direction).sum()), rel=1e-5, abs=1e-9
        ), name


def test_it_of_two_classes_is_r1_and_r2():
    """gamma/2 (R1 + R2) of the difference of the logits (Mescheder et al. 2018)."""
    game = game_with_smooth_d("ali")
    values, d = values_for(game), game.discriminator
    value, _ = penalty_gradient(game, values, 0.7)
    total = 0.0
    for row in d.variant.tuples:
        inputs = [values[e].requires_grad_() for e in row]
        logits = d.last(d.hidden(torch.cat([d.trunks[e.kind](v) for e, v in zip(row, inputs, strict=True)], 1)))
        total += sum(
            g.square().flatten(1).sum(1).mean()
            for g in torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), inputs)
        )
    torch.testing.assert_close(value, 0.7 / 2 * total)
