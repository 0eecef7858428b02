"""Images to features as a pipeline: worker processes decode, a thread makes batches, the caller runs the network, another thread consumes.

Every queue is bounded, so memory does not grow with the number of images; an error in any stage ends all of them and reaches the caller.
"""

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from galirep.data import ImageSource, decode
from galirep.devices import autocast_of
from galirep.features import Description, FeatureExtractor

T = TypeVar("T")
BATCH_SIZE = 64
_DEPTH = 4  # items a queue holds
_POLL = 0.1  # seconds after which a waiting stage looks whether the others still live


@dataclass(frozen=True)
class Batch:
    """Images `start` to `start + size` of a source: for each shape the places in it and (b, C, H, W) uint8; why others were not read."""

    start: int
    size: int
    groups: tuple[tuple[list[int], Tensor], ...]
    errors: Mapping[int, str]


def read_batches(
    source: ImageSource, about: Description, batch_size: int, *, start: int = 0, num_workers: int | None = None, max_upscale: float = 2.0
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
            images = pixels.to(device, non_blocking=True).float() / 127.5 - 1
            if len(batch.groups) == 1 and len(images) < batch_size:
                images = torch.cat([images, images.new_zeros(batch_size - len(images), *images.shape[1:])])
            rows[torch.tensor(places, device=device)] = extractor(images)[: len(places)].float()
    return rows


def to_numpy(rows: Tensor) -> NDArray[np.float32]:
    """Wait for the device and fetch the features."""
    array: NDArray[np.float32] = rows.cpu().numpy()
    return array


@contextmanager
def prefetched(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Run an iterator a few items ahead in a thread; its error is raised where its items are taken. It ends with the context."""
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(_DEPTH)
    stop = threading.Event()

    def hand_over(message: tuple[T | None, BaseException | None, bool]) -> None:
        while not stop.is_set():
            try:
                ready.put(message, timeout=_POLL)
                return
            except queue.Full:
                pass

    def run() -> None:
        try:
            for item in items:
                hand_over((item, None, False))
                if stop.is_set():
                    break
            hand_over((None, None, True))
        except BaseException as err:
            hand_over((None, err, True))
        finally:
            if close := getattr(items, "close", None):  # a generator ends its worker processes here
                close()

    def take() -> Iterator[T]:
        while True:
            item, err, last = ready.get()
            if err is not None:
                raise err
            if last:
                return
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=run, name="galirep-read", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stop.set()
        thread.join()


class Sink(Generic[T]):
    """A thread of its own that consumes what is `put`, in order. On leaving the context, for whatever reason, it finishes what it has.

    An error of the consumer is raised by the next `put`, or on leaving.
    """

    def __init__(self, consume: Callable[[T], None]) -> None:
        self._consume = consume
        self._items: queue.Queue[T | None] = queue.Queue(_DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="galirep-write", daemon=True)

    def put(self, item: T) -> None:
        """Hand over an item; waits while the queue is full."""
        self._raise()
        self._items.put(item)

    def __enter__(self) -> "Sink[T]":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._items.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if self._error is None:  # after an error the queue is only emptied, so that nobody waits for room in it
                try:
                    self._consume(item)
                except BaseException as err:
                    self._error = err

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
