"""The datasets and attributes of a new embedding file, laid out so that a kill while rows are added cannot damage it.

Ids and labels are written first and /features gets all its chunks (zeros) at once, so adding rows changes nothing in
the structure of the file.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from galirep.data.labels import read_labels
from galirep.embeddings.schema import ERROR, FORMAT, SCHEMA_VERSION, StoreMeta
from galirep.errors import DataError, format_list

_CHUNK_BYTES = 1 << 18


def write_outline(file: h5py.File, meta: StoreMeta, ids: Sequence[str], labels: ArrayLike | None = None) -> None:
    """Write everything but /features: attributes, ids, labels, and empty datasets for validity and errors.

    Raises:
        DataError: an id or label name is not UTF-8, or a label is not a whole number of at least -1.
        ValueError: the numbers of ids or labels are not `meta.n_expected`.
    """
    text_type, rows = h5py.string_dtype(), meta.n_expected
    if bad := [name for name in (*ids, *meta.label_names) if not _is_utf8(name)]:
        raise DataError(
            f"names that are not UTF-8 cannot be ids, rename the files ({len(bad)}): {format_list(map(ascii, bad))}"
        )
    given = np.full(rows, -1, np.int64) if labels is None else np.asarray(labels)
    if len(ids) != rows or given.shape != (rows,):
        raise ValueError(f"{rows} rows are expected, not {len(ids)} ids and labels {given.shape}")
    column = read_labels("the labels", given, rows)
    if column.names:
        raise DataError(f"the labels are names, the first {column.names[0]!r}: give numbers that index label_names")
    label_column = column.labels
    file.create_dataset("ids", (rows,), text_type, list(ids), chunks=_chunks(rows, 16), maxshape=(None,))
    file.create_dataset("labels", (rows,), np.int64, label_column, chunks=_chunks(rows, 8), maxshape=(None,))
    file.create_dataset("label_names", (len(meta.label_names),), text_type, list(meta.label_names))
    _create_preallocated(file, "valid", (rows,), np.dtype(np.bool_))
    file.create_dataset("errors", (0,), ERROR, chunks=(64,), maxshape=(None,))
    attributes = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "file_id": secrets.token_hex(8),
        "n_written": 0,
        "complete": False,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **meta.attributes(),
    }
    for name, value in attributes.items():
        file.attrs[name] = value


def create_features(file: h5py.File, meta: StoreMeta) -> None:
    """Create /features with all its chunks (zeros)."""
    _create_preallocated(file, "features", (meta.n_expected, meta.dim), np.dtype(meta.dtype))


def append_errors(table: h5py.Dataset, start: int, errors: Mapping[int, str]) -> None:
    """Add the reasons for the rows `start` + key to /errors, replacing entries for rows from `start` on.

    Such entries are those of a block that was killed before its `n_written` was set.
    """
    kept = int((table["row"] < start).sum())
    entries = [(start + row, _truncate_utf8(errors[row])) for row in sorted(errors)]
    table.resize((kept + len(entries),))
    table[kept:] = np.array(entries, ERROR)


def _truncate_utf8(reason: str) -> bytes:
    """Encode `reason`, cut to the width of the field without half a character at the end."""
    cut = reason.encode(errors="replace")[: ERROR["reason"].itemsize]
    return cut.decode(errors="ignore").encode()


def _is_utf8(text: str) -> bool:
    # the name of a file with other bytes has surrogates in it
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _chunks(rows: int, row_bytes: int, *tail: int) -> tuple[int, ...]:
    return (max(1, min(rows, _CHUNK_BYTES // max(row_bytes, 1))), *tail)


def _create_preallocated(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    rows, *tail = shape
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    row_bytes = int(np.prod(tail, dtype=np.int64)) * dtype.itemsize
    chunks = _chunks(rows, row_bytes, *tail)
    file.create_dataset(name, shape, dtype, chunks=chunks, maxshape=(None, *tail), dcpl=creation)
