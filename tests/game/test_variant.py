"""Variants: those of the paper, a user's own as a TOML file, and error messages."""

import itertools

import pytest

from galirep.errors import SpecError
from galirep.game.variant import Penalty, Variant
from galirep.game.variants import ALI, VARIANTS, get_variant


def permuted(images, latents):
    """Return the four tuples (image, latent, image, latent) of permuted images and permuted latents."""
    return {
        (*i[:1], *la[:1], *i[1:], *la[1:])
        for i, la in itertools.product(itertools.permutations(images), itertools.permutations(latents))
    }


# The classes of each variant with every name written in full; their order is immaterial.
L2, CYCLE = 10.0, 1.0  # the weights of galirep's own variants
FOUR = {("x", "E(x)"), ("G(z)", "z"), ("x", "E(G(E(x)))"), ("G(E(G(z)))", "z")}
Y, W = "G(E(M1(x)))", "Mix(x, G(E(M1(x))), M1)"
CLASSES = {
    "ali": {("x", "E(x)"), ("G(z)", "z")},
    "alice": {("x", "E(x)"), ("G(z)", "z")},
    "gali-4": FOUR,
    "gali-8": permuted(("x", "G(E(x))"), ("E(x)", "E(G(E(x)))")) | permuted(("G(z)", "G(E(G(z)))"), ("z", "E(G(z))")),
    "gali-mix": {
        ("x", "E(M1(x))"), ("G(z)", "z"), ("x", f"E(M2({Y}))"), ("G(E(M3(G(z))))", "z"),
        (W, "E(M1(x))"), (W, f"E(M2({Y}))"), ("x", f"E(M4({W}))"), (Y, f"E(M4({W}))"),
    },
    "gali-pt": {
        ("x", "E(x)", "M(x)"), ("G(z)", "z", "M(G(z))"),
        ("x", "E(G(E(x)))", "M(G(E(x)))"), ("G(E(G(z)))", "z", "M(G(z))"),
    },
    "masked-ali": {("x", "E(M1(x))"), ("G(z)", "z")},
    "masked-alice": {("x", "E(M1(x))"), ("G(z)", "z")},
    "masked-gali-4": {("x", "E(M1(x))"), ("G(z)", "z"), ("x", "E(M2(G(E(M1(x)))))"), ("G(E(M3(G(z))))", "z")},
    "gali-4-l2-features": FOUR,
    "gali-4-l1-features": FOUR,
    "gali-4-l2": FOUR,
    "gali-4-cycle": FOUR,
}  # fmt: skip
PENALTIES = {
    "alice": [("l2", "x", "G(E(x))", 1.0)],
    "masked-alice": [("l2", "x", "G(E(M1(x)))", 1.0)],
    "gali-4-l2-features": [("l2", "M(x)", "M(G(E(x)))", 1.0)],
    "gali-4-l1-features": [("l1", "M(x)", "M(G(E(x)))", 1.0)],
    "gali-4-l2": [("l2", "x", "G(E(x))", L2)],
    "gali-4-cycle": [("l2", "x", "G(mu(x))", L2), ("l2", "z", "mu(G(z))", CYCLE)],
}
OWN = {"gali-4-l2", "gali-4-cycle"}


def test_the_table_holds_every_variant():
    assert CLASSES.keys() == VARIANTS.keys() and len(CLASSES["gali-8"]) == 8


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_that_of_the_table(name):
    variant = get_variant(name)
    written = [tuple(map(str, row)) for row in variant.tuples]
    assert variant.n == len(written) == len(CLASSES[name]) and set(written) == CLASSES[name]
    assert (
        variant.kinds
        == {2: ("image", "latent"), 3: ("image", "latent", "features"), 4: ("image", "latent") * 2}[len(written[0])]
    )
    penalties = [(p.distance, str(left), str(right), p.weight) for p, left, right in variant.penalized]
    assert penalties == PENALTIES.get(name, [])
    assert variant.origin == ("galirep" if name in OWN else "paper")
    assert variant.needs_features == ("pt" in name or "features" in name)
    assert variant.masks == {"gali-mix": ("M1", "M2", "M3", "M4"), "masked-gali-4": ("M1", "M2", "M3")}.get(
        name, ("M1",) if "masked" in name else ()
    )
    assert variant.about


