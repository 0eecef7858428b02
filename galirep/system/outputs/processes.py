"""Who a process is, so that another one can tell later whether it still runs."""

import hashlib
import os
import socket
import subprocess
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

State = Literal["alive", "gone", "unknown"]


@dataclass(frozen=True)
class Process:
    """A process by its number and start time, which a later process of the same number does not share.

    `machine` is the host's name with the identity of its installation; `boot` changes when the machine starts again;
    `namespace` is that of process numbers, which containers have of their own.
    """

    pid: int
    started: str
    machine: str
    boot: str
    namespace: str

    @property
    def host(self) -> str:
        """The name of the host."""
        return self.machine.partition("/")[0]

    @property
    def tag(self) -> str:
        """A short text that names the process in file names: PLACE-PID-START, see `state_of_tag`."""
        return f"{_short(self.machine, self.boot, self.namespace)}-{self.pid}-{_short(self.started)}"

    @property
    def state(self) -> State:
        """Whether it runs: `unknown` if it is of another host or container, where this process cannot look."""
        own = this_process()
        if self.machine != own.machine:
            return "unknown"
        if self.boot != own.boot:
            # a name alone may be shared by several machines
            return "gone" if self.machine.partition("/")[2] else "unknown"
        if self.namespace != own.namespace:
            return "unknown"
        return "alive" if self.started == start_time(self.pid) else "gone"

    def to_dict(self) -> dict[str, str | int]:
        """Return what identifies it as plain data."""
        return asdict(self)


def this_process() -> Process:
    """Return the process that calls."""
    return _process(os.getpid())


def state_of_tag(tag: str) -> State:
    """Return whether the process that `Process.tag` named runs; `unknown` also where only its host started anew."""
    place, pid, started = tag.split("-")[:3]
    if place != this_process().tag.split("-")[0]:
        return "unknown"
    now = start_time(int(pid))
    return "alive" if now is not None and _short(now) == started else "gone"


def start_time(pid: int) -> str | None:
    """Return when a process of this host started, as a text that is only good for comparison; None if none runs.

    A process that ended and was not waited for (a zombie) does not run. On Linux it is the clock tick since the boot;
    elsewhere what `ps` prints, to the second.
    """
    if Path("/proc/self/stat").exists():
        try:
            # the name, in brackets, may have spaces and brackets itself
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    command = ["ps", "-p", str(pid), "-o", "stat=,lstart="]
    printed = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout.split()
    return None if not printed or printed[0].startswith("Z") else " ".join(printed[1:])


@lru_cache(maxsize=1)
def _process(pid: int) -> Process:
    machine = f"{socket.gethostname()}/{_line('/etc/machine-id')}"
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return Process(pid, start_time(pid) or "", machine, _line("/proc/sys/kernel/random/boot_id"), namespace)


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _short(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:6]
