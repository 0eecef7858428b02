"""The notation: parsing, derived properties, and error messages."""

import pickle

import pytest

from galirep.errors import SpecError
from galirep.game.expression import Expr, parse, projection

X, Z = Expr("x"), Expr("z")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x", "image"), ("z", "latent"), ("E(x)", "latent"), ("G(z)", "image"), ("E(G(E(x)))", "latent"),
        ("M(G(z))", "features"),
        ("E(M1(x))", "latent"), ("M4(G(z))", "image"), ("Mix(x, G(z), M1)", "image"), ("M(M2(x))", "features"),
        ("mu(G(z))", "latent"), ("E(T1(x))", "latent"), ("M1(T2(x))", "image"), ("T1(G(E(M1(x))))", "image"),
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
    [("x", False), ("z", False), ("M(x)", False), ("M1(x)", False), ("E(x)", True), ("M(G(z))", True)]
    + [("mu(x)", True), ("T1(x)", False), ("T1(G(z))", True)],
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
        ("x\0", "in 'x\\x00'"),
    ],
    ids=lambda text: text[:12],
)
def test_an_error_quotes_the_text_and_says_what_fits(text, says):
    with pytest.raises(SpecError) as caught:
        parse(text)
    message = str(caught.value)
    assert says in message and repr(text)[1:-1] in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("E" + "(G(E" * 150 + "(x" + "))" * 150 + ")", "write calls of"),
        ("E(" * 90 + "x", "write calls of"),
        ("G(E(" * 60 + "x" + "))" * 60, "it has more than 100 parts, with names written out"),
        ("x" + ".a" * 100_000, ""),
        ("-" * 100_000 + "x", ""),
        ("E(" + "x," * 10_000 + ")", "E takes (image), not (image, image, "),
        ("x" * 10_000, "neither a variable"),
        ("y" * 10_000 + "(x)", "unknown operator 'yyy"),
    ],
    ids=lambda text: text[:12],
)
def test_a_text_of_any_length_or_depth_is_refused_in_one_short_line(text, says):
    with pytest.raises(SpecError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith(f"in {text[:100] + '...' if len(text) > 103 else text!r}"[:90]) and says in message
    assert len(message) < 500 and "\n" not in message


def test_names_that_grow_are_refused_before_they_fill_the_memory():
    names = {"y": parse("x")}
    with pytest.raises(SpecError, match="more than 100 parts"):
        for _ in range(1000):
            names["y"] = parse("Mix(y, y, M1)", names)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("T1(z)", "T1 takes (image), not (latent)"),
        ("T1(x, x)", "T1 takes (image), not (image, image)"),
        ("Mix(x, x, T1)", "Mix takes (image, image, mask), not (image, image, view)"),
        ("T1(M1(x))", "T1(M1(x)) is a view of an erased image: erase the view, e.g. M1(T1(x))"),
        ("T2(T1(Mix(x, M1(x), M2)))", "is a view of an erased image"),
        ("T5(x)", "unknown operator 'T5'"),
        ("mu(z)", "mu takes (image), not (latent)"),
        ("Project(x)", "unknown operator 'Project'"),
    ],
)
def test_views_and_means_that_make_no_sense(text, says):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert says in str(caught.value)


def test_a_projection_is_of_the_image_of_e_or_mu_and_cannot_be_written():
    assert projection(parse("E(T1(x))")) == projection(parse("mu(T1(x))")) == Expr("Project", parse("mu(T1(x))").args)
    assert projection(parse("mu(x)")).learned and projection(parse("mu(x)")).kind == "features"
    with pytest.raises(SpecError, match=r"E or mu of two images, .*, not G\(z\)"):
        projection(parse("G(z)"))


def test_nothing_is_evaluated():
    with pytest.raises(SpecError):
        parse("E(print('no'))")


def test_a_name_in_where_is_offered_in_the_message():
    with pytest.raises(SpecError, match=r"'u' is neither a variable \(y, x, z"):
        parse("E(u)", {"y": parse("G(z)")})
