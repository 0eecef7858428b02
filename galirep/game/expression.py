"""The paper's notation as data: "E(G(E(x)))" is a typed expression tree over images, latents, masks and networks.

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
    "G": (("latent",), "image"),
    "M": (("image",), "features"),  # learned knowledge: a fixed feature extractor
    "Erase": (("image", "mask"), "image"),  # written M1(x), ..., M4(x)
    "Mix": (("image", "image", "mask"), "image"),  # the first image outside the mask, the second inside
}
LEAVES = {"x": "image", "z": "latent", "M1": "mask", "M2": "mask", "M3": "mask", "M4": "mask"}


@dataclass(frozen=True)
class Expr:
    """One expression: an operator with its arguments, or a leaf.

    Expressions of equal text have the same value, so E(x) is the same sample wherever it occurs.
    """

    head: str
    args: "tuple[Expr, ...]" = ()

    @cached_property
    def kind(self) -> str:
        """The kind of the value: `image`, `latent`, `features` or `mask`."""
        return OPERATORS[self.head][1] if self.args else LEAVES[self.head]

    @cached_property
    def heads(self) -> frozenset[str]:
        """Every operator and leaf in the expression."""
        return frozenset(e.head for e in self.walk())

    @property
    def learned(self) -> bool:
        """Whether the value depends on E or G, so that it can pass a gradient to them."""
        return bool(self.heads & {"E", "G"})

    @property
    def erased(self) -> bool:
        """Whether the value is an image with a hole: erased by a mask, and not passed through a network since."""
        return self.head == "Erase" or any(a.erased for a in self.args if self.kind == a.kind == "image")

    def walk(self) -> "Iterator[Expr]":
        """Yield the expression and all its sub-expressions, depth first."""
        yield self
        for arg in self.args:
            yield from arg.walk()

    def __str__(self) -> str:
        if self.head == "Erase":
            return f"{self.args[1]}({self.args[0]})"
        return f"{self.head}({', '.join(map(str, self.args))})" if self.args else self.head


def parse(text: str, where: Mapping[str, Expr] | None = None) -> Expr:
    """Parse one expression; nothing is ever evaluated as code.

    `where` gives names of sub-expressions, e.g. {"y": parse("G(E(x))")}.

    Raises:
        SpecError: the text is not an expression, or an operator has an argument of the wrong kind; the message quotes
            `text`.
    """
    try:
        return _build(ast.parse(text.strip(), mode="eval").body, where or {})
    except (SyntaxError, ValueError) as err:
        reason = str(err) if isinstance(err, SpecError) else "write calls of E, G, M, M1..M4 and Mix, e.g. 'G(E(x))'"
        raise SpecError(f"in {text!r}: {reason}") from None


def _build(node: ast.AST, where: Mapping[str, Expr]) -> Expr:
    match node:
        case ast.Name(id=name) if name in where:
            return where[name]
        case ast.Name(id=name) if name in LEAVES:
            return Expr(name)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            operands = tuple(_build(a, where) for a in args)
            head = name
            if LEAVES.get(name) == "mask":
                # M1(x) is written as an operator, and means Erase(x, M1)
                head = "Erase"
                operands = (*operands, Expr(name))
            if head not in OPERATORS:
                raise SpecError(f"unknown operator {name!r}; known: E, G, M, M1..M4, Mix")
            expected, _ = OPERATORS[head]
            kinds = tuple(operand.kind for operand in operands)
            if kinds != expected:
                raise SpecError(f"{name} takes {_format_kinds(expected, head)}, not {_format_kinds(kinds, head)}")
            return Expr(head, operands)
    names = ", ".join([*where, *LEAVES])
    raise SpecError(f"{ast.unparse(node)!r} is neither a variable ({names}) nor a call of E, G, M, M1..M4 or Mix")


def _format_kinds(kinds: tuple[str, ...], head: str) -> str:
    # the mask of M1(x) is its name, not one of the arguments that the user wrote
    written = kinds[:-1] if head == "Erase" else kinds
    return f"({', '.join(written)})"
