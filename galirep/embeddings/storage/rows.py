"""Adding rows to an open embedding file: in place and with checksums (schema 2), or as schema 1 did."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.integrity.checksums import sum_features, sum_labels
from galirep.embeddings.schema import StoreMeta, schema_of
from galirep.embeddings.storage.layout import append_errors, cut_reason
from galirep.system.outputs.hdf5 import HDF5Output


class RowStore(Protocol):
    """Where `EmbeddingWriter` puts rows. An error of writing is raised as OSError."""

    def write(self, start: int, rows: NDArray[Any], valid: NDArray[np.bool_], errors: Mapping[int, str]) -> None:
        """Write rows (B, D), of the stored type, from `start` on, and then that they are there."""

    def set_progress(self, n_written: int, complete: bool = False) -> None:
        """Write how far the file is."""


def row_store(output: HDF5Output, meta: StoreMeta) -> RowStore:
    """Return the store for the schema of an open file.

    Raises:
        ValueError: a dataset of schema 2 is not in one piece within the file.
    """
    return SchemaOneRows(output) if schema_of(output.file) == 1 else RowsInPlace(output, meta)


class RowsInPlace:
    """Schema 2: every dataset has its place in the file, where rows are written past HDF5, in an order that is kept.

    The number of rows is written last, by one small write within a sector of the disk.
    """

    def __init__(self, output: HDF5Output, meta: StoreMeta) -> None:
        self._output = output
        self._offsets = {}
        for name in ("features", "ids", "labels", "valid", "checksums", "progress"):
            dataset = output.file[name]
            offset, size = dataset.id.get_offset(), dataset.size * dataset.dtype.itemsize
            if size and (offset is None or offset + size > output.size):
                raise ValueError(f"its dataset {name!r} is not in one piece within the file")
            self._offsets[name] = offset or 0
        self._id_type = np.dtype(("S", output.file["ids"].dtype.itemsize))
        self._row_bytes = meta.dim * np.dtype(meta.dtype).itemsize

    def write(self, start: int, rows: NDArray[Any], valid: NDArray[np.bool_], errors: Mapping[int, str]) -> None:
        """Write the rows, their validity and checksums, and then the progress."""
        count, output = len(rows), self._output
        if count:
            ids, labels = self._read("ids", start, count, self._id_type), self._read("labels", start, count, "<i8")
            reasons = {row: cut_reason(reason) for row, reason in errors.items()}
            sums = np.stack([sum_features(rows), sum_labels(ids.tolist(), labels, valid, reasons)], axis=1)
            self._write("features", start * self._row_bytes, rows)
            self._write("valid", start, valid)
            self._write("checksums", start * 8, sums)
        if errors:
            append_errors(output.file["errors"], start, errors)
            output.file.flush()
        self.set_progress(start + count)

    def set_progress(self, n_written: int, complete: bool = False) -> None:
        """Write the dataset /progress."""
        self._output.raise_error()
        self._write("progress", 0, np.array([n_written, complete], np.int64))
        self._output.raise_error()

    def _read(self, name: str, start: int, count: int, dtype: Any) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize
        return np.frombuffer(self._output.read_at(self._offsets[name] + start * size, count * size), dtype)

    def _write(self, name: str, offset: int, values: NDArray[Any]) -> None:
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        self._output.write_at(self._offsets[name] + offset, data)


class SchemaOneRows:
    """Schema 1, for files that an earlier version began: rows in chunks, the progress in attributes."""

    def __init__(self, output: HDF5Output) -> None:
        self._output = output

    def write(self, start: int, rows: NDArray[Any], valid: NDArray[np.bool_], errors: Mapping[int, str]) -> None:
        """Write the rows and their validity, flush, and then write the progress."""
        file, stop = self._output.file, start + len(rows)
        file["features"][start:stop] = rows
        file["valid"][start:stop] = valid
        if errors:
            append_errors(file["errors"], start, errors)
        # the rows must be in the file before the number that says so
        file.flush()
        self.set_progress(stop)

    def set_progress(self, n_written: int, complete: bool = False) -> None:
        """Write the attributes, in place: an assignment would delete them and create them again."""
        self._output.raise_error()
        attributes = self._output.file.attrs
        attributes.modify("n_written", n_written)
        if complete:
            attributes.modify("complete", True)
        self._output.file.flush()
        self._output.raise_error()
