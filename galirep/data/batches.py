"""Batches of images as a function of the seed and the position alone, so that a resumed run sees the same ones."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from galirep.data.tensors import BLOCK, to_float
from galirep.errors import ConfigError
from galirep.metrics.arrays import Ints


def derive_seed(seed: int, *position: int) -> int:
    """Return a 63-bit seed for one purpose at one position of a run.

    Different positions of the same length give independent streams.
    """
    return int(np.random.SeedSequence((seed, *position)).generate_state(1, np.uint64)[0]) >> 1


class Batches:
    """Uint8 images (N, C, S, S) in memory, read in batches of float32 in [-1, 1].

    Every epoch is a new permutation, and a batch may begin in one epoch and end in the next. The images are kept on the
    device if they take at most half of its free memory, otherwise in host memory. `rows` (n,) int64, ascending, are the
    images that take part (default: all); here they are numbered from 0 to n - 1.

    Raises:
        ConfigError: a batch is larger than the data set.
    """

    def __init__(
        self, pixels: Tensor, batch_size: int, seed: int, device: torch.device, rows: Tensor | None = None
    ) -> None:
        self.n = len(pixels if rows is None else rows)
        self.size = batch_size
        self.device = device
        if batch_size > self.n:
            raise ConfigError(
                f"a batch of {batch_size} is larger than the data set of {self.n} images: "
                f"pass --batch-size {self.n} or less"
            )
        self._seed = seed
        self._rows = rows
        resident = device.type != "cuda" or 2 * pixels.nbytes <= torch.cuda.mem_get_info(device)[0]
        self._pixels = pixels.to(device) if resident else pixels
        # the permutation of the last epoch that was asked for
        self._epoch = -1
        self._permutation: Ints = np.empty(0, np.int64)

    def indices(self, batch: int) -> Tensor:
        """Return the indices of the images of batch 0, 1, 2, ...: (B,) int64 on the host."""
        positions = np.arange(batch * self.size, (batch + 1) * self.size)
        epochs = positions // self.n
        indices = np.empty(self.size, np.int64)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            indices[in_epoch] = self._permutation_of(int(epoch))[positions[in_epoch] % self.n]
        return torch.from_numpy(indices)

    def _permutation_of(self, epoch: int) -> Ints:
        if epoch != self._epoch:
            self._permutation = np.random.default_rng(derive_seed(self._seed, 0, epoch)).permutation(self.n)
            self._epoch = epoch
        return self._permutation

    def images(self, indices: Tensor) -> Tensor:
        """Return the images of these indices: (B, C, S, S) float32 in [-1, 1] on the device, channels last."""
        if self._rows is not None:
            indices = self._rows[indices]
        resident = self._pixels.device == self.device
        chosen = self._pixels[self.to_device(indices)] if resident else self.to_device(self._pixels[indices])
        return to_float(chosen).contiguous(memory_format=torch.channels_last)

    def blocks(self, indices: Tensor | None = None, size: int = BLOCK) -> Iterator[Tensor]:
        """Yield the images of `indices` (default: all) as `images` returns them, `size` at a time."""
        for block in torch.split(torch.arange(self.n) if indices is None else indices, size):
            yield self.images(block)

    def to_device(self, values: Tensor) -> Tensor:
        """Copy a host tensor to the device without waiting for it; to a GPU from page-locked memory."""
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values

    def evenly_spaced(self, count: int) -> Tensor:
        """Return up to `count` evenly spaced indices, for pictures and statistics."""
        return torch.linspace(0, self.n - 1, min(count, self.n)).round().long()
