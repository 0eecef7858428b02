"""Processes that end by SIGKILL at a chosen moment: before the N-th change that they make under a folder."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "galirep.exchange")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def end_at(moment: int, work: Callable[[], object], folder: Path) -> bool:
    """Run `work` in a forked child that is killed before its `moment`-th change under `folder`, counted from 1.

    Return whether it was killed; False if it made fewer changes and came to its end.
    """
    status = _run(work, folder, lambda number, _: number == moment)
    assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
    return status == -signal.SIGKILL


def run(work: Callable[[], object], folder: Path = Path("/")) -> int:
    """Run `work` in a forked child; return its exit code: that of a SystemExit, 70 for another exception."""
    return _run(work, folder, lambda *_: False)


def moments(work: Callable[[], object], folder: Path) -> Iterator[int]:
    """Yield 1, 2, ... and run `work` in a child killed at that moment before each, until it comes to its end.

    The body of the loop looks at what the child left, and prepares the next.
    """
    moment = 1
    while end_at(moment, work, folder):
        yield moment
        moment += 1


def _run(work: Callable[[], object], folder: Path, is_last: Callable[[int, str], bool]) -> int:
    with warnings.catch_warnings():
        # later Pythons warn of a fork beside threads; the child runs none of them
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        # the threads of the parent are not in the child
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        _watch(str(folder.resolve()), is_last)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _watch(folder: str, is_last: Callable[[int, str], bool]) -> None:
    """End this process before a change that `is_last` knows by its number and what it is."""
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event == "open":
            if len(arguments) < 3 or not isinstance(arguments[2], int) or not arguments[2] & _WRITING:
                return
        elif event not in _CHANGES:
            return
        paths = [os.path.abspath(os.fsdecode(a)) for a in arguments if isinstance(a, str | bytes | os.PathLike)]  # noqa: PTH100
        if not any(path.startswith(folder) for path in paths):
            return
        count += 1
        if is_last(count, event):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
