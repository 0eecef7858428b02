"""Evaluation of the chains x -> E(x) -> G(E(x)) -> ... and z -> G(z) -> E(G(z)) -> ..., each sub-expression once."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from galirep.game.expression import Expr


def evaluate(
    exprs: Iterable[Expr], known: Mapping[Expr, Any], apply: Callable[[Expr, tuple[Any, ...]], Any]
) -> dict[Expr, Any]:
    """Return the value of each expression, in the order given.

    `known` gives the values of the leaves, and of any other expression that need not be computed (such as cached
    features M(x)); `apply(expr, arguments)` computes the others. Values are tensors, but for the leaves T1, T2, ...,
    which are functions of images. A sub-expression is computed once, so the stochastic E(x) is the same sample in every
    tuple that contains it.
    """
    values = dict(known)

    def value(e: Expr) -> Any:
        if e not in values:
            values[e] = apply(e, tuple(value(a) for a in e.args))
        return values[e]

    return {e: value(e) for e in exprs}
