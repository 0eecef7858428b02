"""`load_generator`: the generator of a run in Python: samples of the prior, images of latents, paths between them."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from galirep.data.tensors import BLOCK
from galirep.errors import ConfigError, DataError, unknown
from galirep.evaluation.pictures.latent_paths import PATHS, walk
from galirep.networks.parts import Generator
from galirep.networks.saved import load_network
from galirep.system.devices import device_of
from galirep.system.settings import require_whole


class LoadedGenerator:
    """G of a run, averaged, in eval mode; images are (N, C, S, S) float32 in [-1, 1] on its device.

    Attributes:
        latent: dimensions of z.
        image_size: S.
        channels: C.
        header: what the export records: variant, step, data, settings.
    """

    def __init__(self, network: Generator, header: dict[str, Any], device: torch.device) -> None:
        self.network, self.header, self.device = network, header, device
        shapes = header["shapes"]
        self.latent, self.image_size, self.channels = shapes["latent"], shapes["size"], shapes["channels"]

    def noise(self, count: int, seed: int = 0) -> Tensor:
        """Return `count` draws of z ~ N(0, I), (count, latent), on the CPU; the seed decides them.

        Raises:
            ConfigError: `count` is no whole number or below 1, or `seed` none or below 0.
        """
        require_whole("count", count, 1)
        require_whole("seed", seed, 0)
        return torch.randn(count, self.latent, generator=torch.Generator().manual_seed(seed))

    def sample(self, count: int = 64, seed: int = 0) -> Tensor:
        """Return G(z) of `noise(count, seed)`: the images that `galirep sample` shows for the same count and seed."""
        return self.decode(self.noise(count, seed))

    def decode(self, z: Tensor | ArrayLike) -> Tensor:
        """Return G(z) of latents (N, latent), such as `mu` columns of an embedding file.

        Raises:
            DataError: `z` has another shape, or values that are not finite.
        """
        latents = torch.as_tensor(z, dtype=torch.float32)
        if latents.ndim != 2 or latents.shape[1] != self.latent:
            raise DataError(f"latents of shape {tuple(latents.shape)}: this generator takes (N, {self.latent})")
        if not bool(latents.isfinite().all()):
            raise DataError("latents have values that are NaN or infinite")
        with torch.inference_mode():
            parts = [self.network(part) for part in torch.split(latents.to(self.device), BLOCK)]
        return torch.cat(parts) if parts else torch.empty(0, self.channels, self.image_size, self.image_size)

    def interpolate(self, a: Tensor | ArrayLike, b: Tensor | ArrayLike, steps: int = 8, path: str = "linear") -> Tensor:
        """Return G of `steps` latents on the way from each row of `a` to that of `b`: (N, steps, C, S, S).

        `path` is `linear` or `spherical`, as in `galirep interpolate`; both ends are among them.

        Raises:
            ConfigError: the path is unknown, or `steps` is below 2.
            DataError: the latents have other shapes than (N, latent), or differ in N.
        """
        if path not in PATHS:
            raise ConfigError(unknown("path", path, PATHS))
        require_whole("steps", steps, 2)  # both ends are among them
        first, second = (torch.as_tensor(end, dtype=torch.float32) for end in (a, b))
        if first.shape != second.shape or first.ndim != 2:
            raise DataError(f"ends of shapes {tuple(first.shape)} and {tuple(second.shape)}: both are (N, latent)")
        images = self.decode(walk(path, first, second, steps).flatten(0, 1))
        return images.reshape(len(first), steps, *images.shape[1:])


def load_generator(run: str | Path, *, device: str = "auto") -> LoadedGenerator:
    """Load the generator of a run (`RUN`, `RUN@best`) or of an export folder.

    >>> generator = galirep.load_generator("runs/mnist")      # doctest: +SKIP
    >>> generator.sample(16, seed=1).shape                    # doctest: +SKIP
    torch.Size([16, 1, 32, 32])

    Raises:
        CheckpointError: there is no such export, or it is damaged.
    """
    torch_device = device_of(device)
    network, header = load_network(Path(run), "generator", torch_device)
    assert isinstance(network, Generator)
    return LoadedGenerator(network, header, torch_device)
