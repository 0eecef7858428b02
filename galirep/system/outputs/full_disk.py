"""Full disks, quotas and file-size limits: one clear error in place of what the libraries say."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galirep.errors import DataError
from galirep.system.outputs.temporary import lasting_name

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# a library that writes by itself names the cause only in its text
_IN_TEXT = re.compile(rf"(?:errno(?: =)?|os error) (?:{'|'.join(map(str, NO_SPACE))})\b")


def is_full_disk(err: BaseException) -> bool:
    """Return whether an error says that a disk, a quota or the largest size of a file is reached."""
    if getattr(err, "errno", None) in NO_SPACE:
        return True
    return _IN_TEXT.search(str(err).lower()) is not None


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
            raise full_disk_error(path) from err
        raise


def full_disk_error(path: Path) -> DataError:
    """Return the error that there is no space for `path`."""
    name = lasting_name(path)
    return DataError(f"no space left for {name}: free some and run again; what was there before is untouched")
