"""The chains x -> E(x) -> G(E(x)) -> ... and z -> G(z) -> E(G(z)) -> ...: each distinct sub-expression is evaluated once."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from galirep.game.expression import Expr


def evaluate(
    exprs: Iterable[Expr], known: Mapping[Expr, Tensor], apply: Callable[[Expr, tuple[Tensor, ...]], Tensor]
) -> dict[Expr, Tensor]:
    """The value of each expression, in the order given.

    `known` holds the leaves, and any other value that need not be computed (such as cached features M(x)); `apply(expr, arguments)`
    computes the rest. A sub-expression is computed once, so the stochastic E(x) is one and the same sample in every tuple that holds it.
    """
    values = dict(known)

    def value(e: Expr) -> Tensor:
        if e not in values:
            values[e] = apply(e, tuple(value(a) for a in e.args))
        return values[e]

    return {e: value(e) for e in exprs}
