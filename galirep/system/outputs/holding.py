"""Holding the locks of outputs for the time of a call: the calls within it need not take them again."""

import contextlib
import functools
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, TypeVar

from galirep.errors import ConfigError, InUseError
from galirep.system.outputs.inputs import require_apart
from galirep.system.outputs.locks import OutputLock, acquire, output_path
from galirep.system.outputs.temporary import is_temporary_of

P = ParamSpec("P")
R = TypeVar("R")
# with the number of the process: a forked child does not hold what its parent does
_HELD: ContextVar[tuple[int, frozenset[Path]]] = ContextVar("galirep_locks", default=(0, frozenset()))
_WAIT = 0.2  # seconds between two looks


@contextlib.contextmanager
def hold(*paths: str | Path, force: bool = False, parents: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the locks of outputs, but for those that a call around this one holds.

    `wait` waits for living processes of this host, however long they take.

    Raises:
        InUseError, ConfigError, DataError: see `acquire`.
    """
    held = _held()
    todo = dict.fromkeys(path for path in map(output_path, map(Path, paths)) if path not in held)
    with contextlib.ExitStack() as stack:
        for path in todo:
            stack.callback(_acquire_in_time(path, force, parents, wait).release)
        token = _HELD.set((os.getpid(), held | set(todo)))
        try:
            yield
        finally:
            _HELD.reset(token)


def is_held(path: str | Path) -> bool:
    """Return whether a call around this one holds the lock of an output (see `hold`), or of what it will replace."""
    path = output_path(Path(path))
    held = _held()
    return path in held or any(is_temporary_of(path, output) for output in held)


@contextlib.contextmanager
def own_lock(path: str | Path, *, force: bool = False) -> Iterator[OutputLock | None]:
    """Take the lock of an output, unless a call around this one has it; it is freed on an error alone."""
    lock = None if is_held(path) else acquire(path, force=force)
    try:
        yield lock
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def locks_outputs(
    *names: str, inputs: tuple[str, ...] = (), beside: tuple[str, ...] = (), parents: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function hold the locks of the outputs that its parameters `names` name (None: no output).

    An output that is among what the parameters `inputs` name is refused (`require_apart`), and so is one with an ending
    of `beside`. Its parameter `force_unlock` says whether locks of processes that cannot be looked at are taken over.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs).arguments
            outputs = [given[name] for name in names if given.get(name) is not None]
            for wrong in (item for item in outputs if not isinstance(item, str | os.PathLike)):
                raise ConfigError(f"output {wrong!r}: it must be a path")
            written = [f"{path}{end}" for path in outputs for end in ("", *beside)]
            # folders that are made with those above are runs, which are replaced as a whole
            whole = parents and bool(given.get("overwrite"))
            require_apart(written, [given.get(name) for name in inputs], whole=whole)
            with hold(*outputs, force=bool(given.get("force_unlock")), parents=parents):
                return function(*args, **kwargs)

        return locked

    return decorate


def _held() -> frozenset[Path]:
    pid, paths = _HELD.get()
    return paths if pid == os.getpid() else frozenset()


def _acquire_in_time(path: Path, force: bool, parents: bool, wait: bool) -> OutputLock:
    while True:
        try:
            return acquire(path, force=force, parents=parents)
        except InUseError as err:
            if not (wait and err.alive):
                raise
            time.sleep(_WAIT)
