"""The values of a game's variables: each evaluated once, shared by every tuple that names it."""

import copy

import pytest
import torch
from tiny_games import BATCH, FEATURES, LATENT, count_calls, images, make, source

from galirep.game.chains import evaluate
from galirep.game.expression import Expr, parse
from galirep.game.masks import erase, mix
from galirep.game.step import Rules, compute_gradients, evaluate_expressions
from galirep.game.variants import VARIANTS


def test_a_shared_expression_is_computed_once_and_given_once():
    calls = []

    def apply(e, args):
        calls.append(str(e))
        return sum(args)

    exprs = [parse("E(G(E(x)))"), parse("E(x)"), parse("G(E(x))"), parse("x")]
    values = evaluate(exprs, {Expr("x"): torch.ones(1)}, apply)
    assert list(values) == exprs and calls == ["E(x)", "G(E(x))", "E(G(E(x)))"]


@pytest.mark.parametrize(
    ("variant", "e", "g"),
    [
        ("ali", 1, 1), ("alice", 1, 2), ("gali-4", 3, 3), ("gali-8", 3, 3), ("gali-mix", 4, 3), ("gali-pt", 3, 3),
        ("masked-ali", 1, 1), ("masked-alice", 1, 2), ("masked-gali-4", 3, 3),
        ("gali-4-l2-features", 3, 3), ("gali-4-l1-features", 3, 3),
        ("gali-4-l2", 3, 3), ("gali-4-cycle", 3, 4),  # G(mu(x)) besides G(E(x))
    ],
)  # fmt: skip
def test_e_and_g_run_once_for_each_distinct_variable(variant, e, g):
    game = make(variant)
    calls = count_calls(game)
    compute_gradients(game, images(), source(), Rules())
    m = {"gali-pt": 3, "gali-4-l2-features": 2, "gali-4-l1-features": 2}.get(variant, 0)  # M(x), M(G(z)), M(G(E(x)))
    assert calls == {"E": e, "G": g, "M": m}


def test_every_variant_has_a_count():
    marks = test_e_and_g_run_once_for_each_distinct_variable.pytestmark[0]
    assert {case[0] for case in marks.args[1]} == VARIANTS.keys()


def test_known_features_are_used_and_not_computed():
    game = make("gali-pt")
    calls, m_of_x = count_calls(game), parse("M(x)")
    values = evaluate_expressions(
        game, images(), source(), game.variant.expressions, {m_of_x: torch.full((BATCH, FEATURES), 3.0)}
    )
    assert calls["M"] == 2 and (values[m_of_x] == 3).all()


def test_e_of_x_is_a_sample_of_the_posterior_and_the_same_in_every_tuple():
    game = make("gali-8")
    values = evaluate_expressions(game, images(), source(), game.variant.variables)
    mu, log_sigma = copy.deepcopy(game.encoder)(images())
    z, first = (torch.randn(BATCH, LATENT, generator=g) for g in [source()] for _ in range(2))
    torch.testing.assert_close(values[Expr("z")], z)
    torch.testing.assert_close(values[parse("E(x)")], mu + log_sigma.exp() * first)
    seen = []
    game.discriminator.trunks["latent"].register_forward_hook(lambda m, args, out: seen.append(args[0]))
    game.discriminator(values)
    assert sum(int((row == values[parse("E(x)")][0]).all()) for rows in seen for row in rows) == 1


def test_masks_of_a_game_are_independent_and_the_same_wherever_named():
    game = make("gali-mix")
    names = [Expr(f"M{i}") for i in (1, 2, 3, 4)]
    values = evaluate_expressions(
        game, images(), source(), [*names, parse("M1(x)"), parse("Mix(x, G(E(M1(x))), M1)"), parse("G(E(M1(x)))")]
    )
    assert len({tuple(values[m].flatten().tolist()) for m in names}) == 4
    x, m1 = images(), values[names[0]]
    torch.testing.assert_close(values[parse("M1(x)")], erase(x, m1))
    torch.testing.assert_close(values[parse("Mix(x, G(E(M1(x))), M1)")], mix(x, values[parse("G(E(M1(x)))")], m1))
