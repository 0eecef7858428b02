"""Images of a source in order, decoded by worker processes, in bounded memory.

Processes and not threads, because for small images the time goes into Python and not into the codecs that let other threads run: decoding
the 60,000 PNG files of MNIST took 17.6 s of the parent's CPU time with two threads (and hardly less wall time than with none), and 0.4 s
with two processes. They are spawned, never forked, as CUDA asks.

Each worker has a pipe of its own and every n-th task, so the order needs no queue, and a full pipe holds the worker back. A torch
DataLoader would make every worker import torch, and `ProcessPoolExecutor` waits for ever for a worker that is killed while it sends its
result (CPython 3.11: the parent holds the writing end of their common pipe); here that is an end of file. So is the end of the parent for
its workers. What they are to do goes through a second pipe, not with the process: there the parent would wait for ever for a worker
that ends before it has read it (CPython 3.11 holds the reading end, too).
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

import numpy as np

from galirep.data.picture import PixelArray, resize_square
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError, DataError

TASK_IMAGES = 256  # a task takes some 10 ms or more, much longer than handing it over
TASK_BYTES = 8 << 20  # of pixels, at most: what bounds the memory
SMALL = 2000  # images that are decoded before workers have started
MOST_WORKERS = 8
_UNGUARDED = 89  # exit code of a worker that would start workers: of a number that nothing else uses


@dataclass(frozen=True)
class Decoded:
    """One image of a source: (C, S, S) uint8, or the reason why there is none."""

    index: int
    id: str
    pixels: PixelArray | None
    error: str | None


_Result = tuple[
    Sequence[PixelArray] | PixelArray, dict[int, str]
]  # the images that could be decoded; for the others the reasons, by index


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
    """Every image of `source` from `start` on, in order, as the centre square that `resize_square` makes of it.

    An image that cannot be read or is too small comes as its error and shifts nothing. `num_workers` None takes workers where they pay:
    none for a set in memory or of less than 2,000 images, else one for each core, up to 8. Each has at most 256 images or 8 MiB of pixels
    ready (with `size` None: one image).

    Raises:
        DataError: a worker died.
        ConfigError: workers are wanted by a script that has no `if __name__ == "__main__":`, which each of them would run again.
    """
    job = _Job(source, size, channels, max_upscale, shrink_only)
    step = 1 if size is None else max(1, min(TASK_IMAGES, TASK_BYTES // (3 * size * size)))
    tasks = [range(i, min(i + step, len(source))) for i in range(start, len(source), step)]
    workers = auto_workers(source, len(source) - start) if num_workers is None else min(num_workers, len(tasks))
    results = _parallel(job, tasks, workers) if workers > 0 else map(job.run, tasks)
    for task, (images, errors) in zip(tasks, results, strict=True):
        good = iter(images)
        for index in task:
            error = errors.get(index)
            yield Decoded(index, source.ids[index], None if error is not None else next(good), error)


def auto_workers(source: ImageSource, count: int) -> int:
    """How many worker processes decode `count` images of `source` soonest; 0 for none."""
    if source.in_memory or count < SMALL:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def _parallel(job: _Job, tasks: Sequence[range], workers: int) -> Iterator[_Result]:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(
            _UNGUARDED
        )  # a worker that runs the script anew to import its functions, and came here: its parent says so
    spawn = multiprocessing.get_context("spawn")
    crew = []
    try:
        for _ in range(workers):
            (orders, sender), (reader, writer) = spawn.Pipe(duplex=False), spawn.Pipe(duplex=False)
            with orders, writer:  # closed here once the worker has its own, which are then the only ones
                process = spawn.Process(target=_work, args=(orders, writer), daemon=True)
                crew.append((process, sender, reader))
                process.start()
        for k, (process, sender, _) in enumerate(crew):
            with _naming_death(process, job.source):
                # not `send`: where the worker has died, CPython 3.13 prints a complaint about the buffer that it leaves open
                sender.send_bytes(pickle.dumps((job, tasks[k::workers])))
        for number in range(len(tasks)):
            process, _, reader = crew[number % workers]
            with _naming_death(process, job.source):
                result = reader.recv()
            yield result
    finally:
        for process, sender, reader in crew:
            sender.close()
            reader.close()
            if process.pid is not None:  # it was started
                process.kill()  # it has nothing to lose, and may have inherited that SIGTERM is ignored
                process.join()


@contextlib.contextmanager
def _naming_death(process: BaseProcess, source: ImageSource) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as err:
        process.join(10)
        code = process.exitcode or 0
        if code == _UNGUARDED:
            raise ConfigError(
                "decoding workers run the calling script again: put its calls under `if __name__ == '__main__':`, or pass num_workers=0"
            ) from None
        how = f"was killed by signal {-code}" if code < 0 else "died"
        raise DataError(
            f"a worker that decoded images of {source.spec} {how}: out of memory? --num-workers 0 (num_workers=0) decodes without workers"
        ) from err


def _work(orders: Connection, writer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches the whole group; the parent ends its workers
    with contextlib.suppress(BrokenPipeError, EOFError):  # the parent wants no more, or is no more
        job, tasks = orders.recv()
        for task in tasks:
            writer.send(job.run(task))
