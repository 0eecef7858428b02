"""Temporary names beside an output, which say whose they are, and what ended processes left under them."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from galirep.system.outputs.processes import state_of_tag, this_process

# what stands behind a temporary name before it takes its place: a file, a folder, a lock, an earlier folder aside
Purpose = Literal["", "new.", "lock.", "old."]
_TAG = r"[0-9a-f]{6}-\d+-[0-9a-f]{6}-[0-9a-f]{4}"
# of version 0.1
_OLD_TAG = r"[0-9a-f]{8}"


def temporary_name(path: Path, purpose: Purpose = "") -> Path:
    """Return a hidden name beside `path` that no other call returns: `.NAME.[PURPOSE.]PLACE-PID-START-RANDOM.tmp`."""
    return path.with_name(f".{path.name}.{purpose}{this_process().tag}-{secrets.token_hex(2)}.tmp")


def remove_leftovers(path: Path) -> None:
    """Remove what writers of `path` left under temporary names; the caller holds the lock of `path`.

    Nothing of a living process is touched but what the caller's own left. As the lock is held, what processes of other
    hosts left is removed too. A folder that was put aside is put back if nothing took its place. Of an output that is
    not locked, see `remove_leftovers_of_ended`.
    """
    own = this_process().tag
    # of those who took over a lock of this output, which is held now
    for guard in _matching(path.parent, rf"\.{re.escape(path.name)}\.lock\.[0-9a-f]{{8}}"):
        remove(guard)
    for leftover, purpose, tag in _leftovers(path.parent, re.escape(path.name)):
        state = state_of_tag(tag) if "-" in tag else "unknown"
        if state == "alive" and not tag.startswith(own):
            continue
        # of a host that cannot be asked: its process may be trying for the lock just now
        if purpose == "lock." and state != "gone":
            continue
        if purpose == "old." and not path.exists():
            leftover.rename(path)
        else:
            remove(leftover)


def remove_leftovers_of_ended(path: Path) -> None:
    """Remove what processes of this host that ended left of an output that several may write at a time."""
    for leftover, _, tag in _leftovers(path.parent, re.escape(path.name)):
        if "-" in tag and state_of_tag(tag) == "gone":
            remove(leftover)


def remove_leftovers_within(folder: Path) -> None:
    """Remove what ended processes left under temporary names in a folder and below; the caller holds its lock."""
    for inner, _, _ in os.walk(folder):
        for leftover, _, tag in _leftovers(Path(inner), ".+"):
            if "-" not in tag or state_of_tag(tag) != "alive":
                remove(leftover)


def restore_folder(path: Path) -> None:
    """Put a folder back that an ended process had put aside for a new one, if nothing took its place."""
    if path.exists() or not path.parent.is_dir():
        return
    for leftover, purpose, tag in _leftovers(path.parent, re.escape(path.name)):
        if purpose == "old." and state_of_tag(tag) == "gone":
            with suppress(OSError):
                leftover.rename(path)
            return


def is_temporary(name: str) -> bool:
    """Return whether a file's name is one that `temporary_name` gives."""
    return re.fullmatch(_pattern(".+"), name) is not None


def is_temporary_of(path: Path, output: Path) -> bool:
    """Return whether a path is a temporary name of an output."""
    return path.parent == output.parent and re.fullmatch(_pattern(re.escape(output.name)), path.name) is not None


def lasting_name(path: Path) -> Path:
    """Return a path with the outputs that its temporary names stand for, for messages."""
    pattern = re.compile(_pattern("(?P<output>.+)"))
    return Path(*(found["output"] if (found := pattern.fullmatch(part)) else part for part in path.parts))


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there and may be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _pattern(name: str) -> str:
    # what HDF5 writes has a suffix of its own
    return rf"\.(?:{name})\.(new\.|lock\.|old\.)?({_TAG}|{_OLD_TAG})\.tmp(?:\.partial(?:\.new)?)?"


def _leftovers(folder: Path, name: str) -> Iterator[tuple[Path, str, str]]:
    """Yield temporary names of outputs whose name matches, each with its purpose and tag."""
    pattern = re.compile(_pattern(name))
    for path in _matching(folder, pattern.pattern):
        if found := pattern.fullmatch(path.name):
            yield path, found[1] or "", found[2]


def _matching(folder: Path, pattern: str) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if re.fullmatch(pattern, entry.name)]
