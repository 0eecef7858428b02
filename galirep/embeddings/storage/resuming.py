"""Where an interrupted embedding file is gone on with: what its checksums say of the rows that it has."""

from pathlib import Path

import h5py

from galirep.embeddings.integrity.checksums import check_outline, describe_rows, find_damaged_rows
from galirep.embeddings.schema import read_progress, schema_of
from galirep.errors import DataError
from galirep.system.reading.hdf5 import reading

NO_CHECKSUMS = "is of schema 1, which has no checksums"


def find_start(file: h5py.File, partial: Path, n_expected: int, multiple_of: int) -> tuple[int, tuple[str, ...]]:
    """Return the first row to write of an open .partial, a multiple of `multiple_of` unless all are there, and notes.

    From the first row on that does not have its checksums, rows are written again.

    Raises:
        DataError: the file is damaged outside its rows.
    """
    written = read_progress(file).n_written
    if schema_of(file) == 1:
        note = (
            f"{partial.name} {NO_CHECKSUMS}: it is resumed as schema 1, and the rows that it has are not checked "
            "(galirep merge writes a finished file as schema 2)"
        )
        return _round(written, n_expected, multiple_of), (note,)
    with reading(partial):
        if not check_outline(file):
            raise DataError(
                f"{partial} is damaged: its metadata, ids or labels are not those that were written; "
                "pass --overwrite to start again"
            )
        damaged = find_damaged_rows(file)
    if not len(damaged):
        return _round(written, n_expected, multiple_of), ()
    start = _round(int(damaged[0]), n_expected, multiple_of)
    rows = describe_rows(file, damaged)
    return start, (f"{partial.name} is damaged: {rows} not have their checksums; rows from {start} on are made again",)


def _round(row: int, n_expected: int, multiple_of: int) -> int:
    return row if row == n_expected else row // multiple_of * multiple_of
