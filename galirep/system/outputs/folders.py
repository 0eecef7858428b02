"""Folders that take their place in one step: built beside it, and swapped with what is there."""

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from galirep.errors import ConfigError
from galirep.system.outputs.temporary import remove, temporary_name

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def replacing_folder(path: Path, *, renewed: Collection[str] | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place on a clean exit, and is removed on an error.

    What is at `path` is replaced. With `renewed`, only what has these names in it: everything else in the folder is
    kept, by hard links where the file system has them.

    Raises:
        ConfigError: see `take_place`.
    """
    path = path.resolve()
    _require_replaceable(path)
    folder = temporary_name(path, "new.")
    folder.mkdir()
    try:
        yield folder
        if renewed is not None and path.is_dir():
            for item in sorted(path.iterdir()):
                if item.name not in renewed and not (folder / item.name).exists():
                    _link(item, folder / item.name)
        take_place(folder, path)
    finally:
        remove(folder)


def take_place(new: Path, path: Path) -> None:
    """Put the folder `new` at `path`, on the same disk; what was there is removed after that.

    At every moment one of the two is at `path`, where the system can exchange names (Linux, on its own file systems).
    Elsewhere there is a moment between two renames, which `restore_folder` makes good.

    Raises:
        ConfigError: `path` is the working folder, or something is mounted on it.
    """
    path = path.resolve()
    _require_replaceable(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        # also onto an empty folder, in one step
        new.rename(path)
        return
    if not _exchange(new, path):
        old = temporary_name(path, "old.")
        path.rename(old)
        new.rename(path)
        remove(old)
    remove(new)


def _require_replaceable(path: Path) -> None:
    if path.is_dir() and (path == Path.cwd().resolve() or path.is_mount()):
        what = "a disk is mounted on it" if path.is_mount() else "it is the working folder"
        raise ConfigError(f"cannot replace the folder {path}: {what}; name a folder in it")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; return False if the system or the file system cannot."""
    # so that a process can be ended just before it, in tests
    sys.audit("galirep.exchange", str(one), str(other))
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _link(source: Path, target: Path) -> None:
    """Give a file or all files of a folder a second name."""
    if source.is_symlink() or not source.is_dir():
        _link_file(source, target)
    else:
        shutil.copytree(source, target, symlinks=True, copy_function=_link_file)


def _link_file(source: str | Path, target: str | Path) -> object:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # a file system without hard links
        return shutil.copy2(source, target, follow_symlinks=False)
    return target
