"""Bounded queues between threads."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
_DEPTH = 4  # items that a queue holds
_POLL = 0.1  # seconds between two looks at the stop event while the queue is full


@contextmanager
def prefetched(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Run an iterator a few items ahead in a thread, which ends with the context.

    An error of the iterator is raised where its items are consumed.
    """
    # (item, error, is the last one)
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(_DEPTH)
    stop = threading.Event()

    def enqueue(message: tuple[T | None, BaseException | None, bool]) -> None:
        while not stop.is_set():
            try:
                ready.put(message, timeout=_POLL)
                return
            except queue.Full:
                pass

    def produce() -> None:
        try:
            for item in items:
                enqueue((item, None, False))
                if stop.is_set():
                    break
            enqueue((None, None, True))
        except BaseException as err:
            enqueue((None, err, True))
        finally:
            # a generator ends its worker processes here
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def consume() -> Iterator[T]:
        while True:
            item, err, last = ready.get()
            if err is not None:
                raise err
            if last:
                return
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=produce, name="galirep-read", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stop.set()
        thread.join()


class Sink(Generic[T]):
    """A thread that consumes what is `put`, in order, and finishes its queue when the context is left for any reason.

    An error of the consumer is raised by the next `put`, or on leaving the context.
    """

    def __init__(self, consume: Callable[[T], None]) -> None:
        self._consume = consume
        self._items: queue.Queue[T | None] = queue.Queue(_DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="galirep-write", daemon=True)

    def put(self, item: T) -> None:
        """Enqueue an item, waiting while the queue is full; raise the consumer's error if it has failed."""
        self._raise_error()
        self._items.put(item)

    def __enter__(self) -> "Sink[T]":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._items.put(None)
        self._thread.join()
        if kind is None:
            self._raise_error()

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            # after an error the queue is only emptied, so that no `put` waits for room in it
            if self._error is None:
                try:
                    self._consume(item)
                except BaseException as err:
                    self._error = err

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
