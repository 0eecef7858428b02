"""Attempts in forked children: whatever one does to its process, the next goes on, and the parent knows why."""

import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from soak_parts.tally import Tally

SECONDS, MEMORY = 10.0, 2 << 30
# seconds without a result, when the machine has other work
_WAIT = 60.0
_ROOM = 10 << 30  # of addresses that an attempt may ask for, so that a machine outlives it


@dataclass(frozen=True)
class Attempt:
    """How one attempt ended: the columns of `Tally` that it counts in, and where."""

    faults: tuple[str, ...] = ()
    place: str = ""


def place_of(err: BaseException) -> str:
    """Return the innermost line of galirep's own in a traceback, and the exception."""
    frames = traceback.extract_tb(err.__traceback__)
    own = [f for f in frames if any(part in f.filename for part in ("galirep/", "/cli/", "adapters/"))] or list(frames)
    where = f"{'/'.join(own[-1].filename.split('/')[-2:])}:{own[-1].lineno}" if own else "?"
    return f"{where} {type(err).__name__}: {' '.join(str(err).split())[:90]}"


def survey(tally: Tally, inputs: int, attempt: Callable[[int], Attempt]) -> None:
    """Make attempts 0 to `inputs` - 1 in children, and count how they ended.

    A child makes one after the other and is replaced when it dies, hangs or has grown. It has a timer of the time that
    it computes, which ends it also within a library; one that waits for something is ended by the parent.
    """
    done = 0
    while done < inputs:
        done = _one_child(tally, done, inputs, attempt)


def _one_child(tally: Tally, start: int, stop: int, attempt: Callable[[int], Attempt]) -> int:
    """Run a child from attempt `start` on; return the number of the first attempt that is left."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        # the threads of OpenMP did not come along: a product that waited for them would wait for ever
        torch.set_num_threads(1)
        _work(writing, start, stop, attempt)
    os.close(writing)
    done, buffer = start, b""
    try:
        while True:
            ready, _, _ = select.select([reading], [], [], _WAIT)
            if not ready:
                tally.add("hangs", place=f"input {done}, waiting")
                return done + 1
            block = os.read(reading, 1 << 16)
            if not block:
                break
            *lines, buffer = (buffer + block).split(b"\n")
            for line in lines:
                faults, place = json.loads(line)
                tally.add(*faults, place=place)
                done += 1
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL) if done < stop else None
        status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        tally.add("hangs", place=f"input {done}")
        return done + 1
    if os.WIFSIGNALED(status) and done < stop and os.WTERMSIG(status) != signal.SIGKILL:
        tally.add("tracebacks", place=f"input {done} died by {signal.Signals(os.WTERMSIG(status)).name}")
        return done + 1
    return done


def _work(pipe: int, start: int, stop: int, attempt: Callable[[int], Attempt]) -> None:
    """Make attempts in the child, and end it."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")  # noqa: PTH123, SIM115
    resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, size + _ROOM))
    for number in range(start, stop):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            result = attempt(number)
        except BaseException as err:
            result = Attempt(("tracebacks",), f"the soak itself: {place_of(err)} (input {number})")
        signal.setitimer(signal.ITIMER_PROF, 0)
        faults, place = list(result.faults), result.place
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MEMORY
        if grown:
            faults.append("memory")
        os.write(pipe, json.dumps([faults, place or f"input {number}"]).encode() + b"\n")
        if grown:
            break
    sys.stdout.flush()
    os._exit(0)
