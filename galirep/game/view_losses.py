"""Losses between two views of the same images: VICReg and InfoNCE.

They are a few lines each, and their values are those of lightly 1.6 (tests/game/test_view_losses.py has the numbers).
That package is not used because it brings pytorch-lightning, hydra and aiohttp into the environment for two functions.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

# A batch of one has no variance and nothing to tell an image from; the callers' settings check it.
MIN_BATCH = 2
TEMPERATURE = 0.5

_VICREG = (25.0, 25.0, 1.0)  # invariance, variance, covariance
_STD, _EPSILON = 1.0, 1e-4


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    """Return VICReg's loss of projections (B, d) of two views (Bardes et al. 2022, Eq. 1 to 6), B at least 2.

    25 s + 25 v + c with the invariance s, the mean of (a - b)^2; the variance v, the mean of max(0, 1 - std) over the
    columns of both views; the covariance c, the sum over the two views of the squared covariances of different columns,
    by d. s and v are means over the columns and the views, as in the code published with the paper, where Eq. 5 and 6
    have sums: the weights 25, 25 and 1 belong to the means.
    """
    invariance = F.mse_loss(a, b)
    variance = (_too_narrow(a) + _too_narrow(b)) / 2
    covariance = _correlated(a) + _correlated(b)
    weight_s, weight_v, weight_c = _VICREG
    return weight_s * invariance + weight_v * variance + weight_c * covariance


def _too_narrow(z: Tensor) -> Tensor:
    """Return Eq. 1 and 2: by how much the columns' standard deviations fall short of 1, on average."""
    return F.relu(_STD - (z.var(0) + _EPSILON).sqrt()).mean()


def _correlated(z: Tensor) -> Tensor:
    """Return Eq. 3 and 4: the squared covariances of different columns, summed, by the number of columns."""
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def info_nce(a: Tensor, b: Tensor) -> Tensor:
    """Return SimCLR's NT-Xent of projections (B, d) of two views, nats (Chen et al. 2020, Eq. 1), B at least 2.

    Each of the 2 B projections tells its other view from the 2 B - 2 projections of other images by the cosine, by
    `TEMPERATURE` (the value found best for CIFAR-10 there, appendix B.9); a mean over all of them.
    """
    z = F.normalize(torch.cat([a, b]), dim=1)
    logits = z @ z.T / TEMPERATURE
    # a projection is not told from itself
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    other_view = torch.arange(len(z), device=z.device).roll(len(a))
    return F.cross_entropy(logits, other_view)


VIEW_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"vicreg": vicreg, "info-nce": info_nce}
