"""HDF5 files written through Python, so that a full disk is an error and does not end the process.

HDF5 keeps what it could not write and tries again when it closes the file, where a failure is a segmentation fault
(HDF5 2.0 in h5py 3.16, of virtual files, of strings and of attributes). So HDF5 is never told: the file object below
keeps the first error and lets HDF5 go on, and its owner raises the error afterwards.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import h5py

# HDF5 1.8: the structure of a file has checksums, and no marks that a killed writer would leave behind
LIBVER = ("v108", "v110")
# whatever is smaller lies within one sector of the disk, where it is written at once or not at all
ALIGNMENT = 16
Buffer: TypeAlias = bytes | bytearray | memoryview


class HDF5Output:
    """A file that HDF5 and its owner write: `file` is the open `h5py.File`, `write_at` writes beside it.

    `mode` is w (a new file) or r+. `locking=False` does without the lock, which is that of HDF5 (flock), so that
    readers of any kind notice it; the environment variable HDF5_USE_FILE_LOCKING is respected.

    Raises:
        OSError: the file cannot be opened, or is locked by another process.
    """

    def __init__(self, path: Path, mode: Literal["w", "r+"], *, locking: bool | None = None) -> None:
        self.path = path
        self.error: OSError | None = None
        self._position = 0
        self._fd = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if mode == "w" else 0) | os.O_CLOEXEC, 0o666)
        try:
            _lock(self._fd, locking)
            self.file = h5py.File(
                self, mode, libver=LIBVER, alignment_threshold=ALIGNMENT, alignment_interval=ALIGNMENT
            )
        except BaseException:
            os.close(self._fd)
            raise

    def __repr__(self) -> str:
        return str(self.path)

    def raise_error(self) -> None:
        """Raise the first error of writing, if there was one.

        Raises:
            OSError: such as that of a full disk.
        """
        if self.error is not None:
            raise self.error

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise the first error of writing on exit, also in place of what HDF5 raises in consequence."""
        try:
            yield
        except Exception:
            self.raise_error()
            raise
        self.raise_error()

    def close(self) -> None:
        """Close the file; call `raise_error` after it to learn whether all was written."""
        if self._fd < 0:
            return
        try:
            self.file.close()
        finally:
            os.close(self._fd)
            self._fd = -1

    @property
    def size(self) -> int:
        """Bytes of the file on disk."""
        return os.fstat(self._fd).st_size

    def reserve(self) -> None:
        """Ask the file system for all the space that the file declares, so that it cannot be lacking later.

        Raises:
            OSError: there is not enough.
        """
        self.file.flush()
        self.raise_error()
        if hasattr(os, "posix_fallocate") and self.size:
            os.posix_fallocate(self._fd, 0, self.size)

    def read_at(self, offset: int, size: int) -> bytes:
        """Read bytes of the file, which must be there.

        Raises:
            OSError: the file is shorter.
        """
        content = os.pread(self._fd, size, offset)
        if len(content) < size:
            raise OSError(f"{self.path} ends before byte {offset + size:,}")
        return content

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write bytes into the file, in place; an error is kept (`raise_error`), and after one nothing is written."""
        rest = memoryview(data).cast("B")
        while len(rest) and self.error is None:
            try:
                written = os.pwrite(self._fd, rest, offset)
            except OSError as err:
                self.error = err
                return
            rest, offset = rest[written:], offset + written

    # What h5py's driver `fileobj` asks for.

    def write(self, data: Buffer) -> int:
        """Write at the position."""
        size = memoryview(data).nbytes
        self.write_at(self._position, data)
        self._position += size
        return size

    def read(self, size: int) -> bytes:
        """Read at the position."""
        content = os.pread(self._fd, size, self._position)
        self._position += len(content)
        return content

    def readinto(self, buffer: Buffer) -> int:
        """Read into a buffer at the position; what could not be written reads as zeros."""
        view = memoryview(buffer).cast("B")
        content = os.pread(self._fd, len(view), self._position)
        view[: len(content)] = content
        view[len(content) :] = bytes(len(view) - len(content))
        self._position += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int) -> int:
        """Set the size; a file that cannot grow keeps its error."""
        if self.error is None:
            try:
                os.ftruncate(self._fd, size)
            except OSError as err:
                self.error = err
        return size

    def flush(self) -> None:
        """Do nothing: all is written at once."""


@contextmanager
def writing_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that is written and closed on exit.

    Raises:
        OSError: it could not be written, such as on a full disk.
    """
    output = HDF5Output(path, "w")
    try:
        yield output.file
    except BaseException:
        output.close()
        # the first error is the cause of those that HDF5 raises later
        output.raise_error()
        raise
    output.close()
    output.raise_error()


def _lock(fd: int, locking: bool | None) -> None:
    """Lock a file as HDF5 does.

    Raises:
        BlockingIOError: another process has it.
    """
    setting = os.environ.get("HDF5_USE_FILE_LOCKING", "").upper()
    if locking is False or (locking is None and setting in ("FALSE", "0")):
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        # a file system without locks
        if setting != "BEST_EFFORT":
            raise