@pytest.mark.parametrize(("name", "count"), [("ali", 4), ("gali-4", 6), ("gali-8", 8), ("gali-mix", 9), ("gali-pt", 9)])
def test_distinct_variables(name, count):
    variant = get_variant(name)
    assert len(variant.variables) == count and set(variant.variables) == {e for row in variant.tuples for e in row}


@pytest.mark.parametrize("name", VARIANTS)
def test_plain_data_and_toml_give_the_variant_back(name, tmp_path):
    variant = get_variant(name)
    assert Variant.from_dict(variant.to_dict()) == variant
    assert Variant.from_dict(variant.to_dict()).origin == variant.origin
    rows = "\n".join(f"  {list(row)}," for row in variant.to_dict()["classes"])
    where = "\n".join(f"{key} = {text!r}" for key, text in variant.where)
    path = tmp_path / "mine.toml"
    head = f"name = {name!r}\nabout = {variant.about!r}\npenalties = {variant.to_dict()['penalties']}\n"
    path.write_text(f"{head}classes = [\n{rows}\n]\n[where]\n{where}\n")
    assert Variant.from_toml(path) == get_variant(path) == get_variant(str(path)) == variant
    assert get_variant(variant) is variant


def test_a_toml_variant_is_named_after_its_file_where_it_has_no_name(tmp_path):
    path = tmp_path / "three.toml"
    path.write_text(
        'classes = [["x", "E(x)"], ["G(z)", "z"], ["y", "E(x)"]]\n'
        'where = {y = "G(E(x))"}\n'
        'penalties = [["l1", "x", "y", 0.5]]\n'
    )
    variant = get_variant(path)
    assert variant.name == "three" and variant.n == 3 and str(variant.tuples[2][0]) == "G(E(x))"
    assert variant.penalties == (Penalty("l1", "x", "y", 0.5),)


def test_what_e_is_fed_is_whole_images_masked_ones_or_both():
    masked = {"gali-mix", "masked-ali", "masked-alice", "masked-gali-4"}
    for name, variant in VARIANTS.items():
        assert variant.statistics == (("masked",) if name in masked else ("whole",)), name
    fed = (("x", "E(x)"), ("G(z)", "z"))
    assert Variant("mine", (*fed, ("x", "E(M1(x))"))).statistics == ("whole", "masked")
    assert Variant("mine", fed, penalties=(Penalty("l2", "x", "G(E(M1(x)))"),)).statistics == ("whole", "masked")
    # what G makes of an erased image has no hole; a mixture with an erased one has
    assert Variant("mine", (*fed, ("x", "E(G(E(x)))"))).statistics == ("whole",)
    assert Variant("mine", (("x", "E(Mix(x, M1(x), M2))"), ("G(z)", "z"))).statistics == ("masked",)
    assert Variant("mine", (("x", "E(Mix(x, G(z), M1))"), ("G(z)", "z"))).statistics == ("whole",)


def test_penalties_add_expressions_but_no_variable_of_d():
    variant = get_variant("alice")
    assert [str(e) for e in variant.variables] == ["x", "E(x)", "G(z)", "z"]
    assert [str(e) for e in variant.expressions] == ["x", "E(x)", "G(z)", "z", "G(E(x))"]


def test_views_means_and_losses_between_views_are_derived():
    penalties = (
        Penalty("vicreg", "E(T1(x))", "mu(T3(x))", 0.5),
        Penalty("l2", "mu(T1(x))", "mu(x)"),
    )
    variant = Variant("mine", (("x", "mu(x)"), ("G(z)", "z")), penalties=penalties)
    assert variant.views == ("T1", "T3") and variant.masks == () and variant.needs_projector
    # no sample of E(T1(x)) is drawn: what is compared is the hidden layer behind it
    assert [str(e) for e in variant.expressions] == [
        "x", "mu(x)", "G(z)", "z", "Project(T1(x))", "Project(T3(x))", "mu(T1(x))",
    ]  # fmt: skip
    assert not any((v.views or v.needs_projector) for v in VARIANTS.values())


