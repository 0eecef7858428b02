"""The objectives as pure functions of D's logits l (n, B, n): row = true class, column = named class.

With p = softmax(l), w_D = 2/n and w_G = 2/(n(n-1)), sums run over the classes and means over the batch. At uniform p
the loss of D and the product of terms are both 2 ln n: 1.386, 2.773, 4.159 for n = 2, 4, 8.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Chance(NamedTuple):
    """The losses of D (`d`) and of G and E (`g`) where D cannot tell the classes apart."""

    d: float
    g: float


def chance(n: int, objective: str = "product") -> Chance:
    """Return the losses of an objective at equal logits of the n classes.

    D's is 2 ln n, and 2 ln 2 for `relativistic`, which compares pairs; that of G and E is the same, but -2 ln n for
    `minimax` and 2 ln(n / (n - 1)) for `misclassification`.
    """
    # two images, since `relativistic` compares each with another; float64, since the numbers are shown
    equal = torch.zeros(n, 2, n, dtype=torch.float64)
    return Chance(*(float(loss(equal)) for loss in OBJECTIVES[objective]))


def discriminator_loss(logits: Tensor) -> Tensor:
    """Return the cross-entropy of naming each tuple's own class; (n, B, n) -> scalar.

    w_D sum_y mean[lse(l) - l_y] (Dandi et al. 2021, Eq. 3).
    """
    l_y = logits.diagonal(dim1=0, dim2=2)  # (B, n)
    return 2 * (logits.logsumexp(-1).T - l_y).mean()


def product_loss(logits: Tensor) -> Tensor:
    """Return the product of terms, in which every other class is a target for G and E; (n, B, n) -> scalar.

    w_G sum_y mean[(n-1) lse(l) - sum_j l_j + l_y] (Dandi et al. 2021, Eq. 4).
    """
    n = logits.shape[-1]
    l_y = logits.diagonal(dim1=0, dim2=2)  # (B, n)
    return 2 / (n - 1) * ((n - 1) * logits.logsumexp(-1) - logits.sum(-1) + l_y.T).mean()


def minimax_loss(logits: Tensor) -> Tensor:
    """Return minus D's loss, which saturates where D is certain; (n, B, n) -> scalar.

    Goodfellow et al. (2014); Dandi et al. (2021, section 3.2).
    """
    return -discriminator_loss(logits)


def misclassification_loss(logits: Tensor) -> Tensor:
    """Return the misclassification likelihood, which any one other class satisfies; (n, B, n) -> scalar.

    -w_D sum_y mean log(1 - p_y) (Dandi et al. 2021, section 3.2).
    """
    n = logits.shape[-1]
    others = logits.masked_fill(torch.eye(n, dtype=torch.bool, device=logits.device).unsqueeze(1), float("-inf"))
    return 2 * (logits.logsumexp(-1) - others.logsumexp(-1)).mean()


def relativistic_discriminator_loss(logits: Tensor) -> Tensor:
    """Return the mean over class pairs a < b of 2 softplus(-D_ab); (n, B, n) -> scalar.

    D_ab = [l_a - l_b](t_a) - [l_a - l_b](t_b), with t_b from another image of the batch. For n = 2 it is twice the
    relativistic pairing GAN loss (Jolicoeur-Martineau 2019; Huang et al. 2024, R3GAN); twice, so that indistinguishable
    classes give 2 ln 2 here too.
    """
    return _relativistic(logits, -1)


def relativistic_generator_loss(logits: Tensor) -> Tensor:
    """Return the mean over class pairs a < b of 2 softplus(+D_ab); (n, B, n) -> scalar.

    D_ab is that of `relativistic_discriminator_loss`.
    """
    return _relativistic(logits, 1)


def _relativistic(logits: Tensor, sign: int) -> Tensor:
    n = logits.shape[-1]
    a, b = torch.triu_indices(n, n, 1, device=logits.device)
    partner = logits.roll(1, 1)  # t_b of another image, so that a pair shares neither x nor z
    delta = (logits[a, :, a] - logits[a, :, b]) - (partner[b, :, a] - partner[b, :, b])  # D_ab: (n(n-1)/2, B)
    return 2 * F.softplus(sign * delta).mean()


# name -> (loss of D, loss of G and E)
OBJECTIVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "product": (discriminator_loss, product_loss),
    "minimax": (discriminator_loss, minimax_loss),
    "misclassification": (discriminator_loss, misclassification_loss),
    "relativistic": (relativistic_discriminator_loss, relativistic_generator_loss),
}

MULTIPLES = {"relativistic": 2.0}
"""Objectives that are a multiple of the published loss; D's gradient penalty is that much stronger.

So its weight gamma means what it means there.
"""
