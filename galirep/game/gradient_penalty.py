"""D's gradient penalty: R1 + R2 (Mescheder et al. 2018; Huang et al. 2024) for n classes of tuples."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from galirep.data.tensors import as_float32
from galirep.game.discriminator import Discriminator
from galirep.game.expression import Expr

Scale = Callable[[Tensor], Tensor]


def logit_differences(logits: Tensor, on: str, generator: torch.Generator | None = None) -> list[Tensor]:
    """Return the differences psi (n, B) of D's logits (n, B, n) whose squared gradients are averaged.

    - `mean`: one, the tuple's own logit less the mean of the others: l_a - mean_{b != a} l_b;
    - `pairs`: one, l_a - l_b with another class b drawn uniformly for each tuple of the batch;
    - `all-pairs`: n - 1, l_a - l_b with each other class b, which `pairs` has the expectation of.

    For n = 2 they are the same.
    """
    n = len(logits)
    own = logits.diagonal(dim1=0, dim2=2).T  # (n, B)
    if on == "mean":
        return [own - (logits.sum(-1) - own) / (n - 1)]
    if on == "pairs":
        offsets = [torch.randint(1, n, own.shape, generator=generator, device=logits.device)]
    else:
        offsets = [torch.full(own.shape, k, device=logits.device) for k in range(1, n)]
    own_class = torch.arange(n, device=logits.device).unsqueeze(1)
    others = [((own_class + offset) % n).unsqueeze(-1) for offset in offsets]
    return [own - logits.gather(-1, b).squeeze(-1) for b in others]


def gradient_penalty(
    logits: Tensor, inputs: Sequence[Tensor], gamma: float, on: str, generator: torch.Generator | None = None
) -> Tensor:
    """Return gamma/n sum_a mean ||grad psi_a(t_a)||^2, which can be differentiated; the mean is over psi and the batch.

    `logits` (n, B, n) are those of n tuples that share no tensor, `inputs` the tensors (B, ...) of the tuples that the
    gradients are of. With psi = l_a - l_b it is, for n = 2, gamma/2 (R1 + R2) of the difference of the logits, and for
    n > 2 the mean of that over the pairs of classes.
    """
    differences = logit_differences(logits, on, generator)
    terms = []
    for psi in differences:
        gradients = torch.autograd.grad(psi.sum(), inputs, create_graph=True)
        terms += [as_float32(g).square().sum() / g.shape[0] for g in gradients]
    return gamma / (len(logits) * len(differences)) * torch.stack(terms).sum()


def add_gradient_penalty(
    d: Discriminator,
    leaves: Mapping[Expr, Tensor],
    gamma: float,
    generator: torch.Generator,
    *,
    on: str = "mean",
    features: bool = False,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    scale: Scale = lambda loss: loss,
) -> Tensor:
    """Add the gradient of `gradient_penalty` to `.grad` of D's weights; return the penalty.

    It is of the images and latents of each class's own tuple and, with `features`, of M's features too, taken as they
    come: what D reads through M is then smooth in the features, not in the images that they are of.
    """
    # the tuples share no tensor, so that each gradient is of one class
    rows = [[leaves[e].detach().clone().requires_grad_() for e in row] for row in d.variant.tuples]
    with autocast():
        logits = as_float32(d.tuples(rows))
    kinds = d.variant.kinds
    inputs = [leaf for row in rows for leaf, kind in zip(row, kinds, strict=True) if features or kind != "features"]
    penalty = gradient_penalty(logits, inputs, gamma, on, generator)
    weights = list(d.parameters())
    for p, g in zip(weights, torch.autograd.grad(scale(penalty), weights, allow_unused=True), strict=True):
        if g is not None and p.grad is not None:
            p.grad += g
    return penalty.detach()
