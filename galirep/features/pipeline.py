"""The pipeline from images to features: worker processes decode, a thread makes batches, the caller runs the network.

Every queue is bounded, so memory does not grow with the number of images. An error in any stage ends all of them and
is raised in the caller.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from galirep.data.decoding import decode
from galirep.data.sources import ImageSource
from galirep.data.tensors import to_float
from galirep.features.protocol import Description, FeatureExtractor
from galirep.system.devices import autocast_of

BATCH_SIZE = 64


@dataclass(frozen=True)
class Batch:
    """Images `start` to `start + size` of a source, stacked by shape.

    `groups`: for each shape, the positions in the batch and the pixels (b, C, H, W) uint8. `errors`: position -> why
    the image could not be read.
    """

    start: int
    size: int
    groups: tuple[tuple[list[int], Tensor], ...]
    errors: Mapping[int, str]


def read_batches(
    source: ImageSource,
    description: Description,
    batch_size: int,
    *,
    start: int = 0,
    num_workers: int | None = None,
    max_upscale: float = 2.0,
) -> Iterator[Batch]:
    """Decode `source` from image `start` on for an extractor, `batch_size` images at a time, in order."""
    images = decode(
        source,
        size=description.image_size,
        channels=description.channels,
        start=start,
        num_workers=num_workers,
        max_upscale=max_upscale,
        shrink_only=not description.exact_size,
    )
    while chunk := list(islice(images, batch_size)):
        positions_by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, image in enumerate(chunk):
            if image.pixels is not None:
                positions_by_shape[image.pixels.shape].append(position)
        groups = tuple(
            (positions, _stack([chunk[position].pixels for position in positions]))
            for positions in positions_by_shape.values()
        )
        errors = {i: image.error or "unreadable" for i, image in enumerate(chunk) if image.pixels is None}
        yield Batch(chunk[0].index, len(chunk), groups, errors)


def _stack(images: list[Any]) -> Tensor:
    stack = torch.from_numpy(np.stack(images))
    return stack.pin_memory() if torch.cuda.is_available() else stack


@dataclass(frozen=True)
class BatchExtractor:
    """An extractor with how it is run: batch -> features (batch.size, dim) float32 on `device`.

    Rows of unreadable images are zeros. Images of one shape are filled up to `batch_size` with blanks, so that the last
    batch, or one with unreadable images, gives its images the very features that they would have among others:
    libraries choose their arithmetic by the size of the batch.
    """

    extractor: FeatureExtractor
    dim: int
    batch_size: int
    device: torch.device
    precision: str = "fp32"

    def __call__(self, batch: Batch) -> Tensor:
        """Run the extractor on a batch: (batch.size, dim) float32."""
        rows = (torch.zeros if batch.errors else torch.empty)(batch.size, self.dim, device=self.device)
        with torch.inference_mode(), autocast_of(self.device, self.precision)():
            for positions, pixels in batch.groups:
                images = to_float(pixels, self.device)
                if len(batch.groups) == 1 and len(images) < self.batch_size:
                    blanks = images.new_zeros(self.batch_size - len(images), *images.shape[1:])
                    images = torch.cat([images, blanks])
                features = self.extractor(images)[: len(positions)].float()
                rows[torch.tensor(positions, device=self.device)] = features
        return rows


def to_numpy(rows: Tensor) -> NDArray[np.float32]:
    """Wait for the device and copy the features to the host."""
    array: NDArray[np.float32] = rows.cpu().numpy()
    return array
