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


def end_at(moment: int | Callable[[str], object], work: Callable[[], object], folder: Path) -> bool:
    """Run `work` in a forked child that is killed before its `moment`-th change under `folder`, counted from 1.

    A function chooses a change by its text, see `changes`. Return whether it was killed; False if it made no such
    change and came to its end.
    """
    status = _run(work, folder, lambda number, text: moment(text) if callable(moment) else number == moment)
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


def changes(work: Callable[[], object], folder: Path) -> list[str]:
    """Run `work` in a child to its end; return its changes under `folder`, as `os.rename last.pt`."""
    reading, writing = os.pipe()

    def note(number: int, change: str) -> bool:
        os.write(writing, f"{change}\n".encode())
        return False

    assert _run(work, folder, note) == 0
    os.close(writing)
    with open(reading) as pipe:  # noqa: PTH123
        return pipe.read().splitlines()


def _run(work: Callable[[], object], folder: Path, is_last: Callable[[int, str], object]) -> int:
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


def _watch(folder: str, is_last: Callable[[int, str], object]) -> None:
    """End this process before a change that `is_last` knows by its number and what it is."""
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event == "open":
            if len(arguments) < 3 or not isinstance(arguments[2], int) or not arguments[2] & _WRITING:
                return
        elif event not in _CHANGES:
            return
        # of the others only the first is a path
        given = arguments[:2] if event in ("os.rename", "os.link", "galirep.exchange") else arguments[:1]
        paths = [os.path.abspath(os.fsdecode(a)) for a in given if isinstance(a, str | bytes | os.PathLike)]  # noqa: PTH100
        if not any(path.startswith(folder) for path in paths):
            return
        count += 1
        if is_last(count, f"{event} {paths[-1].removeprefix(folder)}"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
