"""Metrics of E's posterior: KL divergence to the prior, and effective rank of features."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PosteriorSummary:
    """What E's posterior is like over a set of images.

    Attributes:
        mu_variance: of mu over the images, the mean over the dimensions.
        sigma: its mean.
        mu_rank: effective rank of mu.
        kl: KL divergence to the prior in nats, the mean over the images.
        aggregate_mean: of the aggregate posterior (prior 0), root mean square over the dimensions.
        aggregate_variance: likewise (prior 1), mean over the dimensions.
        aggregate_kl: KL divergence to the prior of the Gaussian with the aggregate's means and variances, in nats.
        sigma_at_bounds: share of log sigma that stands at its bounds.
    """

    mu_variance: float
    sigma: float
    mu_rank: float
    kl: float
    aggregate_mean: float
    aggregate_variance: float
    aggregate_kl: float
    sigma_at_bounds: float


def summarize_posterior(mu: Tensor, log_sigma: Tensor, bounds: tuple[float, float]) -> PosteriorSummary:
    """Summarise the posteriors of N images, (N, d) and (N, d); `bounds` are those that log sigma is clamped to."""
    variance, sigma = mu.var(0, correction=0), log_sigma.exp()
    mean, aggregate = mu.mean(0), variance + sigma.square().mean(0)
    low, high = bounds
    return PosteriorSummary(
        mu_variance=float(variance.mean()),
        sigma=float(sigma.mean()),
        mu_rank=effective_rank(mu),
        kl=float(kl_to_prior(mu, log_sigma).mean()),
        aggregate_mean=float(mean.square().mean().sqrt()),
        aggregate_variance=float(aggregate.mean()),
        aggregate_kl=float(kl_to_prior(mean[None], aggregate.log()[None] / 2).item()),
        sigma_at_bounds=float(((log_sigma <= low) | (log_sigma >= high)).float().mean()),
    )


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
