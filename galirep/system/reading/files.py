"""Opening a file that somebody named: only a regular one, and no more of it than expected."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galirep.errors import GalirepError
from galirep.system.reading.limits import Limit

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
}


def kind_of(path: str | Path) -> str | None:
    """Return what stands behind a name or link that is no regular file: `a pipe`; None of a file, or of nothing."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (also for texts)
    except (OSError, ValueError):
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def require_regular(path: str | Path, what: str, error: type[GalirepError]) -> None:
    """Check that a path leads to a regular file, which a reader may open: a pipe would make it wait for ever.

    Raises:
        GalirepError: of the type `error`: there is no such file, or it is a pipe, device, socket or directory.
    """
    if kind := kind_of(path):
        raise error(f"{what} is {kind}, not a file")
    try:
        os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as err:
        raise error(f"cannot read {what}: {reason_of(err)}") from None


def read_regular(path: str | Path) -> bytes:
    """Read a regular file whole, as quickly as can be.

    Raises:
        OSError: it cannot be read, or is a pipe, device, socket or directory, which is not opened.
    """
    kind = kind_of(path)
    # a folder is refused by opening it
    if kind not in (None, "a directory"):
        raise OSError(f"it is {kind}, not a file")
    # a Path and a buffer each take longer than reading a small image
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def read_bytes(path: Path, what: str, error: type[GalirepError], limit: Limit | None = None) -> bytes:
    """Read a regular file whole, if its size keeps the limit.

    Raises:
        GalirepError: of the type `error`: the file cannot be read, is no regular one or is larger than the limit.
    """
    require_regular(path, what, error)
    try:
        if limit is not None:
            limit.require(path.stat().st_size, what, error)
        return path.read_bytes()
    except OSError as err:
        raise error(f"cannot read {what}: {reason_of(err)}") from None


def reason_of(err: BaseException) -> str:
    """Return what an exception says, in one line and without a chain of paths."""
    text = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return " ".join(text.split())[:300] or type(err).__name__


@contextmanager
def parsing(what: str, error: type[GalirepError]) -> Iterator[None]:
    """Turn whatever a library's parser raises on damaged bytes into one line: `what`, and the reason.

    HDF5, zip, pickle, tar, numpy, YAML and Arrow raise a dozen types, MemoryError and RecursionError among them, and
    no list of theirs is complete. It is put round calls of such a library and nothing else, so that it hides no bug.

    Raises:
        GalirepError: of the type `error`; one that is raised within passes through.
    """
    try:
        yield
    except GalirepError:
        raise
    except RecursionError:
        raise error(f"{what}: it is nested too deeply") from None
    except MemoryError:
        raise error(f"{what}: it asks for more memory than there is") from None
    except Exception as err:
        raise error(f"{what}: {reason_of(err)}") from err
    except BaseException as err:
        # of extensions in Rust
        if type(err).__name__ != "PanicException":
            raise
        raise error(f"{what}: {reason_of(err)}") from err
