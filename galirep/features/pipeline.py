"""Images to features as a pipeline: worker processes decode, a thread makes batches, the caller runs the network, another thread consumes.

Every queue is bounded, so memory does not grow with the number of images; an error in any stage ends all of them and reaches the caller.
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
    """Images `start` to `start + size` of a source: for each shape the places in it and (b, C, H, W) uint8; why others were not read."""

    start: int
    size: int
    groups: tuple[tuple[list[int], Tensor], ...]
    errors: Mapping[int, str]


def read_batches(
    source: ImageSource,
    about: Description,
    batch_size: int,
    *,
    start: int = 0,
    num_workers: int | None = None,
    max_upscale: float = 2.0,
) -> Iterator[Batch]:
    """Decode `source` from `start` on for an extractor, `batch_size` images at a time, in order."""
    images = decode(
        source,
        size=about.image_size,
        channels=about.channels,
        start=start,
        num_workers=num_workers,
        max_upscale=max_upscale,
        shrink_only=not about.exact_size,
    )
    while chunk := list(islice(images, batch_size)):
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, image in enumerate(chunk):
            if image.pixels is not None:
                groups[image.pixels.shape].append(place)
        stacks = tuple((places, _stack([chunk[p].pixels for p in places])) for places in groups.values())
        errors = {place: image.error or "unreadable" for place, image in enumerate(chunk) if image.pixels is None}
        yield Batch(chunk[0].index, len(chunk), stacks, errors)


def _stack(images: list[Any]) -> Tensor:
    stack = torch.from_numpy(np.stack(images))
    return stack.pin_memory() if torch.cuda.is_available() else stack


def extract_batch(
    extractor: FeatureExtractor, dim: int, batch: Batch, batch_size: int, device: torch.device, precision: str = "fp32"
) -> Tensor:
    """(size, dim) float32 on `device`; rows of unreadable images are zeros.

    Images of one shape are filled up to `batch_size` with blanks, so that the last batch, or one with unreadable images, gives its images
    the very features that they would have among others: libraries choose their arithmetic by the size of the batch.
    """
    rows = (torch.zeros if batch.errors else torch.empty)(batch.size, dim, device=device)
    with torch.inference_mode(), autocast_of(device, precision)():
        for places, pixels in batch.groups:
            images = to_float(pixels, device)
            if len(batch.groups) == 1 and len(images) < batch_size:
                images = torch.cat([images, images.new_zeros(batch_size - len(images), *images.shape[1:])])
            rows[torch.tensor(places, device=device)] = extractor(images)[: len(places)].float()
    return rows


def to_numpy(rows: Tensor) -> NDArray[np.float32]:
    """Wait for the device and fetch the features."""
    array: NDArray[np.float32] = rows.cpu().numpy()
    return array
