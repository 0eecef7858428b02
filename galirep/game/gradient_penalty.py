"""D's gradient penalty: R1 + R2 (Mescheder et al. 2018; Huang et al. 2024) for n classes of tuples."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from galirep.data.tensors import as_float32
from galirep.game.discriminator import Discriminator
from galirep.game.expression import Expr


def add_gradient_penalty(
    d: Discriminator,
    leaves: Mapping[Expr, Tensor],
    gamma: float,
    *,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Tensor:
    """Add the gradient of a zero-centred penalty to `.grad` of D's weights; return the penalty.

    gamma/n sum_y mean ||grad psi_y(t_y)||^2 over the images and latents of each class's own tuple, with psi_y = l_y -
    mean_{j != y} l_j. For n = 2 it is gamma/2 (R1 + R2) (Mescheder et al. 2018; Huang et al. 2024) of the difference of
    the logits.
    """
    # the tuples share no tensor, so that each gradient is of one class
    rows = [[leaves[e].detach().clone().requires_grad_() for e in row] for row in d.variant.tuples]
    with autocast():
        logits = as_float32(d.tuples(rows))
    n = len(rows)
    l_y = logits.diagonal(dim1=0, dim2=2).T  # (n, B)
    psi = l_y - (logits.sum(-1) - l_y) / (n - 1)
    inputs = [leaf for row in rows for leaf, kind in zip(row, d.variant.kinds, strict=True) if kind != "features"]
    gradients = torch.autograd.grad(psi.sum(), inputs, create_graph=True)
    penalty = gamma / n * torch.stack([as_float32(g).square().sum() / g.shape[0] for g in gradients]).sum()
    weights = list(d.parameters())
    for p, g in zip(weights, torch.autograd.grad(scale(penalty), weights, allow_unused=True), strict=True):
        if g is not None and p.grad is not None:
            p.grad += g
    return penalty.detach()
