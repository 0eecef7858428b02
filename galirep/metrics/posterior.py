"""Measures of E's posterior."""

import torch
from torch import Tensor


def kl_to_prior(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, I)) = sum over the dimensions of (mu^2 + sigma^2 - 1)/2 - log sigma, nats. (N, d) each -> (N,)."""
    return ((mu.square() + (2 * log_sigma).exp() - 1) / 2 - log_sigma).sum(1)


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised eigenvalues of the covariance (Roy & Vetterli 2007, of the spectrum of the covariance): 1 to
    min(N - 1, d) for features (N, d), 0 where all rows are equal, NaN where they are not finite.
    """
    centred = features.double() - features.double().mean(0)
    if not bool(centred.isfinite().all()):
        return float("nan")
    gram = (
        centred.T @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.T
    )  # their nonzero eigenvalues are the same
    values = torch.linalg.eigvalsh(gram.cpu()).clamp_min(0)
    if not float(values.sum()):
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())
