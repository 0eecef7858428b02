"""The objectives as pure functions of D's logits l (n, B, n): row = true class, column = named class.

With p = softmax(l), w_D = 2/n and w_G = 2/(n(n-1)), sums run over the classes and means over the batch. At uniform p the loss of D and the
product of terms are both 2 ln n: 1.386, 2.773, 4.159 for n = 2, 4, 8.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def chance(n: int, objective: str = "product") -> float:
    """The loss of D where it cannot tell the n classes apart: 2 ln n, like the product of terms; 2 ln 2 where it compares pairs."""
    return 2 * math.log(2 if objective == "relativistic" else n)


def discriminator_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of naming each tuple's own class, w_D sum_y mean[lse(l) - l_y] (Dandi et al. 2021, Eq. 3). Logits (n, B, n) ->
    scalar.
    """
    own = logits.diagonal(dim1=0, dim2=2)  # (B, n)
    return 2 * (logits.logsumexp(-1).T - own).mean()


def product_loss(logits: Tensor) -> Tensor:
    """Product of terms, w_G sum_y mean[(n-1) lse(l) - sum_j l_j + l_y] (Dandi et al. 2021, Eq. 4): every other class is as likely. Logits
    (n, B, n) -> scalar.
    """
    n = logits.shape[-1]
    own = logits.diagonal(dim1=0, dim2=2)
    return 2 / (n - 1) * ((n - 1) * logits.logsumexp(-1) - logits.sum(-1) + own.T).mean()


def minimax_loss(logits: Tensor) -> Tensor:
    """G and E maximise D's loss; saturates where D is sure (Goodfellow et al. 2014; Dandi et al. 2021, section 3.2). Logits (n, B, n) ->
    scalar.
    """
    return -discriminator_loss(logits)


def misclassification_loss(logits: Tensor) -> Tensor:
    """Misclassification likelihood, -w_D sum_y mean log(1 - p_y) (Dandi et al. 2021, section 3.2): any one other class will do. Logits (n,
    B, n) -> scalar.
    """
    n = logits.shape[-1]
    others = logits.masked_fill(torch.eye(n, dtype=torch.bool, device=logits.device).unsqueeze(1), float("-inf"))
    return 2 * (logits.logsumexp(-1) - others.logsumexp(-1)).mean()


def _relativistic(logits: Tensor, sign: int) -> Tensor:
    n = logits.shape[-1]
    a, b = torch.triu_indices(n, n, 1, device=logits.device)
    partner = logits.roll(1, 1)  # t_b of another image, so that a pair shares neither x nor z
    delta = (logits[a, :, a] - logits[a, :, b]) - (partner[b, :, a] - partner[b, :, b])  # (n(n-1)/2, B)
    return 2 * F.softplus(sign * delta).mean()


def relativistic_discriminator_loss(logits: Tensor) -> Tensor:
    """Mean over class pairs a < b of 2 softplus(-D_ab), D_ab = [l_a - l_b](t_a) - [l_a - l_b](t_b) with t_b from another image of the
    batch.

    n = 2 is twice the relativistic pairing GAN loss (Jolicoeur-Martineau 2019; Huang et al. 2024, R3GAN); twice, so that equality of the
    classes gives 2 ln 2 here too. Logits (n, B, n) -> scalar.
    """
    return _relativistic(logits, -1)


def relativistic_generator_loss(logits: Tensor) -> Tensor:
    """Mean over class pairs of 2 softplus(+D_ab): the same pairs as `relativistic_discriminator_loss`, the other way. Logits (n, B, n) ->
    scalar.
    """
    return _relativistic(logits, 1)


# name -> (loss of D, loss of G and E)
OBJECTIVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "product": (discriminator_loss, product_loss),
    "minimax": (discriminator_loss, minimax_loss),
    "misclassification": (discriminator_loss, misclassification_loss),
    "relativistic": (relativistic_discriminator_loss, relativistic_generator_loss),
}
