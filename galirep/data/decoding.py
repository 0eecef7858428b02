"""Decode the images of a source in order, in worker processes and in bounded memory.

Processes and not threads, because for small images the time goes into Python and not into the codecs that let other
threads run: decoding the 60,000 PNG files of MNIST took 17.6 s of the parent's CPU time with two threads (and hardly
less wall time than with none), and 0.4 s with two processes. They are spawned, never forked, as CUDA requires.

Each of n workers has its own result pipe and every n-th task, so the order needs no queue, and a full pipe holds the
worker back. A torch DataLoader would make every worker import torch, and `ProcessPoolExecutor` waits for ever for a
worker that is killed while it sends its result (CPython 3.11: the parent holds the writing end of their common pipe);
here that is an end of file, and so is the end of the parent for its workers. The tasks go through a second pipe, not
with the process: there the parent would wait for ever for a worker that ends before it has read them (CPython 3.11
holds the reading end, too).
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

import numpy as np

from galirep.data.picture import PixelArray, resize_square
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError, DataError

TASK_IMAGES = 256  # a task takes 10 ms or more, much longer than handing it over
TASK_BYTES = 8 << 20  # of pixels at most, which bounds the memory
MIN_IMAGES_FOR_WORKERS = 2000  # fewer are decoded before workers have started
MAX_WORKERS = 8
_WORKER_NAME = "galirep-decoding-worker"
_EXIT_UNGUARDED = 89  # exit code of a worker that runs an unguarded script again; not used by anything else


@dataclass(frozen=True)
class Decoded:
    """One image of a source: `pixels` (C, S, S) uint8, or the `error` why it has none."""

    index: int
    id: str
    pixels: PixelArray | None
    error: str | None


Result_co = TypeVar("Result_co", covariant=True)


class Job(Protocol[Result_co]):
    """Work on images of a source that can be pickled."""

    @property
    def source(self) -> ImageSource:
        """The images."""

    def run(self, indices: Sequence[int]) -> Result_co:
        """Return the results of the images at `indices`."""


_Result = tuple[Sequence[PixelArray] | PixelArray, dict[int, str]]
"""The images that could be decoded, and the errors of the others by index."""


@dataclass(frozen=True)
class _Job:
    source: ImageSource
    size: int | None
    channels: int | None
    max_upscale: float
    shrink_only: bool

    def run(self, indices: Sequence[int]) -> _Result:
        images: list[PixelArray] = []
        errors: dict[int, str] = {}
        for index in indices:
            try:
                image = self.source.read(index)
                images.append(
                    resize_square(image, self.size, self.channels, self.max_upscale, shrink_only=self.shrink_only)
                )
            except DataError as err:
                errors[index] = str(err).removeprefix(f"{self.source.ids[index]}: ")
        if len({image.shape for image in images}) == 1:
            # one array is sent several times faster than many
            return np.stack(images), errors
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
    """Yield every image of `source` from `start` on, in order, as the centre square that `resize_square` returns.

    An image that cannot be read or is too small comes with its error and does not shift the others. `num_workers` None
    is `auto_workers`. Each worker has at most 256 images or 8 MiB of pixels ready (one image if `size` is None).

    Raises:
        DataError: a worker died.
        ConfigError: workers are to be started by a script without `if __name__ == "__main__":`, which each of them
            would run again.
    """
    job = _Job(source, size, channels, max_upscale, shrink_only)
    step = 1 if size is None else max(1, min(TASK_IMAGES, TASK_BYTES // (3 * size * size)))
    tasks = [range(i, min(i + step, len(source))) for i in range(start, len(source), step)]
    workers = auto_workers(source, len(source) - start) if num_workers is None else min(num_workers, len(tasks))
    results = run_tasks(job, tasks, workers)
    for task, (images, errors) in zip(tasks, results, strict=True):
        decoded = iter(images)
        for index in task:
            error = errors.get(index)
            yield Decoded(index, source.ids[index], None if error is not None else next(decoded), error)


def run_tasks(job: Job[Result_co], tasks: Sequence[range], workers: int) -> Iterator[Result_co]:
    """Yield the result of each task in order, from `workers` processes, or from this one if there are none.

    Raises:
        DataError, ConfigError: as for `decode`.
    """
    return _run_in_workers(job, tasks, workers) if workers > 0 else map(job.run, tasks)


def auto_workers(source: ImageSource, count: int) -> int:
    """Return the number of worker processes for `count` images of `source`; 0 decodes in this process.

    None for a source in memory or fewer than 2,000 images, otherwise one for each core, up to 8.
    """
    if source.in_memory or count < MIN_IMAGES_FOR_WORKERS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


def _run_in_workers(job: Job[Any], tasks: Sequence[range], count: int) -> Iterator[Any]:
    # A spawned worker imports the calling script before it does anything else. It has its name by then and never starts
    # workers itself, so a worker that comes here is running a script without a guard; its parent reports that.
    if multiprocessing.current_process().name == _WORKER_NAME:
        raise SystemExit(_EXIT_UNGUARDED)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_started_worker()) for _ in range(count)]
        for k, worker in enumerate(workers):
            with _reporting_death(worker.process, job.source):
                # not `send`: if the worker has died, CPython 3.13 complains about the buffer that `send` leaves open
                worker.tasks.send_bytes(pickle.dumps((job, tasks[k::count])))
        for number in range(len(tasks)):
            worker = workers[number % count]
            with _reporting_death(worker.process, job.source):
                result = worker.results.recv()
            yield result


@dataclass(frozen=True)
class _Worker:
    """A worker process, and the parent's ends of its two pipes."""

    process: BaseProcess
    tasks: Connection
    results: Connection


@contextlib.contextmanager
def _started_worker() -> Iterator[_Worker]:
    """Start a worker; end it with the context, whatever it is doing."""
    spawn = multiprocessing.get_context("spawn")
    task_reader, task_writer = spawn.Pipe(duplex=False)
    result_reader, result_writer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(task_reader, result_writer), name=_WORKER_NAME, daemon=True)
    try:
        # the worker's ends are closed here once it has its own copies, which are then the only ones
        with task_reader, result_writer:
            process.start()
        yield _Worker(process, task_writer, result_reader)
    finally:
        task_writer.close()
        result_reader.close()
        if process.pid is not None:  # it was started
            # SIGKILL: a worker has nothing to lose, and may have inherited that SIGTERM is ignored
            process.kill()
            process.join()


@contextlib.contextmanager
def _reporting_death(process: BaseProcess, source: ImageSource) -> Iterator[None]:
    """Turn the end of file that a dead worker leaves into an error that says how it died."""
    try:
        yield
    except (EOFError, OSError) as err:
        process.join(10)
        code = process.exitcode or 0
        if code == _EXIT_UNGUARDED:
            raise ConfigError(
                "decoding workers run the calling script again: put its calls under `if __name__ == '__main__':`, "
                "or pass num_workers=0"
            ) from None
        how = f"was killed by signal {-code}" if code < 0 else "died"
        raise DataError(
            f"a worker that decoded images of {source.spec} {how}: out of memory? "
            "--num-workers 0 (num_workers=0) decodes without workers"
        ) from err


def _work(tasks: Connection, results: Connection) -> None:
    """Run in a worker: receive the job and its tasks, send the results."""
    # ^C reaches the whole process group; the parent ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # the parent needs no more results, or has died
    with contextlib.suppress(BrokenPipeError, EOFError):
        job, indices_of_tasks = tasks.recv()
        for indices in indices_of_tasks:
            results.send(job.run(indices))