PAIRS = (("x", "E(x)"), ("G(z)", "z"))


@pytest.mark.parametrize(
    ("classes", "where", "penalties", "says"),
    [
        (PAIRS[:1], (), (), "a game needs at least 2 classes, got 1"),
        ((*PAIRS, ("x", "E(z)")), (), (), "in 'E(z)': E takes (image), not (latent)"),
        ((*PAIRS, ("z", "x")), (), (), "(z, x) is latent x image, but the first class is image x latent"),
        ((*PAIRS, ("x",)), (), (), "(x) is image, but the first class is image x latent"),
        ((*PAIRS, ("x", "E( x )")), (), (), "two classes are the same tuple, so D cannot distinguish them"),
        ((("x", "z"), ("G(z)", "z")), (), (), "no class contains E: E, G, x and z must each occur in at least one"),
        ((("x", "E(x)"), ("x", "z")), (), (), "no class contains G: E, G, x and z must each occur in at least one"),
        ((*PAIRS, ("M1", "z")), (), (), "(M1, z) contains a bare mask"),
        (PAIRS, (("E", "x"),), (), "'E' cannot name an expression"),
        (PAIRS, (("x", "G(z)"),), (), "'x' cannot name an expression"),
        (PAIRS, (("a b", "G(z)"),), (), "'a b' cannot name an expression"),
        (PAIRS, (("y", "G(E(u))"),), (), "in 'G(E(u))': 'u' is neither a variable"),
        (
            PAIRS,
            (),
            (Penalty("l3", "x", "G(z)"),),
            "unknown distance 'l3' of a penalty; known: l1, l2, vicreg, info-nce",
        ),
        (PAIRS, (), (Penalty("l2", "x", "G(z)", -1),), "must be a number of 0 or more, not -1"),
        (PAIRS, (), (Penalty("l2", "x", "G(z)", float("nan")),), "must be a number of 0 or more, not nan"),
        (
            PAIRS,
            (),
            (Penalty("l2", "x", "E(x)"),),
            "on x and E(x) needs two images, latents or features, not image and latent",
        ),
        (PAIRS, (), (Penalty("l2", "x", "x"),), "the penalty on x and x needs an expression that depends on E or G"),
        (PAIRS, (), (Penalty("l2", "mu(x)", "G(z)"),), "the penalty on mu(x) and G(z) needs two images, latents or"),
        (PAIRS, (), (Penalty("l2", "x", "G(z)", True),), "must be a number of 0 or more, not True"),
        (PAIRS, (), (Penalty("l2", "x", "G(z)", float("inf")),), "must be a number of 0 or more, not inf"),
        (PAIRS, (), (Penalty("l2", "x", "G(z)", 10**400),), "must be a number of 0 or more, not 1000"),
        (PAIRS, (), (Penalty("l2", "E(x)", "E( x)"),), "the penalty on E(x) and E( x) compares a value with itself"),
        (PAIRS, (), (Penalty("vicreg", "E(T1(x))", "mu(T1(x))"),), "compares a value with itself"),
        (
            PAIRS,
            (),
            (Penalty("vicreg", "E(T1(x))", "z"),),
            "compares E or mu of two images, e.g. E(T1(x)) and E(T2(x))",
        ),
        (PAIRS, (), (Penalty("info-nce", "x", "T1(x)"),), "compares E or mu of two images"),
        (PAIRS, (), (Penalty("l2", "T1", "T2"),), "the penalty on T1 and T2 needs two images, latents or features"),
        ((*PAIRS, ("T1", "z")), (), (), "(T1, z) contains a bare view: write T1(x)"),
        ((*PAIRS, ("T1(M1(x))", "z")), (), (), "T1(M1(x)) is a view of an erased image"),
        (PAIRS, (("T1", "x"),), (), "'T1' cannot name an expression"),
        (PAIRS, (("mu", "x"),), (), "'mu' cannot name an expression"),
    ],
)
def test_a_variant_that_cannot_be_trained_is_refused_with_its_name(classes, where, penalties, says):
    with pytest.raises(SpecError) as caught:
        Variant("mine", classes, where, penalties)
    assert str(caught.value).startswith("variant 'mine': ") and says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("classes = [['x', 'E(x)'], ['G(z)', 'z']]\nclases = 1", "unknown key 'clases'; known: name, classes"),
        ("name = 'mine'", "classes must be a list of lists of expressions"),
        ("classes = ['x', 'z']", "classes must be a list of lists of expressions"),
        ("classes = [['x', 1], ['G(z)', 'z']]", "classes must be a list of lists of expressions"),
        ("classes = [[], []]", "classes must be a list of lists of expressions"),
        ("classes = [['x', 'E(x)'], ['G(z)', 'z']]\nwhere = ['y']", "where must be a table"),
        ("classes = [['x', 'E(x)'], ['G(z)', 'z']]\nwhere = {y = 3}", "where must be a table"),
        (
            "classes = [['x', 'E(x)'], ['G(z)', 'z']]\npenalties = [['l2', 'x']]",
            "penalties must be a list of [distance, left, right, weight]",
        ),
        (
            "classes = [['x', 'E(x)'], ['G(z)', 'z']]\npenalties = [['l2', 'x', 'G(z)', 'much']]",
            "must be a number of 0 or more, not 'much'",
        ),
        ("classes = [['x', 'E(x'], ['G(z)', 'z']]", "in 'E(x': write calls of E, mu, G"),
        ("classes = [['x' 'E(x)']]", "is not valid TOML"),
        ("classes = " + "[" * 100_000 + "]" * 100_000, "is not valid TOML: it is nested too deeply"),
        ("penalties = [['l2', 'x', 'G(z)', " + "9" * 5000 + "]]", "is not valid TOML: "),
        ("x" * 5000 + " = 1", "unknown key 'xxx"),
        ("name = '" + "n" * 5000 + "'\nclasses = 3", "nnn...': classes must be a list"),
        (
            "classes = [['x', 'E(x)'], ['G(z)', 'z'], ['a40', 'z']]\n[where]\na0 = 'Mix(x, x, M1)'\n"
            + "".join(f"a{i + 1} = 'Mix(a{i}, a{i}, M1)'\n" for i in range(40)),
            "it has more than 100 parts, with names written out",
        ),
        ("classes = [['x', 'E(y)'], ['G(z)', 'z']]", "in 'E(y)': 'y' is neither a variable"),
    ],
)
def test_an_error_in_a_toml_file_names_the_file(text, says, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        get_variant(path)
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_toml_file_that_cannot_be_read(tmp_path):
    with pytest.raises(SpecError, match=r"cannot read the variant file .*none\.toml: No such file"):
        get_variant(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(SpecError, match="is not valid TOML"):
        get_variant(tmp_path / "latin.toml")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        SpecError, match=r"unknown variant 'gali4': did you mean 'gali-4'\? known: ali, .*; or a \.toml file"
    ):
        get_variant("gali4")


def test_variants_are_values():
    # the last differs in `about`
    assert len({ALI, get_variant("ali"), Variant("ali", ALI.classes)}) == 2


def test_a_name_that_is_used_nowhere_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    classes = "classes = [['x', 'E(x)'], ['y', 'z']]\n[where]\n"
    path.write_text(f"{classes}w = 'E(x)'\ny = 'G(z)'\n")
    with pytest.raises(SpecError, match=r"mine\.toml: the name 'w' in where is used nowhere"):
        get_variant(path)
    path.write_text(f"{classes}v = 'z'\ny = 'G(v)'\n")
    assert get_variant(path).n == 2


def test_a_name_that_refers_to_itself_is_told():
    with pytest.raises(SpecError, match=r"in where: y = 'G\(E\(y\)\)' refers to itself"):
        Variant("v", (("x", "E(x)"), ("G(z)", "z"), ("x", "y")), where=(("y", "G(E(y))"),))
