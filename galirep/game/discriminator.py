"""D: the variables of a variant -> logits (n, B, n).

Each distinct variable is embedded once, however many tuples contain it.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from galirep.errors import SpecError
from galirep.game.expression import Expr
from galirep.game.variant import Variant
from galirep.networks.parts import Parts, init_normal


class Discriminator(nn.Module):
    """The n-way classifier of a variant's tuples: a trunk for each kind of variable, and a joint head.

    The head takes the concatenated embeddings of a tuple. `regularizer`:

    - `sn`: spectral norm (Miyato et al. 2018) on every linear and convolution layer, as in the paper;
    - `sn-scale`: as `sn`, but the last layer is free and a scale of the logits is learned (a D whose every layer is
      normalised is nearly 1-Lipschitz and may stay at chance);
    - others: no normalisation.

    A suffix `+r1r2` changes nothing here: the gradient penalty is part of the step.
    """

    def __init__(self, variant: Variant, parts: Parts, regularizer: str = "sn") -> None:
        super().__init__()
        self.variant = variant
        self.trunks = nn.ModuleDict({kind: parts.trunks[kind] for kind in dict.fromkeys(variant.kinds)})
        widths = [sum(parts.trunk_dims[kind] for kind in variant.kinds), *parts.head_widths]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.LeakyReLU(parts.slope)) for a, b in pairwise(widths)]
        self.hidden, self.last = nn.Sequential(*hidden), nn.Linear(widths[-1], variant.n)
        init_normal(self.last, 0.01)
        if parts.head_std is not None:
            init_normal(self.hidden, parts.head_std)
        spectral = regularizer.removesuffix("+r1r2")
        self.log_scale = nn.Parameter(torch.zeros(())) if spectral == "sn-scale" else None
        if spectral in ("sn", "sn-scale"):
            free = self.last if spectral == "sn-scale" else None
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear) and module is not free:
                    parametrizations.spectral_norm(module)

    def forward(self, values: Mapping[Expr, Tensor]) -> Tensor:
        """Map the values of the variant's variables to logits (n, B, n); row i contains the tuples of class i."""
        # cached: one power iteration for each forward pass, however often a trunk is called
        with parametrize.cached():
            embedded = self._embed(values)
            return self._head([[embedded[e] for e in row] for row in self.variant.tuples])

    def image_trunk(self) -> nn.Module:
        """Return a copy of the trunk of images, frozen and in eval mode, whose spectral norm is part of its weights.

        Raises:
            SpecError: no image is in the variant's tuples.
        """
        if "image" not in self.trunks:
            raise SpecError(f"D of the variant {self.variant.name!r} sees no image, so it has no layers of images")
        trunk = copy.deepcopy(self.trunks["image"]).requires_grad_(False).eval()
        for module in trunk.modules():
            if parametrize.is_parametrized(module, "weight"):
                # not `remove_parametrizations`, which takes the weight from the class, and so from the trained trunk
                weight = torch.as_tensor(module.weight).detach().clone()
                module.__class__ = parametrize.type_before_parametrizations(module)
                del module.parametrizations
                module.weight = nn.Parameter(weight, requires_grad=False)
        return trunk

    def tuples(self, rows: Sequence[Sequence[Tensor]]) -> Tensor:
        """Map n tuples of m tensors to logits (n, B, n).

        The same function as `forward`, but the tuples share no tensor, so that gradients are of one tuple at a time.
        """
        with parametrize.cached():
            batch = rows[0][0].shape[0]
            embedded: list[list[Tensor]] = [[] for _ in rows]
            for slot, kind in enumerate(self.variant.kinds):
                outputs = self.trunks[kind](torch.cat([row[slot] for row in rows])).split(batch)
                for embedded_row, output in zip(embedded, outputs, strict=True):
                    embedded_row.append(output)
            return self._head(embedded)

    def _embed(self, values: Mapping[Expr, Tensor]) -> dict[Expr, Tensor]:
        """Embed each distinct variable.

        A trunk is called once for the variables that take a gradient and once for those that do not, so that the
        backward pass to G and E does not run through the latter.
        """
        groups: dict[tuple[str, bool], list[Expr]] = {}
        for e in self.variant.variables:
            groups.setdefault((e.kind, values[e].requires_grad), []).append(e)
        embedded: dict[Expr, Tensor] = {}
        for (kind, _), group in groups.items():
            outputs = self.trunks[kind](torch.cat([values[e] for e in group])).chunk(len(group))
            embedded |= zip(group, outputs, strict=True)
        return embedded

    def _head(self, embedded: Sequence[Sequence[Tensor]]) -> Tensor:
        logits: Tensor = self.last(self.hidden(torch.stack([torch.cat(list(row), 1) for row in embedded])))
        return logits if self.log_scale is None else logits * self.log_scale.exp()
