"""Metrics of E's posterior: KL divergence to the prior, and effective rank of features."""

import torch
from torch import Tensor


def kl_to_prior(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Return KL(N(mu, sigma^2) || N(0, I)) of each row in nats; (N, d), (N, d) -> (N,).

    In closed form: the sum over the dimensions of (mu^2 + sigma^2 - 1)/2 - log sigma.
    """
    return ((mu.square() + (2 * log_sigma).exp() - 1) / 2 - log_sigma).sum(1)


def effective_rank(features: Tensor) -> float:
    """Return the effective rank of features (N, d): exp of the entropy of the covariance's normalised eigenvalues.

    From 1 to min(N - 1, d); 0 where all rows are equal, NaN where a value is not finite. Roy & Vetterli (2007) define
    it on singular values; here it is of the spectrum of the covariance.
    """
    centred = features.double() - features.double().mean(0)
    if not bool(centred.isfinite().all()):
        return float("nan")
    # of the covariance (d, d) and the Gram matrix (N, N) the smaller one: their nonzero eigenvalues are the same
    gram = centred.T @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.T
    eigenvalues = torch.linalg.eigvalsh(gram.cpu()).clamp_min(0)
    if not float(eigenvalues.sum()):
        return 0.0
    return float(torch.special.entr(eigenvalues / eigenvalues.sum()).sum().exp())
