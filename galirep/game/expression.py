"""The paper's notation as data: "E(G(E(x)))" is a typed expression tree over images, latents and networks.

An `Expr` is hashable and prints as it was written, so it serves as the key of a tensor, as the label of a curve and as
text in a checkpoint.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from galirep.errors import SpecError

# operator -> (kinds of its arguments, kind of its result)
OPERATORS = {
    "E": (("image",), "latent"),  # a sample of E's posterior
    "mu": (("image",), "latent"),  # the mean of the same posterior
    "G": (("latent",), "image"),
    "M": (("image",), "features"),  # learned knowledge: a fixed feature extractor
    "Erase": (("image", "mask"), "image"),  # written M1(x), ..., M4(x)
    "View": (("image", "view"), "image"),  # written T1(x), ..., T4(x)
    "Mix": (("image", "image", "mask"), "image"),  # the first image outside the mask, the second inside
    "Project": (("image",), "features"),  # never written: E's last hidden layer through a projector (`projection`)
}
LEAVES = {
    "x": "image",
    "z": "latent",
    **{f"M{i}": "mask" for i in range(1, 5)},
    **{f"T{i}": "view" for i in range(1, 5)},
}
MAX_PARTS = 100
"""Operators and leaves of one expression, at most; the paper's longest has 10."""

# kind of the leaf that is written as an operator -> the operator it stands for
_APPLIED = {"mask": "Erase", "view": "View"}
_TRAINED = frozenset({"E", "mu", "G", "Project"})
_KNOWN = "E, mu, G, M, M1..M4, T1..T4"
_QUOTED = 100  # characters of a text that a message quotes


@dataclass(frozen=True)
class Expr:
    """One expression: an operator with its arguments, or a leaf.

    Expressions of equal text have the same value, so E(x) is the same sample wherever it occurs.
    """

    head: str
    args: "tuple[Expr, ...]" = ()

    @cached_property
    def kind(self) -> str:
        """The kind of the value: `image`, `latent`, `features`, `mask` or `view`."""
        return OPERATORS[self.head][1] if self.args else LEAVES[self.head]

    @cached_property
    def heads(self) -> frozenset[str]:
        """Every operator and leaf in the expression."""
        return frozenset(e.head for e in self.walk())

    @property
    def learned(self) -> bool:
        """Whether the value depends on E or G, so that it can pass a gradient to them."""
        return bool(self.heads & _TRAINED)

    @cached_property
    def parts(self) -> int:
        """The number of operators and leaves, as often as they are written."""
        return 1 + sum(arg.parts for arg in self.args)

    @cached_property
    def erased(self) -> bool:
        """Whether the value is an image with a hole: erased by a mask, and not passed through a network since."""
        return self.head == "Erase" or any(a.erased for a in self.args if self.kind == a.kind == "image")

    def walk(self) -> "Iterator[Expr]":
        """Yield the expression and all its sub-expressions, depth first."""
        yield self
        for arg in self.args:
            yield from arg.walk()

    def __str__(self) -> str:
        if self.head in _APPLIED.values():
            return f"{self.args[1]}({self.args[0]})"
        return f"{self.head}({', '.join(map(str, self.args))})" if self.args else self.head


def projection(expr: Expr) -> Expr:
    """Return what a loss between views compares for `E(image)` or `mu(image)`: the hidden layer behind it, projected.

    Raises:
        SpecError: the expression is neither.
    """
    if expr.head not in ("E", "mu"):
        raise SpecError(f"a loss between views compares E or mu of two images, e.g. E(T1(x)) and E(T2(x)), not {expr}")
    return Expr("Project", expr.args)


def parse(text: str, where: Mapping[str, Expr] | None = None) -> Expr:
    """Parse one expression; nothing is ever evaluated as code.

    `where` gives names of sub-expressions, e.g. {"y": parse("G(E(x))")}.

    Raises:
        SpecError: the text is not an expression, or an operator has an argument of the wrong kind; the message quotes
            `text`.
    """
    try:
        return _build(ast.parse(text.strip(), mode="eval").body, where or {})
    except SpecError as err:
        reason = str(err)
    except (SyntaxError, ValueError):
        reason = f"write calls of {_KNOWN} and Mix, e.g. 'G(E(x))'"
    except (RecursionError, MemoryError):
        # what Python's parser raises on deep nesting
        reason = "it is nested too deeply"
    raise SpecError(f"in {shortened(text)!r}: {reason}") from None


def shortened(text: str) -> str:
    """Return a text as messages quote it: its beginning, where it is long."""
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def _build(node: ast.AST, where: Mapping[str, Expr]) -> Expr:
    match node:
        case ast.Name(id=name) if name in where:
            return where[name]
        case ast.Name(id=name) if name in LEAVES:
            return Expr(name)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return _apply(name, tuple(_build(a, where) for a in args))
    names = shortened(", ".join([*where, *LEAVES]))
    raise SpecError(f"{shortened(ast.unparse(node))!r} is neither a variable ({names}) nor a call of {_KNOWN} or Mix")


def _apply(name: str, operands: tuple[Expr, ...]) -> Expr:
    """Return the expression that a call of `name` stands for: M1(x) is Erase(x, M1), T1(x) is View(x, T1)."""
    head = _APPLIED.get(LEAVES.get(name, ""), name)
    if head != name:
        operands = (*operands, Expr(name))
    if head not in OPERATORS or head == "Project":
        raise SpecError(f"unknown operator {shortened(name)!r}; known: {_KNOWN}, Mix")
    expected, _ = OPERATORS[head]
    kinds = tuple(operand.kind for operand in operands)
    if kinds != expected:
        raise SpecError(f"{name} takes {_format_kinds(expected, head)}, not {_format_kinds(kinds, head)}")
    expr = Expr(head, operands)
    if expr.parts > MAX_PARTS:
        raise SpecError(f"it has more than {MAX_PARTS} parts, with names written out")
    if head == "View" and operands[0].erased:
        # a hole is a value outside the images' range, which a view would smear or shift into it
        raise SpecError(f"{expr} is a view of an erased image: erase the view, e.g. M1({name}(x))")
    return expr


def _format_kinds(kinds: tuple[str, ...], head: str) -> str:
    # the mask of M1(x) is its name, not one of the arguments that the user wrote
    written = kinds[:-1] if head in _APPLIED.values() else kinds
    return shortened(f"({', '.join(written)})")
