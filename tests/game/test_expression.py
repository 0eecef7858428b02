"""The notation: parsing, derived properties, and error messages."""

import pickle

import pytest

from galirep.errors import SpecError
from galirep.game.expression import Expr, parse

X, Z = Expr("x"), Expr("z")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x", "image"), ("z", "latent"), ("E(x)", "latent"), ("G(z)", "image"), ("E(G(E(x)))", "latent"),
        ("M(G(z))", "features"),
        ("E(M1(x))", "latent"), ("M4(G(z))", "image"), ("Mix(x, G(z), M1)", "image"), ("M(M2(x))", "features"),
    ],
)  # fmt: skip
def test_an_expression_prints_as_it_was_written_and_has_a_kind(text, kind):
    expr = parse(text)
    assert str(expr) == text and expr.kind == kind and parse(str(expr)) == expr


def test_equal_text_is_equal_value_whatever_the_spaces():
    assert parse(" E( G(z ) )") == parse("E(G(z))") == Expr("E", (Expr("G", (Z,)),))
    assert len({parse("E(x)"), parse("E(x)"), parse("E(M1(x))"), parse("E(M2(x))")}) == 3


def test_an_expression_survives_pickling():
    expr = parse("Mix(x, G(E(M1(x))), M1)")
    assert expr.kind == "image"
    assert pickle.loads(pickle.dumps(expr)) == expr


def test_walk_and_heads_contain_every_part():
    expr = parse("E(M1(G(z)))")
    assert [str(e) for e in expr.walk()] == ["E(M1(G(z)))", "M1(G(z))", "G(z)", "z", "M1"]
    assert expr.heads == {"E", "Erase", "G", "z", "M1"}


@pytest.mark.parametrize(
    ("text", "learned"),
    [("x", False), ("z", False), ("M(x)", False), ("M1(x)", False), ("E(x)", True), ("M(G(z))", True)],
)
def test_learned_is_whether_the_value_depends_on_e_or_g(text, learned):
    assert parse(text).learned is learned


def test_names_stand_for_expressions():
    y = parse("G(E(x))")
    assert parse("E(y)", {"y": y}) == parse("E(G(E(x)))")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("E(z)", "E takes (image), not (latent)"),
        ("G(x)", "G takes (latent), not (image)"),
        ("G(M(x))", "G takes (latent), not (features)"),
        ("M(z)", "M takes (image), not (latent)"),
        ("E()", "E takes (image), not ()"),
        ("E(x, x)", "E takes (image), not (image, image)"),
        ("M1(z)", "M1 takes (image), not (latent)"),
        ("M1(x, x)", "M1 takes (image), not (image, image)"),
        ("E(M1)", "E takes (image), not (mask)"),
        ("Mix(x, x)", "Mix takes (image, image, mask), not (image, image)"),
        ("F(x)", "unknown operator 'F'; known: E, mu, G, M, M1..M4, T1..T4, Mix"),
        ("M5(x)", "unknown operator 'M5'"),
        ("E(y)", "'y' is neither a variable (x, z, M1, M2, M3, M4, T1, T2, T3, T4)"),
        ("E(x", "write calls of E, mu, G, M, M1..M4, T1..T4 and Mix"),
        ("", "write calls of E, mu, G"),
        ("x + z", "'x + z' is neither a variable"),
        ("x.real", "'x.real' is neither a variable"),
        ("E(x)(z)", "neither a variable"),
        ("E(*x)", "'*x' is neither a variable"),
        ("E(x=x)", "'E(x=x)' is neither a variable"),
        ("__import__('os')", "in "),
        ("E" + "(G(E" * 150 + "(x" + "))" * 150 + ")", "in 'E(G(E"),
        ("x\0", "in 'x\\x00'"),
    ],
    ids=lambda text: text[:12],
)
def test_an_error_quotes_the_text_and_says_what_fits(text, says):
    with pytest.raises(SpecError) as caught:
        parse(text)
    message = str(caught.value)
    assert says in message and repr(text)[1:-1] in message and "\n" not in message


def test_nothing_is_evaluated():
    with pytest.raises(SpecError):
        parse("E(print('no'))")


def test_a_name_in_where_is_offered_in_the_message():
    with pytest.raises(SpecError, match=r"'u' is neither a variable \(y, x, z"):
        parse("E(u)", {"y": parse("G(z)")})
