"""Where an interrupted embedding file is gone on with: what its checksums say of the rows that it has.

What is found is logged as a warning, and returned as notes for results.
"""

import logging
from pathlib import Path

import h5py

from galirep.embeddings.integrity.checksums import check_outline, describe_rows, find_damaged_rows
from galirep.embeddings.reader import Embeddings
from galirep.embeddings.schema import read_progress, schema_of
from galirep.errors import DataError
from galirep.system.reading.hdf5 import reading

_NO_CHECKSUMS = "is of schema 1, which has no checksums"
_log = logging.getLogger(__name__)


def find_start(file: h5py.File, partial: Path, n_expected: int, multiple_of: int) -> tuple[int, tuple[str, ...]]:
    """Return the first row to write of an open .partial, a multiple of `multiple_of` unless all are there, and notes.

    From the first row on that does not have its checksums, rows are written again.

    Raises:
        DataError: the file is damaged outside its rows.
    """
    row, notes = read_progress(file).n_written, []
    if schema_of(file) == 1:
        notes.append(
            f"{partial.name} {_NO_CHECKSUMS}: it is resumed as schema 1, and the rows that it has are not checked "
            "(galirep merge writes a finished file as schema 2)"
        )
    else:
        with reading(partial):
            if not check_outline(file):
                raise DataError(
                    f"{partial} is damaged: its metadata, ids or labels are not those that were written; "
                    "pass --overwrite to start again"
                )
            damaged = find_damaged_rows(file)
        row = int(damaged[0]) if len(damaged) else row
    start = row if row == n_expected else row // multiple_of * multiple_of
    if schema_of(file) > 1 and len(damaged):
        rows = describe_rows(file, damaged)
        notes.append(f"{partial.name} is damaged: {rows} not have their checksums; rows from {start} on are made again")
    return start, _tell(notes)


def check_complete(embeddings: Embeddings) -> tuple[str, ...]:
    """Check that a complete file is what was written, where it has checksums; return notes.

    Raises:
        DataError: it is not.
    """
    embeddings.require_intact()
    old = embeddings.schema_version == 1
    return _tell([f"{embeddings.path.name} {_NO_CHECKSUMS}: its rows are not checked"] if old else [])


def _tell(notes: list[str]) -> tuple[str, ...]:
    for note in notes:
        _log.warning("%s", note)
    return tuple(notes)
