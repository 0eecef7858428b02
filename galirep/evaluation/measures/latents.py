"""`posterior`: E's posterior against the prior, and the cycle z -> G -> mu."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from galirep.errors import DataError
from galirep.evaluation.measures.scene import Measure, Scene, Score
from galirep.metrics.posterior import kl_to_prior, summarize_posterior
from galirep.networks.parts import LOG_SIGMA_RANGE

_CYCLES = 10_000  # draws of z, at most


@torch.inference_mode()
def _posterior(scene: Scene) -> Score:
    posterior, generate = scene.need("posterior"), scene.need("generate")
    parts = [tuple(part.float().cpu() for part in posterior(x)) for x in scene.blocks("posterior")]
    mu, log_sigma = (torch.cat(part) for part in zip(*parts, strict=True))
    if not bool(mu.isfinite().all()):
        raise DataError(f"{scene.subject.name}: {int((~mu.isfinite()).any(1).sum())} rows of mu are NaN or infinite")
    summary = dataclasses.asdict(summarize_posterior(mu, log_sigma, LOG_SIGMA_RANGE))
    kl = kl_to_prior(mu, log_sigma).double().numpy()
    count = _plan(scene)["cycles"]
    cycle = torch.cat(
        [(posterior(generate(z))[0] - z).double().square().mean(1).cpu() for z in scene.latents(count, "z")]
    )
    details = {
        **summary,
        "dimensions": mu.shape[1],
        "latent_cycle": {"mean": float(cycle.mean()), "std": float(cycle.std()), "n": count},
    }
    std = float(kl.std(ddof=1)) if len(kl) > 1 else None
    return Score(float(kl.mean()), std, "images", len(kl), details, {"mu": mu.numpy(), "kl": kl})


def _plan(scene: Scene) -> dict[str, Any]:
    return {"seed": scene.options.seed, "cycles": max(2, min(_CYCLES, len(scene.source)))}


def _line(entry: Mapping[str, Any]) -> str:
    return (
        f"KL {entry['mean']:.1f} nats of {entry['dimensions']} dimensions; mu: variance {entry['mu_variance']:.3f}, "
        f"rank {entry['mu_rank']:.1f}; sigma {entry['sigma']:.3f}; aggregate: mean {entry['aggregate_mean']:.3f}, "
        f"variance {entry['aggregate_variance']:.3f}; mu(G(z)) against z {entry['latent_cycle']['mean']:.3f}"
    )


POSTERIOR = Measure(
    "KL, mean and variance of the posterior against the prior; mu(G(z)) against z",
    ("posterior", "generate"),
    _plan,
    _posterior,
    _line,
    True,
)
