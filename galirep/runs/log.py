"""train.log: what a run logs goes there, and to the handlers of the user as far as their levels let it pass."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galirep.errors import CheckpointError
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.printable import printable
from galirep.system.reading.files import kind_of


@contextmanager
def run_log(path: Path) -> Iterator[logging.Logger]:
    """Open the logger `galirep.runs`: it appends to the file `path`, and passes on what the user's loggers ask for.

    Raises:
        CheckpointError: `path` is a pipe, a device or a folder.
    """
    if kind := kind_of(path):
        raise CheckpointError(f"{path} is {kind}, not a file")
    logger, file, parent = (
        logging.getLogger("galirep.runs"),
        _File(path, encoding="utf-8"),
        _Parent(),
    )
    file.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    # INFO is for the file; the level that the user chose decides what goes further up
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in (file, parent):
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in (file, parent):
            logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        # closing writes what could not be written before
        with explain_full_disk(path):
            file.close()


class _File(logging.FileHandler):
    """A handler that raises if the file cannot be written; logging itself prints a traceback and goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Raise the error that is being handled; that of a full disk as `DataError`."""
        with explain_full_disk(Path(self.baseFilename)):
            raise


class _OneLine(logging.Formatter):
    """A formatter that escapes what names of files or classes would do to a terminal, or to the lines of a log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the formatted record on one line."""
        return printable(super().formatMessage(record))


class _Parent(logging.Handler):
    """Hand records to the logger `galirep`, and so to the user's handlers, if its level lets them pass."""

    def emit(self, record: logging.LogRecord) -> None:
        parent = logging.getLogger("galirep")
        if parent.isEnabledFor(record.levelno):
            parent.handle(record)
