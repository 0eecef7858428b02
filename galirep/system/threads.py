"""Bounded queues between threads."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
_DEPTH = 4  # items a queue holds
_POLL = 0.1  # seconds after which a waiting stage looks whether the others still live


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
