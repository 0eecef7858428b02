"""Which images an update sees, as a function of the seed and the position alone, so that a resumed run sees what an uninterrupted one would
have seen.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from galirep.data.tensors import BLOCK, to_float
from galirep.errors import ConfigError


def derive_seed(seed: int, *position: int) -> int:
    """A 63-bit seed for one purpose at one position of a run; different positions (of one length) give independent streams."""
    return int(np.random.SeedSequence((seed, *position)).generate_state(1, np.uint64)[0] >> 1)


class Batches:
    """Uint8 images (N, C, S, S) in memory, handed out as float32 in [-1, 1]; every epoch is a new permutation and batches run across its
    end.

    The images lie on the device if they take at most half of its free memory, else in host memory. `rows` (n,) int64 are the images that
    take part, in ascending order (default: all); they are numbered 0 to n - 1 here.

    Raises:
        ConfigError: a batch is larger than the data set.
    """

    def __init__(
        self, pixels: Tensor, batch_size: int, seed: int, device: torch.device, rows: Tensor | None = None
    ) -> None:
        self.n, self.size, self.device, self._seed, self._epoch = (
            len(pixels if rows is None else rows),
            batch_size,
            device,
            seed,
            -1,
        )
        if batch_size > self.n:
            raise ConfigError(
                f"a batch of {batch_size} is larger than the data set of {self.n} images: pass --batch-size {self.n} or less"
            )
        self._rows = rows
        resident = device.type != "cuda" or 2 * pixels.nbytes <= torch.cuda.mem_get_info(device)[0]
        self._pixels = pixels.to(device) if resident else pixels
        self._order = np.empty(0, np.int64)

    def indices(self, batch: int) -> Tensor:
        """The images of batch 0, 1, 2, ...: (B,) int64 on the host."""
        at = np.arange(batch * self.size, (batch + 1) * self.size)
        out = np.empty(self.size, np.int64)
        for epoch in np.unique(at // self.n):
            if epoch != self._epoch:
                self._order, self._epoch = (
                    np.random.default_rng(derive_seed(self._seed, 0, int(epoch))).permutation(self.n),
                    int(epoch),
                )
            here = at // self.n == epoch
            out[here] = self._order[at[here] % self.n]
        return torch.from_numpy(out)

    def images(self, indices: Tensor) -> Tensor:
        """The images of these indices: (B, C, S, S) float32 in [-1, 1] on the device."""
        if self._rows is not None:
            indices = self._rows[indices]
        resident = self._pixels.device == self.device
        chosen = self._pixels[self.to_device(indices)] if resident else self.to_device(self._pixels[indices])
        return to_float(chosen).contiguous(memory_format=torch.channels_last)

    def blocks(self, indices: Tensor | None = None, size: int = BLOCK) -> Iterator[Tensor]:
        """Yield the images of `indices` (default: all) as `images` gives them, `size` at a time."""
        for part in torch.split(torch.arange(self.n) if indices is None else indices, size):
            yield self.images(part)

    def to_device(self, values: Tensor) -> Tensor:
        """A tensor of the host on the device, without waiting for what the device is doing: from page-locked memory where it is a GPU."""
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values

    def spread(self, count: int) -> Tensor:
        """Up to `count` indices evenly spread over the data set: the images that pictures and statistics are made of."""
        return torch.linspace(0, self.n - 1, min(count, self.n)).round().long()
