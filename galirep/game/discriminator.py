"""D: the variables of a variant -> logits (n, B, n). Each distinct variable is embedded once, whatever the number of tuples that hold
it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from galirep.game.expression import Expr
from galirep.game.variant import Variant
from galirep.networks.parts import Parts, init_normal


class Discriminator(nn.Module):
    """The n-way classifier of a variant's tuples: a trunk for each kind of variable, a joint head on the concatenated embeddings.

    `regularizer`: `sn` puts spectral norm (Miyato et al. 2018) on every linear and convolution layer, as the paper does; `sn-scale` leaves
    the last layer free and learns a scale of the logits (a D whose every layer is normalised is nearly 1-Lipschitz and may stay at
    chance); others leave D as it is. `+r1r2` after them, a matter of the step, changes nothing here.
    """

    def __init__(self, variant: Variant, parts: Parts, regularizer: str = "sn") -> None:
        super().__init__()
        self.variant = variant
        self.trunks = nn.ModuleDict({kind: parts.trunks[kind] for kind in dict.fromkeys(variant.kinds)})
        widths = [sum(parts.trunk_dims[kind] for kind in variant.kinds), *parts.head_widths]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.LeakyReLU(parts.slope)) for a, b in pairwise(widths)]
        self.hidden, self.last = nn.Sequential(*hidden), nn.Linear(widths[-1], variant.n)
        init_normal(self.last, 0.01)
        spectral = regularizer.removesuffix("+r1r2")
        self.log_scale = nn.Parameter(torch.zeros(())) if spectral == "sn-scale" else None
        if spectral in ("sn", "sn-scale"):
            free = self.last if spectral == "sn-scale" else None
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear) and module is not free:
                    parametrizations.spectral_norm(module)

    def forward(self, values: Mapping[Expr, Tensor]) -> Tensor:
        """The value of each of the variant's variables -> logits (n, B, n); row i holds the tuples of class i."""
        with parametrize.cached():  # one power iteration a forward, however often a trunk is called
            embedded = self._embed(values)
            return self._head([[embedded[e] for e in row] for row in self.variant.tuples])

    def tuples(self, rows: Sequence[Sequence[Tensor]]) -> Tensor:
        """n tuples of m tensors, none of them shared -> logits (n, B, n): the same function as `forward`, for gradients of one tuple at a
        time.
        """
        with parametrize.cached():
            batch = rows[0][0].shape[0]
            embedded: list[list[Tensor]] = [[] for _ in rows]
            for slot, kind in enumerate(self.variant.kinds):
                for row, h in zip(
                    embedded, self.trunks[kind](torch.cat([row[slot] for row in rows])).split(batch), strict=True
                ):
                    row.append(h)
            return self._head(embedded)

    def _embed(self, values: Mapping[Expr, Tensor]) -> dict[Expr, Tensor]:
        # One call of a trunk for the variables that take a gradient and one for those that do not: the way back to G and E never passes the
        # latter.
        groups: dict[tuple[str, bool], list[Expr]] = {}
        for e in self.variant.variables:
            groups.setdefault((e.kind, values[e].requires_grad), []).append(e)
        embedded: dict[Expr, Tensor] = {}
        for (kind, _), group in groups.items():
            embedded |= zip(
                group, self.trunks[kind](torch.cat([values[e] for e in group])).chunk(len(group)), strict=True
            )
        return embedded

    def _head(self, embedded: Sequence[Sequence[Tensor]]) -> Tensor:
        logits: Tensor = self.last(self.hidden(torch.stack([torch.cat(list(row), 1) for row in embedded])))
        return logits if self.log_scale is None else logits * self.log_scale.exp()
