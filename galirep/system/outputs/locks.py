"""Locks of outputs: one process at a time writes a file or folder, and whoever comes second is told who does.

A lock is the file `.NAME.lock` beside the output, which says whose it is: process number and start time, host, and
since when. It appears whole and in one step (a hard link to a file that is written before), which also network file
systems promise. `flock` and `fcntl` locks are not used: on network file systems they are missing, local to a host or
lost with a connection, depending on mount options that a program cannot see; and they do not say who holds them. The
price is that a kill leaves the file behind. Therefore the next process looks whether the owner still runs
(`Process.state`) and takes over a lock of one that does not. Of another host it cannot know that: it raises, unless it
is told that the owner is gone (`--force-unlock`).
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from galirep.errors import ConfigError, DataError, InUseError
from galirep.system.outputs.full_disk import is_full_disk
from galirep.system.outputs.inputs import require_file_or_folder
from galirep.system.outputs.processes import Process, State, this_process
from galirep.system.outputs.temporary import remove_leftovers, temporary_name
from galirep.system.reading.files import read_bytes
from galirep.system.reading.limits import Limit
from galirep.system.reading.records import read_record

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


@dataclass(frozen=True)
class Owner:
    """What a lock says: whose it is, since when (UTC, ISO 8601), and a token that no other lock has."""

    pid: int
    started: str
    machine: str
    boot: str
    namespace: str
    since: str
    token: str

    @property
    def process(self) -> Process:
        """The process that holds it."""
        return Process(self.pid, self.started, self.machine, self.boot, self.namespace)


class OutputLock:
    """The lock of an output; get one with `acquire`, and free it with `release`."""

    def __init__(self, path: Path, owner: Owner, made: tuple[Path, ...]) -> None:
        self.path, self.owner, self._made, self._released = path, owner, made, False

    def release(self) -> None:
        """Free the lock, if it is still this one's, and remove what was left under temporary names meanwhile."""
        # not in a child that inherited it
        if self._released or self.owner.pid != os.getpid():
            return
        self._released = True
        with contextlib.suppress(OSError):
            remove_leftovers(self.path)
            if _read(file := lock_file(self.path)) == self.owner:
                file.unlink(missing_ok=True)
        for folder in self._made:
            # nothing came into it
            with contextlib.suppress(OSError):
                folder.rmdir()


def lock_file(path: Path) -> Path:
    """Return the file that locks an output: of a folder by its real name, whichever way it was named."""
    path = output_path(path)
    return path.with_name(f".{path.name}.lock")


def output_path(path: Path) -> Path:
    """Return the one path of an output that may be named in several ways."""
    # a link to a file is replaced itself
    return path.resolve() if path.is_dir() or path.name in ("", "..") else path.parent.resolve() / path.name


def acquire(path: str | Path, *, force: bool = False, parents: bool = False) -> OutputLock:
    """Take the lock of an output, and remove what ended processes left beside it under temporary names.

    A lock whose process has ended is taken over; with `force` also one of a process that cannot be looked at. `parents`
    makes the folders above, and removes those that are empty when the lock is released.

    Raises:
        InUseError: another process (or another call in this one) writes this output, or may.
        ConfigError: the folder does not exist, nothing may be written there, or the output is a pipe or device.
        DataError: no space is left.
    """
    path = output_path(Path(path))
    require_file_or_folder(path)
    made = _make_parents(path) if parents else ()
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: the folder {path.parent} does not exist")
    try:
        owner = _take(path, lock_file(path), force)
        remove_leftovers(path)
    except OSError as err:
        if is_full_disk(err):
            raise DataError(f"no space left to write {path}: {err.strerror}") from err
        raise ConfigError(f"cannot write {path}: {err.strerror or err}") from err
    return OutputLock(path, owner, made)


def _make_parents(path: Path) -> tuple[Path, ...]:
    """Make the folders above; return those that were not there, the innermost first."""
    missing = tuple(folder for folder in path.parents if not folder.exists())
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _take(path: Path, file: Path, force: bool) -> Owner:
    """Make the lock file, in place of one that no living process has."""
    owner = Owner(
        **vars(this_process()),
        since=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        token=secrets.token_hex(4),
    )
    while not _create(path, file, owner):
        holder = _read(file)
        if holder is None:
            # freed meanwhile
            continue
        state: State = holder.process.state if holder.pid else "unknown"
        if state == "alive" or (state == "unknown" and not force):
            raise _in_use(path, file, holder, state)
        # whoever takes over this one lock holds another, so that of two processes only one does
        token = hashlib.sha256(f"{file.name} {holder.token}".encode()).hexdigest()[:8]
        guard = file.with_name(f"{lock_file(path).name}.{token}")
        guarding = _take(path, guard, force)
        try:
            if _read(file) == holder:
                file.unlink(missing_ok=True)
        finally:
            if _read(guard) == guarding:
                guard.unlink(missing_ok=True)
    return owner


def _create(path: Path, file: Path, owner: Owner) -> bool:
    """Write the lock file if there is none; return whether it was written."""
    text = json.dumps(vars(owner)).encode()
    temporary = temporary_name(path, "lock.")
    try:
        temporary.write_bytes(text)
        try:
            os.link(temporary, file)
        except FileExistsError:
            return False
        except OSError as err:
            if err.errno not in _NO_LINKS:
                raise
            # a file system without hard links: a kill between the two steps leaves an empty lock, which is told
            with contextlib.suppress(FileExistsError), file.open("xb") as stream:
                stream.write(text)
                return True
            return False
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _read(file: Path) -> Owner | None:
    """Return what a lock says, None if there is none; of one that cannot be read its process number is 0."""
    try:
        content = read_bytes(file, str(file), DataError, Limit("GALIREP_MAX_LOCK_BYTES", 1 << 16, "bytes", "a lock"))
    except DataError:
        if not os.path.lexists(file):
            return None
        return Owner(0, "", "", "", "", "", "0" * 8)
    try:
        return read_record(Owner, json.loads(content), str(file), DataError, ignore_unknown=True)
    except (ValueError, RecursionError, DataError):
        return Owner(0, "", "", "", "", "", hashlib.sha256(content).hexdigest()[:8])


def _in_use(path: Path, file: Path, holder: Owner, state: State) -> InUseError:
    if not holder.pid:
        return InUseError(
            f"{path} may be in use: its lock {file} does not say by whom; if no process writes it, pass --force-unlock"
        )
    since = holder.since.replace("T", " ").replace("+00:00", " UTC")
    if state == "alive" and holder.pid == os.getpid():
        return InUseError(f"{path} is in use by another call in this process, since {since}", alive=True)
    if state == "alive":
        return InUseError(
            f"{path} is in use: process {holder.pid} writes it since {since}; wait for it, end it, or choose another "
            "output",
            alive=True,
        )
    return InUseError(
        f"{path} may be in use: process {holder.pid} on {holder.process.host} has its lock since {since}, and cannot "
        "be looked at from here; if it has ended, pass --force-unlock"
    )
