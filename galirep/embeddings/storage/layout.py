"""The datasets and attributes of a new embedding file, laid out so that a kill while rows are added cannot damage it.

Everything but the reasons of unreadable images has its place from the start, in one piece, so adding rows changes
nothing in the structure of the file. There are no strings of variable length: HDF5 keeps them in a heap without
checksums, and may not end when that is damaged.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from galirep.data.labels import read_labels
from galirep.embeddings.integrity.checksums import OUTLINE, hash_outline
from galirep.embeddings.schema import ERROR, FORMAT, SCHEMA_VERSION, StoreMeta
from galirep.errors import DataError, format_list
from galirep.system.outputs.hdf5 import HDF5Output

# reasons for which there is room from the start; it doubles when it is full
_ROOM = 64


def create_output(
    partial: Path, meta: StoreMeta, ids: Sequence[str], labels: ArrayLike | None, *, locking: bool | None = None
) -> HDF5Output:
    """Create a file without rows at `partial`, with all its space, and leave it open. Raises as `write_outline`.

    It has another name until its outline is written, so that every .partial can be resumed.

    Raises:
        OSError: it cannot be written, such as on a full disk.
    """
    new = partial.with_name(f"{partial.name}.new")
    output = HDF5Output(new, "w", locking=locking)
    try:
        write_outline(output.file, meta, ids, labels)
        create_room(output.file, "features", (meta.n_expected, meta.dim), np.dtype(meta.dtype))
        seal(output.file)
        output.reserve()
        new.replace(partial)
    except BaseException:
        output.close()
        new.unlink(missing_ok=True)
        # the first error is the cause of those that HDF5 raises later
        output.raise_error()
        raise
    return output


def write_outline(file: h5py.File, meta: StoreMeta, ids: Sequence[str], labels: ArrayLike | None = None) -> None:
    """Write everything but /features: attributes, ids, labels, and room for validity, checksums, errors and progress.

    `seal` must follow.

    Raises:
        DataError: an id or label name is not UTF-8 or has a zero character, or a label is not a whole number of at
            least -1.
        ValueError: the numbers of ids or labels are not `meta.n_expected`.
    """
    rows = meta.n_expected
    if bad := [name for name in (*ids, *meta.label_names) if not _is_utf8(name)]:
        raise DataError(
            "names that are not UTF-8 (or have a zero character) cannot be ids, "
            f"rename the files ({len(bad)}): {format_list(map(ascii, bad))}"
        )
    given = np.full(rows, -1, np.int64) if labels is None else np.asarray(labels)
    if len(ids) != rows or given.shape != (rows,):
        raise ValueError(f"{rows} rows are expected, not {len(ids)} ids and labels {given.shape}")
    column = read_labels("the labels", given, rows)
    if column.names:
        raise DataError(f"the labels are names, the first {column.names[0]!r}: give numbers that index label_names")
    create_texts(file, "ids", ids)
    create_texts(file, "label_names", meta.label_names)
    file.create_dataset("labels", data=column.labels.astype(np.int64))
    create_room(file, "valid", (rows,), np.dtype(np.bool_))
    create_room(file, "checksums", (rows, 2), np.dtype(np.uint32))
    create_room(file, "progress", (2,), np.dtype(np.int64))
    _create_errors(file)
    attributes = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "file_id": secrets.token_hex(8),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **meta.attributes(),
    }
    for name, value in attributes.items():
        write_attribute(file, name, value)


def seal(file: h5py.File) -> None:
    """Write the hash of the outline, which must not be changed after it."""
    write_attribute(file, OUTLINE, hash_outline(file))


def create_texts(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    """Write texts as a dataset of UTF-8 of fixed length, that of the longest."""
    encoded = [text.encode() for text in texts]
    text_type = h5py.string_dtype("utf-8", max(1, max(map(len, encoded), default=1)))
    file.create_dataset(name, data=np.array(encoded, text_type), dtype=text_type)


def create_room(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Create a dataset in one piece that has its place in the file at once; the file is new, so it reads as zeros."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    file.create_dataset(name, shape, dtype, dcpl=creation)


def write_attribute(file: h5py.File, name: str, value: str | int) -> None:
    """Write a root attribute; a text as UTF-8 of fixed length."""
    if isinstance(value, str):
        encoded = value.encode()
        file.attrs.create(name, np.array(encoded), dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))
    else:
        file.attrs[name] = value


def append_errors(table: h5py.Dataset, start: int, errors: Mapping[int, str]) -> None:
    """Add the reasons for the rows `start` + key to /errors, replacing entries for rows from `start` on.

    Such entries are those of a block that was killed before the progress was set.
    """
    rows = table["row"]
    kept = int(((rows >= 0) & (rows < start)).sum())
    entries = [(start + row, _truncate_utf8(errors[row])) for row in sorted(errors)]
    stop, room = kept + len(entries), len(table)
    if stop > room and table.file.attrs["schema_version"] > 1:
        table.resize((max(stop, 2 * room),))
        table[room:] = _blank(len(table) - room)
    elif table.file.attrs["schema_version"] == 1:
        table.resize((stop,))
    table[kept:stop] = np.array(entries, ERROR)
    if len(table) > stop:
        table[stop:] = _blank(len(table) - stop)


def cut_reason(reason: str) -> str:
    """Return a reason as it is stored: cut to the width of the field, without half a character at the end."""
    return _truncate_utf8(reason).decode()


def _create_errors(file: h5py.File) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    file.create_dataset("errors", data=_blank(_ROOM), chunks=(_ROOM,), maxshape=(None,), dcpl=creation)


def _blank(count: int) -> NDArray[np.void]:
    """Return entries that are not used yet: of row -1."""
    return np.array([(-1, b"")] * count, ERROR)


def _truncate_utf8(reason: str) -> bytes:
    """Encode `reason`, cut to the width of the field without half a character at the end."""
    cut = reason.encode(errors="replace")[: ERROR["reason"].itemsize]
    # zeros at the end are not kept in a text of fixed length
    return cut.decode(errors="ignore").encode().rstrip(b"\0")


def _is_utf8(text: str) -> bool:
    # the name of a file with other bytes has surrogates in it; a zero ends a text of fixed length
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
