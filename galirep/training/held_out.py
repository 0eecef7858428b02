"""Evaluation on training images kept out of training: reconstruction, posterior, features."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from galirep.data.batches import Batches
from galirep.data.memory import Images
from galirep.metrics.arrays import Ints
from galirep.metrics.neighbors import TEMPERATURE, K, LabelledFeatures, vote_errors
from galirep.metrics.posterior import effective_rank, summarize_posterior
from galirep.metrics.reconstruction import latent_mse, pixel_mse
from galirep.networks.layers import PAPER, LayerReader, LoadTrunk
from galirep.networks.parts import LOG_SIGMA_RANGE, Encoder, Shapes
from galirep.runs.metrics import Evaluation

_MAX_HELD_OUT = 1000  # where no number is set
_ONE_IN = 10  # images held out of a set with fewer than ten times as many
_GALLERY = 2000  # training images that vote on the class of a held-out one
_LATENTS, _LATENT_BLOCK = 1024, 256  # from the prior, that the cycle error is of
_AVERAGED = 4096  # training images that the mean image is made of, at most


def default_count(n: int, batch_size: int) -> int:
    """Return how many of n images are held out by default: 1000, at most a tenth, and never what a batch needs."""
    return max(0, min(_MAX_HELD_OUT, n // _ONE_IN, n - batch_size))


def split_rows(n: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the rows of n images to train on and the `count` held out, ascending; the same in every run."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(n))
    return order[count:].sort().values, order[:count].sort().values


class HeldOut:
    """Evaluation on the held-out `rows` of `images`; `batches` hands out the others, the rows `trained_on`.

    Labels, where the set has them, serve the nearest-neighbour error on `layers` alone; no network ever sees them.
    """

    def __init__(
        self, images: Images, rows: Tensor, trained_on: Tensor, batches: Batches, layers: Sequence[str] = (PAPER,)
    ) -> None:
        self.layers = layers
        pixels = images.tensor()[rows]
        self._held = Batches(pixels, 1, 0, batches.device)
        self._batches, self._gallery = batches, batches.evenly_spaced(_GALLERY)
        self._labels = self._gallery_labels = np.empty(0, np.int64)
        if images.labels is not None:
            self._labels = images.labels[rows.numpy()]
            self._gallery_labels = images.labels[trained_on[self._gallery].numpy()]
        averaged = batches.evenly_spaced(_AVERAGED)
        mean = torch.stack([x.double().sum(0) for x in batches.blocks(averaged)]).sum(0)
        self._mean = (mean / len(averaged)).float()
        self._mean_image_mse = pixel_mse((x, self._mean.expand_as(x)) for x in self._held.blocks())

    @property
    def labelled(self) -> bool:
        """True if some held-out image and some training image have labels, so that the kNN error can be measured."""
        return bool((self._labels >= 0).any() and (self._gallery_labels >= 0).any())

    @torch.no_grad()
    def evaluate(self, encoder: nn.Module, generator: nn.Module, trunk: LoadTrunk | None = None) -> Evaluation:
        """Measure E and G, which are in eval mode; every evaluation takes the same images and latents.

        `trunk` is D's image trunk, for layers of D.

        Raises:
            PluginError: the networks lack one of the layers.
        """
        read = self.reader(encoder, trunk)
        assert isinstance(encoder, Encoder)
        blocks = list(self._held.blocks())
        posterior = [encoder(x) for x in blocks]
        mu, log_sigma = (torch.cat(part).float() for part in zip(*posterior, strict=True))
        layers = [read(x) for x in blocks]
        name = read.hidden[-1]
        hidden = layers if name in read.widths else [encoder.layers(x) for x in blocks]
        last_hidden = torch.cat([outputs[name] for outputs in hidden]).float()
        summary = summarize_posterior(mu, log_sigma, LOG_SIGMA_RANGE)
        rebuilt = ((x, generator(m).float()) for x, (m, _) in zip(blocks, posterior, strict=True))
        return Evaluation(
            images=len(mu),
            pixel_mse=pixel_mse(rebuilt),
            mean_image_mse=self._mean_image_mse,
            mu_variance=summary.mu_variance,
            sigma=summary.sigma,
            mu_rank=summary.mu_rank,
            kl=summary.kl,
            aggregate_mean=summary.aggregate_mean,
            aggregate_variance=summary.aggregate_variance,
            sigma_at_bounds=summary.sigma_at_bounds,
            feature_rank=effective_rank(last_hidden),
            knn_error=self._knn_error(read, layers) if self.labelled else None,
            latent_mse=self._latent_mse(encoder, generator),
        )

    def _latent_mse(self, encoder: Encoder, generator: nn.Module) -> float:
        """Return the error of mu(G(z)) for the same z from the prior at every evaluation."""
        z = torch.randn(_LATENTS, encoder.latent, generator=torch.Generator().manual_seed(0))
        blocks = torch.split(z.to(self._held.device), _LATENT_BLOCK)
        return latent_mse((z, encoder(generator(z))[0].float()) for z in blocks)

    def reader(self, encoder: nn.Module, trunk: LoadTrunk | None) -> LayerReader:
        """Return what reads the layers of the nearest-neighbour error; raise PluginError if the networks lack one."""
        assert isinstance(encoder, Encoder)
        shapes = Shapes(self._mean.shape[-1], self._mean.shape[0], encoder.latent)
        return LayerReader(encoder, shapes, self.layers, what="evaluate_layers", trunk=trunk)

    def _knn_error(self, read: LayerReader, layers: list[dict[str, Tensor]]) -> float:
        """Return the share of held-out images that the nearest training images vote into another class."""
        train = _labelled([_features(read(x)) for x in self._batches.blocks(self._gallery)], self._gallery_labels)
        held_out = _labelled([_features(outputs) for outputs in layers], self._labels)
        k = min(K, len(train[1]))
        return vote_errors(train, held_out, [k], TEMPERATURE)[k]


def _features(layers: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.float() for value in layers.values()], 1)


def _labelled(features: list[Tensor], labels: Ints) -> LabelledFeatures:
    return torch.cat(features).cpu().numpy()[labels >= 0], labels[labels >= 0]
