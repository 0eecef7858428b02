"""The objectives as sums of cross-entropies and loops over classes: slow references of galirep.game.objectives.

Logits are (n, B, n): row = true class, column = named class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator(logits: Tensor) -> Tensor:
    """Sum n cross-entropies, each with its own class as target, weight 2/n."""
    n, batch, _ = logits.shape
    return 2 / n * sum(F.cross_entropy(logits[y], torch.full((batch,), y)) for y in range(n))


def product(logits: Tensor) -> Tensor:
    """Sum n(n-1) cross-entropies, each class with every other class as target, weight 2/(n(n-1))."""
    n, batch, _ = logits.shape
    terms = [F.cross_entropy(logits[y], torch.full((batch,), j)) for y in range(n) for j in range(n) if j != y]
    assert len(terms) == n * (n - 1)
    return 2 / (n * (n - 1)) * sum(terms)


def misclassification(logits: Tensor) -> Tensor:
    """Sum -log(1 - p_y) of each class, weight 2/n."""
    n = len(logits)
    return -2 / n * sum(torch.log(1 - logits[y].softmax(-1)[:, y]).mean() for y in range(n))


def relativistic(logits: Tensor, sign: int) -> Tensor:
    """Return the mean over class pairs a < b and images i of 2 log(1 + exp(sign D)); the tuple of b is of image i-1."""
    n, batch, _ = logits.shape
    terms = []
    for a in range(n):
        for b in range(a + 1, n):
            for i in range(batch):
                t_a, t_b = logits[a, i], logits[b, (i - 1) % batch]
                delta = (t_a[a] - t_a[b]) - (t_b[a] - t_b[b])
                terms.append(2 * torch.log1p(torch.exp(sign * delta)))
    return torch.stack(terms).mean()
