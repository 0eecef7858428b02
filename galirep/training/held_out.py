"""Training images kept out of training, and what the averaged networks make of them: reconstruction, posterior, features."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from galirep.data.batches import Batches
from galirep.data.memory import Images
from galirep.features.gali import DEFAULT_LAYERS
from galirep.metrics.neighbors import TEMPERATURE, K, LabelledFeatures, vote_errors
from galirep.metrics.posterior import effective_rank, kl_to_prior
from galirep.metrics.reconstruction import pixel_mse
from galirep.networks.parts import LOG_SIGMA_RANGE, Encoder

MOST = 1000
"""Images that are held out where the set has ten times as many and no number is named."""
_SHARE = 10  # ... else one of so many
_GALLERY = 2000  # training images that vote on the class of a held-out one
_MEAN = 4096  # training images that the mean image is made of, at most


def default_count(n: int, batch_size: int) -> int:
    """How many of n training images are held out where no number is named: `MOST`, at most a tenth, and never what a batch needs."""
    return max(0, min(MOST, n // _SHARE, n - batch_size))


def split_rows(n: int, count: int) -> tuple[Tensor, Tensor]:
    """The rows of n images to train on and the `count` held out, each in ascending order; the same for every run on as many images."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(n))
    return order[count:].sort().values, order[:count].sort().values


class HeldOut:
    """Evaluation on the held-out `rows` of `images`; `batches` hands out the others, `trained_on`.

    Labels, where the set has them, serve only the nearest-neighbour check here; no network ever sees them.
    """

    def __init__(self, images: Images, rows: Tensor, trained_on: Tensor, batches: Batches) -> None:
        pixels = images.tensor()[rows]
        self._held = Batches(pixels, 1, 0, batches.device)
        self._batches, self._gallery = batches, batches.evenly_spaced(_GALLERY)
        self._labels = self._gallery_labels = np.empty(0, np.int64)
        if images.labels is not None:
            self._labels, self._gallery_labels = (
                images.labels[rows.numpy()],
                images.labels[trained_on[self._gallery].numpy()],
            )
        averaged = batches.evenly_spaced(_MEAN)
        mean = torch.stack([x.double().sum(0) for x in batches.blocks(averaged)]).sum(0)
        self._mean = (mean / len(averaged)).float()
        self._floor = pixel_mse((x, self._mean.expand_as(x)) for x in self._held.blocks())

    @property
    def labelled(self) -> bool:
        """Whether the nearest-neighbour check can be made: some held-out image and some of the gallery have labels."""
        return bool((self._labels >= 0).any() and (self._gallery_labels >= 0).any())

    @torch.no_grad()
    def evaluate(self, encoder: nn.Module, generator: nn.Module) -> dict[str, Any]:
        """Measures of E and G in eval mode, as plain numbers; nothing here is random.

        `pixel_mse` of G(mu(x)) and `mean_image_mse` of the training images' mean, both in [0, 1]; of the posterior `mu_variance` and
        `sigma` (means over the dimensions), `mu_rank`, `kl` to the prior (nats an image), `aggregate_mean` (root mean square over the
        dimensions) and `aggregate_variance` of the posterior of all images together (the prior's are 0 and 1), and `sigma_at_bounds`, the
        share of log sigma at a bound of `LOG_SIGMA_RANGE`; `feature_rank` of the last hidden layer; `knn_error` where there are labels.
        """
        assert isinstance(encoder, Encoder)
        blocks = list(self._held.blocks())
        posterior = [encoder(x) for x in blocks]
        mu, log_sigma = (torch.cat(part).float() for part in zip(*posterior, strict=True))
        layers = [_features(encoder, x) for x in blocks]
        hidden = torch.cat([parts[-2] for parts in layers])
        variance, sigma = mu.var(0, correction=0), log_sigma.exp()
        low, high = LOG_SIGMA_RANGE
        out: dict[str, Any] = {
            "images": len(mu),
            "pixel_mse": pixel_mse((x, generator(m).float()) for x, (m, _) in zip(blocks, posterior, strict=True)),
            "mean_image_mse": self._floor,
            "mu_variance": float(variance.mean()),
            "sigma": float(sigma.mean()),
            "mu_rank": effective_rank(mu),
            "kl": float(kl_to_prior(mu, log_sigma).mean()),
            "aggregate_mean": float(mu.mean(0).square().mean().sqrt()),
            "aggregate_variance": float((variance + sigma.square().mean(0)).mean()),
            "sigma_at_bounds": float(((log_sigma <= low) | (log_sigma >= high)).float().mean()),
            "feature_rank": effective_rank(hidden),
        }
        if self.labelled:
            gallery = [torch.cat(_features(encoder, x), 1) for x in self._batches.blocks(self._gallery)]
            known = _labelled(gallery, self._gallery_labels)
            queries = _labelled([torch.cat(parts, 1) for parts in layers], self._labels)
            k = min(K, len(known[1]))
            out["knn_error"] = vote_errors(known, queries, [k], TEMPERATURE)[k]
        return out


def _features(encoder: Encoder, images: Tensor) -> list[Tensor]:
    """The layers that `GaliEncoder` gives unless others are named, mu last."""
    return [value.float() for value in list(encoder.layers(images).values())[-DEFAULT_LAYERS:]]


def _labelled(features: list[Tensor], labels: "np.ndarray[Any, np.dtype[np.int64]]") -> LabelledFeatures:
    return torch.cat(features).cpu().numpy()[labels >= 0], labels[labels >= 0]
