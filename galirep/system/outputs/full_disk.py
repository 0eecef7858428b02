"""Full disks, quotas and file-size limits: one clear error in place of what the libraries say."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galirep.errors import DataError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# a library that writes by itself names the cause only in its text: HDF5 by the number, others by the words
_IN_TEXT = ("errno = {0}", "[errno {0}]", "errno {0}:", "os error {0}")


def is_full_disk(err: BaseException) -> bool:
    """Return whether an error says that a disk, a quota or the largest size of a file is reached."""
    if getattr(err, "errno", None) in NO_SPACE:
        return True
    text = str(err).lower()
    return any(pattern.format(number) in text for number in NO_SPACE for pattern in _IN_TEXT)


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn errors that a full disk, quota or file-size limit causes while `path` is written into one clear error.

    Raises:
        DataError: in place of such an error; other errors are not changed.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as err:
        if is_full_disk(err):
            raise DataError(
                f"no space left for {path}: free some and run again; what was there before is untouched"
            ) from err
        raise
