"""Commands of galirep in forked children, which start at once, as the parent has loaded what they need."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path


@dataclass(frozen=True)
class End:
    """How a child ended: exit code (minus the signal), seconds, and what it printed on stderr."""

    code: int
    seconds: float
    stderr: str

    @property
    def in_one_line(self) -> bool:
        """Whether it succeeded, or failed with one line."""
        errors = [line for line in self.stderr.splitlines() if "galirep: error:" in line]
        return self.code == 0 or (self.code in (1, 2) and len(errors) == 1 and "Traceback" not in self.stderr)


@dataclass(frozen=True)
class Child:
    """A command under way in a forked child; `pipe` has what it prints on stderr."""

    pid: int
    pipe: int
    started: float

    def kill(self) -> None:
        """End it by SIGKILL, if it has not ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, limit: float = 120.0) -> End:
        """Wait for its end; after `limit` seconds it is killed."""
        os.set_blocking(self.pipe, False)
        printed, done, status = b"", 0, 0
        while not done:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            with suppress(BlockingIOError):
                printed += os.read(self.pipe, 1 << 16)
            if not done:
                if time.monotonic() - self.started > limit:
                    self.kill()
                time.sleep(0.002)
        seconds = time.monotonic() - self.started
        with suppress(BlockingIOError):
            printed += os.read(self.pipe, 1 << 16)
        os.close(self.pipe)
        return End(os.waitstatus_to_exitcode(status), seconds, printed.decode(errors="replace"))


def start_in_child(arguments: str, folder: Path, prepare: Callable[[], None] | None = None) -> Child:
    """Run `galirep ARGUMENTS` in a forked child whose directory is `folder`; `prepare` is called there before."""
    # not a file: the disk may be full for the child
    reading, writing = os.pipe()
    started = time.monotonic()
    if child := os.fork():
        os.close(writing)
        return Child(child, reading, started)
    code = 70
    try:
        os.chdir(folder)
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        (point,) = entry_points(group="console_scripts", name="galirep")
        command = point.load()
        if prepare is not None:
            prepare()
        try:
            command(arguments.split(), prog_name="galirep")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def run_in_child(arguments: str, folder: Path, prepare: Callable[[], None] | None = None) -> End:
    """Run a command in a child to its end."""
    return start_in_child(arguments, folder, prepare).wait()
