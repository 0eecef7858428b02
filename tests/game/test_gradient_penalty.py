"""D's gradient penalty in `compute_gradients`, against a slow implementation, finite differences and R1 + R2."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from tiny_games import BATCH, FEATURES, LATENT, SIZE, gradients, make, source
from torch import nn

from galirep.game.expression import Expr
from galirep.game.gradient_penalty import add_gradient_penalty, logit_differences
from galirep.game.step import Rules, compute_gradients
from galirep.game.variant import Variant


def game_with_smooth_d(variant, regularizer="r1r2"):
    """Make a game of double precision, smooth activations and no power iterations, for finite differences."""
    game = make(variant, regularizer, double=True)
    game.discriminator.eval()
    for module in list(game.discriminator.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LeakyReLU):
                setattr(module, name, nn.Softplus(beta=3))
    return game


def squared_gradients(d, values, differences, features=False):
    """sum_y mean_i of the mean of ||grad psi||^2 over differences(logits, y, i), one class and one image at a time."""
    total = 0.0
    for y, row in enumerate(d.variant.tuples):
        for i in range(BATCH):
            inputs = [values[e][i : i + 1].detach().requires_grad_() for e in row]
            embedded = [d.trunks[e.kind](v) for e, v in zip(row, inputs, strict=True)]
            psis = differences(d.last(d.hidden(torch.cat(embedded, 1)))[0], y, i)
            for psi in psis:
                for e, g in zip(row, torch.autograd.grad(psi, inputs, create_graph=True), strict=True):
                    if features or e.kind != "features":
                        total = total + g.square().sum() / BATCH / len(psis)
    return total


def less_the_mean_of_the_others(logits, y, _):
    return [logits[y] - torch.stack([logits[j] for j in range(len(logits)) if j != y]).mean()]


def less_each_other(logits, y, _):
    return [logits[y] - logits[j] for j in range(len(logits)) if j != y]


def spelled_out_penalty(d, values, gamma, differences=less_the_mean_of_the_others, features=False):
    """gamma/n sum_y mean_i ||grad psi_y||^2."""
    return gamma / d.variant.n * squared_gradients(d, values, differences, features)


def values_for(game):
    generator = torch.Generator().manual_seed(3)
    sizes = {"image": (1, SIZE, SIZE), "latent": (LATENT,), "features": (FEATURES,)}
    return {
        e: torch.randn(BATCH, *sizes[e.kind], generator=generator, dtype=torch.float64) for e in game.variant.variables
    }


def penalty_gradient(game, values, gamma, generator=None, **rules):
    """Return the penalty and what `compute_gradients` adds to D's gradient for it.

    All variables are given as known, so that only the penalty differs.
    """
    with_penalty, without = copy.deepcopy(game), copy.deepcopy(game)
    options = {"known": values, "d_only": True}
    x, generator = values[Expr("x")], generator or source()
    statistics = compute_gradients(with_penalty, x, generator, Rules(r1_gamma=gamma, **rules), **options)
    compute_gradients(without, x, source(), Rules(rules.get("objective", "product")), **options)
    one, other = gradients(with_penalty.discriminator), gradients(without.discriminator)
    return statistics["r1"], {k: one[k] - other[k] for k in one}


@pytest.mark.parametrize("variant", ("ali", "gali-4", "gali-8", "gali-pt"))
@pytest.mark.parametrize(("on", "differences"), [("mean", less_the_mean_of_the_others), ("all-pairs", less_each_other)])
@pytest.mark.parametrize("features", (False, True))
def test_it_is_the_spelled_out_one(variant, on, differences, features):
    game = game_with_smooth_d(variant)
    values, gamma = values_for(game), 0.7
    value, added = penalty_gradient(game, values, gamma, r1_on=on, r1_features=features)
    slow = spelled_out_penalty(game.discriminator, values, gamma, differences, features)
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


def test_features_of_m_take_part_where_they_are_asked_for():
    values, plain = None, {}
    for features in (False, True):
        game = game_with_smooth_d("gali-pt")
        values = values_for(game)
        plain[features], _ = penalty_gradient(game, values, 0.7, r1_features=features)
    assert plain[True] > plain[False] > 0


@pytest.mark.parametrize("n", (2, 3, 4, 8))
def test_another_class_is_drawn_uniformly_for_each_tuple(n):
    generator, draws = torch.Generator().manual_seed(1), 4000
    # l_b of class b is b, so that a difference says which class was drawn
    logits = torch.arange(n, dtype=torch.float64).expand(n, draws, n)
    (psi,) = logit_differences(logits, "pairs", generator)
    drawn = (torch.arange(n).unsqueeze(1) - psi).long()
    for own in range(n):
        counts = torch.bincount(drawn[own], minlength=n)
        assert counts[own] == 0
        expected = draws / (n - 1)
        assert all(abs(int(c) - expected) < 5 * expected**0.5 for j, c in enumerate(counts) if j != own)


@pytest.mark.parametrize("variant", ("ali", "gali-4"))
def test_the_drawn_one_is_the_spelled_out_one_of_the_classes_drawn(variant):
    game, gamma = game_with_smooth_d(variant), 0.7
    values, n = values_for(game), game.variant.n
    state = source().get_state()
    generator = torch.Generator()
    generator.set_state(state)
    # all values are known and there is no noise: z is the only draw before
    torch.randn(BATCH, LATENT, generator=generator)
    offsets = torch.randint(1, n, (n, BATCH), generator=generator)
    value, added = penalty_gradient(game, values, gamma, r1_on="pairs")

    def less_the_drawn_one(logits, y, i):
        return [logits[y] - logits[(y + offsets[y, i]) % n]]

    slow = spelled_out_penalty(game.discriminator, values, gamma, less_the_drawn_one)
    torch.testing.assert_close(value, slow.detach())
    weights = list(game.discriminator.parameters())
    for name_gradient, g in zip(added.items(), torch.autograd.grad(slow, weights, allow_unused=True), strict=True):
        if g is not None:
            torch.testing.assert_close(name_gradient[1], g, rtol=1e-6, atol=1e-12)


def test_the_expectation_of_the_drawn_one_is_that_over_all_pairs(monkeypatch):
    """Every draw of one class for each tuple of a batch of 2, of 3 classes: their mean is the one of all pairs."""
    variant = Variant("three", (("x", "E(x)"), ("G(z)", "z"), ("G(E(x))", "E(x)")))
    game = game_with_smooth_d(variant)
    values = {e: value[:2] for e, value in values_for(game).items()}
    leaves, d = values, game.discriminator
    for p in d.parameters():
        p.grad = torch.zeros_like(p)
    every = []
    for choice in itertools.product((1, 2), repeat=6):
        drawn = torch.tensor(choice).view(3, 2)
        monkeypatch.setattr(torch, "randint", lambda *_, drawn=drawn, **__: drawn)
        every.append(add_gradient_penalty(d, leaves, 0.7, source(), on="pairs"))
    gradients_of_the_draws = {k: g / len(every) for k, g in gradients(d).items()}
    d.zero_grad(set_to_none=False)
    exact = add_gradient_penalty(d, leaves, 0.7, source(), on="all-pairs")
    torch.testing.assert_close(torch.stack(every).mean(), exact)
    assert torch.stack(every).std() > 0.01 * exact
    for name, g in gradients(d).items():
        torch.testing.assert_close(gradients_of_the_draws[name], g)


@pytest.mark.parametrize("on", ("mean", "pairs", "all-pairs"))
def test_the_relativistic_one_is_as_strong_as_r3gans(on):
    """R3GAN (Huang et al. 2024): softplus(-(f(t_0) - f(t_1))) + gamma/2 (R1 + R2), f = l_0 - l_1; here it is twice."""
    game, gamma = game_with_smooth_d("ali"), 0.7
    values, d = values_for(game), game.discriminator
    statistics = compute_gradients(
        *(game, values[Expr("x")], source(), Rules("relativistic", r1_gamma=gamma, r1_on=on)),
        known=values,
        d_only=True,
    )
    rows = [[values[e].requires_grad_() for e in row] for row in d.variant.tuples]
    f = [
        (logits := d.last(d.hidden(torch.cat([d.trunks[e.kind](v) for e, v in zip(row, values_, strict=True)], 1))))[
            :, 0
        ]
        - logits[:, 1]
        for row, values_ in zip(d.variant.tuples, rows, strict=True)
    ]
    loss = F.softplus(-(f[0] - f[1].roll(1))).mean()
    r1, r2 = (
        sum(g.square().flatten(1).sum(1).mean() for g in torch.autograd.grad(critic.sum(), inputs, create_graph=True))
        for critic, inputs in zip(f, rows, strict=True)
    )
    penalty = gamma / 2 * (r1 + r2)
    torch.testing.assert_close(statistics["loss_d"], 2 * loss.detach())
    torch.testing.assert_close(statistics["r1"], 2 * penalty.detach())
    weights = dict(d.named_parameters())
    r3gan = torch.autograd.grad(loss + penalty, list(weights.values()), allow_unused=True)
    for (name, weight), g in zip(weights.items(), r3gan, strict=True):
        if g is not None:
            torch.testing.assert_close(weight.grad, 2 * g, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("on", ("mean", "pairs", "all-pairs"))
def test_it_of_two_classes_is_r1_and_r2(on):
    """gamma/2 (R1 + R2) of the difference of the logits (Mescheder et al. 2018)."""
    game = game_with_smooth_d("ali")
    values, d = values_for(game), game.discriminator
    value, _ = penalty_gradient(game, values, 0.7, r1_on=on)
    total = 0.0
    for row in d.variant.tuples:
        inputs = [values[e].requires_grad_() for e in row]
        logits = d.last(d.hidden(torch.cat([d.trunks[e.kind](v) for e, v in zip(row, inputs, strict=True)], 1)))
        total += sum(
            g.square().flatten(1).sum(1).mean()
            for g in torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), inputs)
        )
    torch.testing.assert_close(value, 0.7 / 2 * total)
