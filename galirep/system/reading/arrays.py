"""Arrays of npy and npz files: what the header declares is held against the file before memory is asked for."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from galirep.errors import DataError
from galirep.system.reading.files import parsing, require_regular
from galirep.system.reading.limits import require_inflated

_MAX_AXES = 32


class Npz:
    """An open npz file; get one with `open_npz`. `names` are those of its arrays."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, what: str) -> None:
        self._archive, self._path, self._what = archive, path, what
        members = archive.namelist()
        if len(set(members)) < len(members):
            raise DataError(f"{what} has the array {next(m for m in members if members.count(m) > 1)!r} twice")
        self._members = {name.removesuffix(".npy"): name for name in members if name.endswith(".npy")}
        self.names = list(self._members)

    def read(self, name: str) -> NDArray[Any]:
        """Read one array.

        Raises:
            DataError: it is damaged, of Python objects, or unpacks to more than is allowed.
        """
        what = f"{name} of {self._what}"
        with parsing(f"{what} cannot be read", DataError), self._archive.open(self._members[name]) as member:
            info = self._archive.getinfo(self._members[name])
            require_inflated(info.file_size, max(1, info.compress_size), what, DataError)
            if info.compress_type == zipfile.ZIP_STORED and info.file_size > self._path.stat().st_size:
                raise DataError(f"{what} declares {info.file_size:,} bytes, more than the file has")
            head = _read_head(member, what, info.file_size, name)
            return _fill(member, head, what)


@contextmanager
def open_npz(path: Path, what: str) -> Iterator[Npz]:
    """Open an npz file; `what` names it in messages.

    Raises:
        DataError: it is no regular file, or not a zip.
    """
    require_regular(path, what, DataError)
    with parsing(f"{what} is not a readable npz file", DataError):
        archive = zipfile.ZipFile(path)
    with archive:
        yield Npz(archive, path, what)


def is_npy(path: Path) -> bool:
    """Return whether a regular file is a single array."""
    with path.open("rb") as file:
        return file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX


def map_npy(path: Path) -> NDArray[Any]:
    """Map an npy file into memory, read-only.

    Raises:
        DataError: it is no regular file, damaged, of Python objects, or declares more than the file has.
    """
    what = str(path)
    require_regular(path, what, DataError)
    with parsing(f"{what} is not a readable .npy file", DataError), path.open("rb") as file:
        shape, fortran, dtype = _read_head(file, what, path.stat().st_size)
        offset = file.tell()
        if not math.prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _read_head(
    file: IO[bytes], what: str, size: int, name: str = "array"
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an npy stream of `size` bytes."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise DataError(f"{what} has npy version {version}, which is not known")
    # a header of version 3 differs in its encoding alone
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DataError(f"{what} are Python objects, which are not unpickled: save {name}.astype(str), or numbers")
    if len(shape) > _MAX_AXES or any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in shape):
        raise DataError(f"{what} declares the shape {str(shape)[:100]}")
    # without the header, which is short beside it
    if (declared := math.prod(shape) * max(1, dtype.itemsize)) > size:
        raise DataError(f"{what} declares the shape {shape} of {dtype}, {declared:,} bytes, but has {size:,}")
    return shape, fortran, dtype


def _fill(file: IO[bytes], head: tuple[tuple[int, ...], bool, np.dtype[Any]], what: str) -> NDArray[Any]:
    shape, fortran, dtype = head
    needed = math.prod(shape) * dtype.itemsize
    content = file.read(needed)
    if len(content) < needed:
        raise DataError(f"{what} ends {needed - len(content):,} bytes too early")
    array = np.frombuffer(bytearray(content), dtype) if needed else np.empty(0, dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
