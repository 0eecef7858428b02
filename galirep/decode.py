"""Images of a source in order, decoded by worker processes, in bounded memory.

The workers are those of `concurrent.futures`: unlike a torch DataLoader they need no torch (which every worker would import), and a killed
worker is an error there, not a wait. They are spawned, never forked, so that a parent that runs CUDA threads is safe. They are processes
and not threads because for small images the time goes into Python, not into the codecs that release the interpreter.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from galirep.errors import DataError
from galirep.images import Pixels, fit
from galirep.sources import ImageSource

CHUNK = 64  # images a task: at 28x28 a task then takes some ms, against less than one to hand it over
SMALL = 2000  # images that are decoded sooner than workers start
MOST_WORKERS = 8


@dataclass(frozen=True)
class Decoded:
    """One image of a source: (C, S, S) uint8, or the reason why there is none."""

    index: int
    id: str
    pixels: Pixels | None
    error: str | None


@dataclass(frozen=True)
class _Job:
    source: ImageSource
    size: int | None
    channels: int | None
    max_upscale: float
    shrink_only: bool

    def run(self, indices: Sequence[int]) -> tuple[Sequence[Pixels], dict[int, str]]:
        """The images that could be decoded, and the reasons for the others by index."""
        images: list[Pixels] = []
        errors: dict[int, str] = {}
        for index in indices:
            name = self.source.ids[index]
            try:
                image = self.source.read(index)
                images.append(fit(image, self.size, self.channels, self.max_upscale, shrink_only=self.shrink_only))
            except DataError as err:
                errors[index] = str(err).removeprefix(f"{name}: ")
        if len({image.shape for image in images}) == 1:
            return np.stack(images), errors  # one array is sent several times faster than many
        return images, errors


def decode(
    source: ImageSource,
    *,
    size: int | None,
    channels: int | None,
    start: int = 0,
    num_workers: int | None = None,
    max_upscale: float = 2.0,
    shrink_only: bool = False,
) -> Iterator[Decoded]:
    """Every image of `source` from `start` on, in order, as the centre square that `fit` makes of it.

    An image that cannot be read or is too small comes as its error and shifts nothing. `num_workers` None takes workers where they pay:
    none for sets in memory or of less than 2,000 images, else one for each core up to 8. At most 4 tasks of 64 images a worker are ahead.

    Raises:
        DataError: a worker died.
    """
    job = _Job(source, size, channels, max_upscale, shrink_only)
    chunks = [range(i, min(i + CHUNK, len(source))) for i in range(start, len(source), CHUNK)]
    workers = auto_workers(source, len(source) - start) if num_workers is None else min(num_workers, len(chunks))
    results = _parallel(job, chunks, workers) if workers > 0 else map(job.run, chunks)
    for chunk, (images, errors) in zip(chunks, results, strict=True):
        good = iter(images)
        for index in chunk:
            error = errors.get(index)
            yield Decoded(index, source.ids[index], None if error is not None else next(good), error)


def auto_workers(source: ImageSource, count: int) -> int:
    """How many worker processes decode `count` images of `source` soonest; 0 for none."""
    if source.in_memory or count < SMALL:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


_job: _Job  # of a worker process


def _parallel(job: _Job, chunks: Sequence[range], workers: int) -> Iterator[tuple[Sequence[Pixels], dict[int, str]]]:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (job,))
    pending: deque[Future[tuple[Sequence[Pixels], dict[int, str]]]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(_run, chunk))
            if len(pending) >= 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as err:
        raise DataError(
            f"a worker that decoded images of {job.source.spec} died (killed, out of memory, or in a script without "
            '`if __name__ == "__main__":`); --num-workers 0 decodes without workers'
        ) from err
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(job: _Job) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches the whole group; the parent ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent cannot end its workers, and they would wait for it for ever


def _run(indices: range) -> tuple[Sequence[Pixels], dict[int, str]]:
    return _job.run(indices)
