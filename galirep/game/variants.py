"""The built-in variants as data: those of the paper (Dandi et al. 2021) with its baselines, and galirep's own."""

import re
from pathlib import Path

from galirep.errors import SpecError, unknown
from galirep.game.variant import Penalty, Variant

ALI = Variant(
    "ali",
    (("x", "E(x)"), ("G(z)", "z")),
    about="ALI / BiGAN (Dumoulin et al. 2017; Donahue et al. 2017): n = 2",
    origin="paper",
)
ALICE = Variant(
    "alice",
    ALI.classes,
    penalties=(Penalty("l2", "x", "G(E(x))"),),
    about="ALI with a squared reconstruction penalty (Li et al. 2017)",
    origin="paper",
)
GALI_4 = Variant(
    "gali-4",
    (("x", "E(x)"), ("G(z)", "z"), ("x", "E(G(E(x)))"), ("G(E(G(z)))", "z")),
    about="four pairs with one more pass through both chains",
    origin="paper",
)
GALI_8 = Variant(
    "gali-8",
    (
        ("x", "a", "y", "b"),
        ("x", "b", "y", "a"),
        ("y", "a", "x", "b"),
        ("y", "b", "x", "a"),
        ("u", "z", "v", "c"),
        ("u", "c", "v", "z"),
        ("v", "z", "u", "c"),
        ("v", "c", "u", "z"),
    ),
    where=(("a", "E(x)"), ("y", "G(a)"), ("b", "E(y)"), ("u", "G(z)"), ("c", "E(u)"), ("v", "G(c)")),
    about="the eight permutations of images and latents in both chains, as 4-tuples",
    origin="paper",
)
GALI_MIX = Variant(
    "gali-mix",
    (
        ("x", "E(M1(x))"),
        ("G(z)", "z"),
        ("x", "E(M2(y))"),
        ("G(E(M3(G(z))))", "z"),
        ("w", "E(M1(x))"),
        ("w", "E(M2(y))"),
        ("x", "E(M4(w))"),
        ("y", "E(M4(w))"),
    ),
    where=(("y", "G(E(M1(x)))"), ("w", "Mix(x, y, M1)")),
    about="eight pairs over masked and mixed images, for inpainting",
    origin="paper",
)
GALI_PT = Variant(
    "gali-pt",
    (
        ("x", "E(x)", "M(x)"),
        ("G(z)", "z", "M(G(z))"),
        ("x", "E(G(E(x)))", "M(G(E(x)))"),
        ("G(E(G(z)))", "z", "M(G(z))"),
    ),
    about="GALI-4 with pretrained features M(.) as a third variable; needs --adapter",
    origin="paper",
)
# The inpainting baselines: every input of E is masked (section 5 of the paper).
MASKED_ALI = Variant(
    "masked-ali",
    (("x", "E(M1(x))"), ("G(z)", "z")),
    about="ALI with masked encoder inputs (inpainting baseline)",
    origin="paper",
)
MASKED_ALICE = Variant(
    "masked-alice",
    MASKED_ALI.classes,
    penalties=(Penalty("l2", "x", "G(E(M1(x)))"),),
    about="ALICE with masked encoder inputs (inpainting baseline)",
    origin="paper",
)
MASKED_GALI_4 = Variant(
    "masked-gali-4",
    (("x", "E(M1(x))"), ("G(z)", "z"), ("x", "E(M2(G(E(M1(x)))))"), ("G(E(M3(G(z))))", "z")),
    about="GALI-4 with masked encoder inputs (inpainting baseline)",
    origin="paper",
)
# The ablations of GALI-PT: the same knowledge as a penalty, not as a variable.
GALI_4_L2_FEATURES = Variant(
    "gali-4-l2-features",
    GALI_4.classes,
    penalties=(Penalty("l2", "M(x)", "M(G(E(x)))"),),
    about="GALI-4 with a squared penalty on features (ablation of GALI-PT); needs --adapter",
    origin="paper",
)
GALI_4_L1_FEATURES = Variant(
    "gali-4-l1-features",
    GALI_4.classes,
    penalties=(Penalty("l1", "M(x)", "M(G(E(x)))"),),
    about="GALI-4 with an absolute penalty on features (ablation of GALI-PT); needs --adapter",
    origin="paper",
)

# Not of the paper: what its GALI-4 leaves to the game alone, with a little help. The weights are those of the best
# held-out figures on MNIST at 16 x 16 after 1,000 updates (docs/variants.md).
GALI_4_L2 = Variant(
    "gali-4-l2",
    GALI_4.classes,
    penalties=(Penalty("l2", "x", "G(E(x))", 10.0),),
    about="GALI-4 with a weak squared reconstruction penalty",
    origin="galirep",
)
GALI_4_CYCLE = Variant(
    "gali-4-cycle",
    GALI_4.classes,
    penalties=(Penalty("l2", "x", "G(mu(x))", 10.0), Penalty("l2", "z", "mu(G(z))", 1.0)),
    about="GALI-4 with weak squared penalties on both cycles, of images and of latents, through the posterior's mean",
    origin="galirep",
)

VARIANTS = {
    v.name: v
    for v in (
        ALI,
        ALICE,
        GALI_4,
        GALI_8,
        GALI_MIX,
        GALI_PT,
        MASKED_ALI,
        MASKED_ALICE,
        MASKED_GALI_4,
        GALI_4_L2_FEATURES,
        GALI_4_L1_FEATURES,
        GALI_4_L2,
        GALI_4_CYCLE,
    )
}


def get_variant(name: str | Path | Variant) -> Variant:
    """Return a built-in variant by name (`gali-4`), or read one from a TOML file (`mine.toml`).

    Raises:
        SpecError: the name is unknown, or the file does not exist, is not a variant, or names what it does not use.
    """
    if isinstance(name, Variant):
        return name
    if str(name).endswith(".toml"):
        variant = Variant.from_toml(name)
        _require_used(variant, name)
        return variant
    if str(name) not in VARIANTS:
        raise SpecError(unknown("variant", str(name), VARIANTS) + "; or a .toml file")
    return VARIANTS[str(name)]


def _require_used(variant: Variant, path: str | Path) -> None:
    texts = [text for row in variant.classes for text in row]
    texts += [text for penalty in variant.penalties for text in (penalty.left, penalty.right)]
    for name, _ in variant.where:
        others = [text for other, text in variant.where if other != name]
        if not any(re.search(rf"\b{name}\b", text) for text in (*texts, *others)):
            raise SpecError(f"{path}: the name {name!r} in where is used nowhere: use it, or leave it out")
