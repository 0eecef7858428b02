"""The checksums of an embedding file (schema 2): two of each row, and one of everything that is fixed from the start.

They detect accidents, not manipulation. docs/embeddings.md states them in full.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.schema import read_progress, read_reasons, schema_of
from galirep.errors import DataError, format_list
from galirep.system.reading.hdf5 import attribute, reading

OUTLINE = "outline"
"""The root attribute that has the hash of the outline."""
# datasets whose every value is in the outline; of the others it has the name, the shape and the type
_FIXED = ("ids", "label_names", "labels", "parts")
# this one grows
_GROWING = ("errors",)
_BLOCK_BYTES = 1 << 24


def sum_features(features: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the CRC-32 of the bytes of each row, (B,) of (B, D) in the stored type."""
    if not features.size:
        return np.zeros(len(features), np.uint32)
    data = np.ascontiguousarray(features).view(np.uint8).reshape(-1).data
    width, crc32 = len(data) // len(features), zlib.crc32
    return np.fromiter((crc32(data[i : i + width]) for i in range(0, len(data), width)), np.uint32, len(features))


def sum_labels(
    ids: Sequence[bytes], labels: NDArray[Any], valid: NDArray[Any], reasons: Mapping[int, str]
) -> NDArray[np.uint32]:
    """Return the CRC-32 of what a row has beside its features, (B,).

    It is that of the id (UTF-8), the label (int64, little-endian), the validity (one byte) and, for the rows in
    `reasons` (by position), the reason (UTF-8).
    """
    numbers, flags = labels.astype("<i8").tobytes(), np.asarray(valid).view(np.uint8).tobytes()
    rows = (
        b"%b%b%b%b" % (name, numbers[8 * i : 8 * i + 8], flags[i : i + 1], reasons[i].encode() if i in reasons else b"")
        for i, name in enumerate(ids)
    )
    return np.fromiter(map(zlib.crc32, rows), np.uint32, len(ids))


def hash_outline(file: h5py.File) -> str:
    """Return the SHA-256, in hex, of everything in an open file that is fixed before the first row is written.

    That are the root attributes, the names, shapes and types of the datasets, and the ids, labels, label names and
    parts.
    """
    attributes = {name: attribute(file, name) for name in sorted(file.attrs) if name != OUTLINE}
    datasets = {name: _describe(file[name], name) for name in sorted(file)}
    digest = hashlib.sha256(json.dumps([attributes, datasets], sort_keys=True).encode())
    for name in _FIXED:
        if name in file:
            rows = max(1, _BLOCK_BYTES // max(1, file[name].dtype.itemsize))
            for start in range(0, len(file[name]), rows):
                digest.update(file[name][start : start + rows].tobytes())
    return digest.hexdigest()


def check_outline(file: h5py.File) -> bool:
    """Return whether the outline of an open file (schema 2) is the one that was written."""
    return bool(hash_outline(file) == attribute(file, OUTLINE))


def find_damaged_rows(file: h5py.File, *, features: bool = True) -> NDArray[np.int64]:
    """Return the rows of an open file (schema 2), among those written, that do not have their checksums.

    Without `features` these are not read.
    """
    written, reasons, table = read_progress(file).n_written, read_reasons(file), file["features"]
    size = max(1, _BLOCK_BYTES // max(1, table.shape[1] * table.dtype.itemsize)) if features else 1 << 16
    damaged = [np.empty(0, np.int64)]
    for start, stop in _blocks(written, size):
        rows = slice(start, stop)
        here = {row - start: reason for row, reason in reasons.items() if start <= row < stop}
        stored = file["checksums"][rows]
        wrong = sum_labels(file["ids"][rows].tolist(), file["labels"][rows], file["valid"][rows], here) != stored[:, 1]
        if features:
            wrong |= sum_features(table[rows]) != stored[:, 0]
        damaged.append(start + np.flatnonzero(wrong))
    return np.concatenate(damaged)


def require_intact(
    file: h5py.File, path: Path, advice: str = "make it again or copy it again", *, features: bool = True
) -> None:
    """Check the outline and every row written of an open file; one of schema 1 has no checksums and passes.

    Without `features` these are not read.

    Raises:
        DataError: something is not what was written; `advice` ends the message.
    """
    if schema_of(file) == 1:
        return
    with reading(path):
        if not check_outline(file):
            raise DataError(f"{path} is damaged: its metadata, ids or labels are not those that were written; {advice}")
        if len(rows := find_damaged_rows(file, features=features)):
            raise DataError(f"{path} is damaged: {describe_rows(file, rows)} not have their checksums; {advice}")


def describe_rows(file: h5py.File, rows: NDArray[np.int64]) -> str:
    """Return `2 of 90 rows (5, 6) do`, for a sentence about rows."""
    return f"{len(rows)} of {read_progress(file).n_written} rows ({format_list(map(str, rows.tolist()))}) do"


def _describe(item: Any, name: str) -> list[Any]:
    if not isinstance(item, h5py.Dataset):
        return ["group"]
    shape = [0] if name in _GROWING else list(item.shape or ())
    return [shape, [str(item.dtype), getattr(h5py.check_string_dtype(item.dtype), "encoding", None)]]


def _blocks(count: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, size):
        yield start, min(start + size, count)
