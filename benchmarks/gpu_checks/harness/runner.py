"""The parent: runs each group in a child process, kills what hangs, and goes on behind it.

A thread cannot be stopped where it waits for a device, so a time limit is only honest with a process to kill. Starting
torch takes seconds, so it is one child a group, and another only after a kill, a crash or an error of CUDA itself.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[3]
_POLL_SECONDS = 0.05
# to import torch and to open the device; no check's own time
_STARTUP_SECONDS = 150.0
_TAIL = 600
# cuBLAS repeats its bits only with a workspace of fixed size; speeds are measured without one
_ENVIRONMENT = {"state": {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}}

ENDED_BY_CUDA = 17
"""Exit code of a child: the checks behind its last one need a fresh process."""

Result = dict[str, Any]


class NoDevice(Exception):
    """There is no such device, or no torch to reach it with."""


@dataclass(frozen=True)
class Options:
    """What is run: the device, --quick, and the seconds that all groups together may take."""

    device: str
    quick: bool = False
    budget: float = 480.0


@dataclass
class _Group:
    """A group while its children run: what they have written so far."""

    name: str
    module: str
    results: Path
    names: list[str] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    done: dict[int, Result] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    begun: int | None = None
    broken: str | None = None
    ended: bool = False
    _read: int = 0

    def read(self) -> bool:
        """Take in the lines written since; return whether there were any."""
        text = self.results.read_bytes()[self._read :] if self.results.exists() else b""
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        self._read += text.rfind(b"\n") + 1
        for line in lines:
            self._take(json.loads(line))
        return bool(lines)

    def _take(self, line: dict[str, Any]) -> None:
        match line.pop("event"):
            case "environment":
                self.environment = self.environment or line
            case "checks":
                self.names = [check["name"] for check in line["checks"]]
                self.limits = [check["seconds"] for check in line["checks"]]
            case "begin":
                self.begun = line["index"]
            case "result":
                self.finish(line.pop("index"), **line)
            case "broken":
                self.broken = line["text"]
            case "end":
                self.ended = True

    def finish(self, index: int, status: str, text: str, seconds: float, values: Any = None) -> None:
        self.begun = None
        self.done[index] = {
            "group": self.name,
            "check": self.names[index],
            "status": status,
            "text": text,
            "seconds": round(seconds, 2),
            "values": values or {},
        }

    @property
    def next_index(self) -> int:
        return max(self.done, default=-1) + 1


def run_groups(
    modules: Mapping[str, str], options: Options, show: Callable[[Result], None] = lambda _: None
) -> tuple[list[Result], dict[str, Any]]:
    """Run the groups, name -> module with a list CHECKS, and return all results and the environment.

    `show` is given each result as it comes.

    Raises:
        NoDevice: the device is not there.
    """
    deadline = time.monotonic() + options.budget
    results: list[Result] = []
    environment: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gpu_check-") as folder:
        for name, module in modules.items():
            group = _Group(name, module, Path(folder) / f"{name}.jsonl")
            _run_group(group, options, deadline, show)
            results += [group.done[index] for index in sorted(group.done)]
            environment = environment or group.environment
            if group.broken is not None and not environment:
                raise NoDevice(group.broken)
    return results, environment


def _run_group(group: _Group, options: Options, deadline: float, show: Callable[[Result], None]) -> None:
    shown: set[int] = set()

    def report() -> None:
        for index in sorted(group.done.keys() - shown):
            shown.add(index)
            show(group.done[index])

    while not group.ended:
        if time.monotonic() >= deadline and group.names:
            for index in range(group.next_index, len(group.names)):
                group.finish(index, "SKIP", f"the {options.budget:.0f} seconds of the whole run are used up", 0.0)
            group.ended = True
        else:
            _run_child(group, options, deadline, report)
        if group.names and group.next_index == len(group.names):
            group.ended = True
        report()


def _run_child(group: _Group, options: Options, deadline: float, report: Callable[[], None]) -> None:
    """Run a child from the group's next check on, until it ends or must be killed."""
    first, log = group.next_index, group.results.with_suffix(".log")
    command = [sys.executable, "-m", "gpu_checks.harness.child", group.module, str(group.results)]
    command += [options.device, str(first), str(int(options.quick))]
    paths = [str(_ROOT / "benchmarks"), os.environ.get("PYTHONPATH", ""), str(_ROOT)]
    env = {**os.environ, **_ENVIRONMENT.get(group.name, {}), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with log.open("w+", encoding="utf-8", errors="replace") as output:
        # a session of its own, so that what a check starts is killed with it
        child = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
        began = time.monotonic()
        try:
            while child.poll() is None:
                time.sleep(_POLL_SECONDS)
                if group.read():
                    began = time.monotonic()
                    report()
                limit = _STARTUP_SECONDS if group.begun is None else group.limits[group.begun]
                if time.monotonic() - began > limit:
                    _kill(child)
                    group.read()
                    _close(group, f"no result within {limit:.0f} seconds: killed", limit)
                    return
                if time.monotonic() > deadline:
                    _kill(child)
                    group.read()
                    _close(group, "cut off: the time of the whole run is used up", time.monotonic() - began, "SKIP")
                    return
        finally:
            _kill(child)
        group.read()
        output.seek(0)
        last = output.read()[-_TAIL:].strip()
        if not group.ended and (group.begun is not None or child.returncode != ENDED_BY_CUDA):
            words = f"the process died ({_how(child.returncode)}): {last.splitlines()[-1] if last else 'no message'}"
            _close(group, words, time.monotonic() - began)


def _close(group: _Group, text: str, seconds: float, status: str = "FAIL") -> None:
    """Record the check that a child did not finish; the next child goes on behind it."""
    if not group.names:
        # not even the list of checks: the group as a whole is one failure
        group.names, text = ["(begin)"], group.broken or text
    index = group.begun if group.begun is not None else group.next_index
    if index < len(group.names):
        group.finish(index, status, text, seconds)


def _how(code: int) -> str:
    with contextlib.suppress(ValueError):
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return f"signal {-code}"


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """Kill the child and everything in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
