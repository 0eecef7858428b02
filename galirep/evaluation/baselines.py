"""Baselines that an encoder has to beat: from the mean image to an encoder that inverts a finished generator."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galirep.data.tensors import ImageFunction, to_float
from galirep.errors import ConfigError
from galirep.features.protocol import FeatureExtractor
from galirep.features.registry import load_extractor
from galirep.networks.families import family
from galirep.networks.parts import Encoder, Generator, Parts, Shapes

Pixels = NDArray[np.uint8]
_BATCH = 64
_PCA_IMAGES = 10_000  # training images that PCA is fitted on, about


@dataclass(frozen=True)
class Baseline:
    """Functions of images (B, C, S, S) in [-1, 1] on the CPU; None where the baseline has no such function.

    `extract` gives features, to be flattened to (B, D); `rebuild` gives reconstructions (B, C, S, S).
    """

    extract: ImageFunction | None = None
    rebuild: ImageFunction | None = None


@dataclass(frozen=True)
class Autoencoder:
    """An E and G in eval mode, of which E or both were trained here, and the number of updates."""

    encoder: Encoder
    generator: Generator
    updates: int


def mean_image(pixels: Pixels) -> Baseline:
    """Reconstruct every image as the mean of the training images `pixels` (N, C, S, S) uint8."""
    mean = _mean(pixels)
    return Baseline(rebuild=lambda x: mean.expand_as(x))


def raw_pixels() -> Baseline:
    """Take the pixels as features."""
    return Baseline(extract=torch.nn.Identity())


def fit_pca(pixels: Pixels, components: int) -> Baseline:
    """Fit a principal component analysis to training images (N, C, S, S) uint8, evenly spread where there are many.

    Features are the coordinates (B, components), reconstructions the projections.

    Raises:
        ConfigError: `components` is below 1, or above the number of images or of their pixels.
    """
    flat = to_float(torch.from_numpy(pixels[:: max(1, len(pixels) // _PCA_IMAGES)])).flatten(1)
    if not 1 <= components <= min(flat.shape):
        raise ConfigError(f"{components} components of PCA: expected 1 to {min(flat.shape)} for {tuple(flat.shape)}")
    mean = flat.mean(0)
    axes: Tensor = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:components].T

    def extract(x: Tensor) -> Tensor:
        return (x.flatten(1) - mean) @ axes

    return Baseline(extract, lambda x: (extract(x) @ axes.T + mean).view_as(x))


def untrained(
    networks: str, size: int, channels: int, *, seed: int = 0, layers: Sequence[str] | None = None
) -> FeatureExtractor:
    """Return the untrained encoder of a network family; `layers` defaults to those that `galirep embed` takes.

    Raises:
        ConfigError: unknown networks, or a size they do not take.
        PluginError: an unknown layer.
    """
    return load_extractor(f"random:{networks},size={size},channels={channels},seed={seed}", layers=layers)


def train_autoencoder(
    pixels: Pixels,
    networks: str = "compact",
    *,
    width: int = 32,
    latent: int | None = None,
    minutes: float | None = None,
    updates: int | None = None,
    seed: int = 0,
) -> Autoencoder:
    """Train the E and G of a network family on the squared error of G(mu(x)) alone, on images (N, C, S, S) uint8.

    Adam at 1e-3, batches of 64, a cosine to 0 over the budget: CPU `minutes` of this process, or `updates`. The CPU is
    used throughout; torch's global seed stays as it was.

    Raises:
        ConfigError: not exactly one budget above 0, unknown networks, or a size they do not take.
    """
    budget = _Budget(minutes, updates)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _build(networks, pixels.shape, width, latent)
    encoder, generator = parts.encoder, parts.generator
    generator.start_from(_mean(pixels))
    random = np.random.default_rng(seed)

    def loss() -> Tensor:
        x = to_float(torch.from_numpy(pixels[random.integers(0, len(pixels), _BATCH)]))
        error: Tensor = (generator(encoder(x)[0]) - x).square().mean()
        return error

    steps = _minimize(loss, [*encoder.parameters(), *generator.parameters()], budget)
    return Autoencoder(encoder.eval(), generator.eval(), steps)


def train_inverter(
    generator: Generator,
    shapes: Shapes,
    networks: str = "compact",
    *,
    minutes: float | None = None,
    updates: int | None = None,
    seed: int = 0,
) -> Autoencoder:
    """Train the E of a network family to invert a finished G of these shapes, on samples alone.

    E maximises the likelihood of z under its posterior of G(z), for z of the prior (the latent regressor of Donahue et
    al. 2017, section 4, with the Gaussian posterior of ALI): what is learned without the game. Optimizer, budget and
    device are those of `train_autoencoder`.

    Raises:
        ConfigError: not exactly one budget above 0, unknown networks, or a size they do not take.
    """
    budget = _Budget(minutes, updates)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = family(networks, shapes.size)[1].build(shapes).encoder
    random = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        z = torch.randn(_BATCH, shapes.latent, generator=random)
        with torch.no_grad():
            x = generator(z)
        mu, log_sigma = encoder(x)
        loss: Tensor = (log_sigma + ((z - mu) * torch.exp(-log_sigma)).square() / 2).sum(1).mean()
        return loss

    steps = _minimize(loss, list(encoder.parameters()), budget)
    return Autoencoder(encoder.eval(), generator, steps)


class _Budget:
    """CPU minutes of this process, or updates: which share of it is spent."""

    def __init__(self, minutes: float | None, updates: int | None) -> None:
        budget = updates if minutes is None else minutes
        if (minutes is None) == (updates is None) or budget is None or budget <= 0:
            raise ConfigError(f"minutes {minutes} and updates {updates}: give exactly one of them, above 0")
        self._budget, self._minutes = budget, minutes
        self._start = time.process_time()

    def spent(self, updates: int) -> float:
        """Return the share spent, of 1, after so many updates."""
        return (updates if self._minutes is None else (time.process_time() - self._start) / 60) / self._budget


def _minimize(loss: Callable[[], Tensor], parameters: list[nn.Parameter], budget: _Budget) -> int:
    """Run Adam at 1e-3, on a cosine to 0 over the budget; return the number of updates."""
    optimizer = torch.optim.Adam(parameters)
    step = 0
    while (share := budget.spent(step)) < 1:
        optimizer.param_groups[0]["lr"] = 5e-4 * (1 + np.cos(np.pi * share))
        value = loss()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
    return step


def _build(networks: str, shape: Sequence[int], width: int, latent: int | None) -> Parts:
    _, channels, size, _ = shape
    _, chosen = family(networks, size)
    return chosen.build(Shapes(size, channels, latent or chosen.latent, width))


def _mean(pixels: Pixels) -> Tensor:
    """Return the mean image (C, S, S) in [-1, 1]."""
    return torch.from_numpy(pixels).float().mean(0) / 127.5 - 1
