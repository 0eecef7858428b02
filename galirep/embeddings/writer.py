"""`EmbeddingWriter`: writes an embedding file block by block; a kill at any moment loses no finished block."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from galirep.embeddings.file_access import open_output, require_not_in_use, require_space, require_startable
from galirep.embeddings.schema import (
    DTYPES,
    StoreMeta,
    differences,
    partial_path,
    read_errors,
    read_meta,
    read_progress,
)
from galirep.embeddings.storage.layout import create_output
from galirep.embeddings.storage.resuming import find_start
from galirep.embeddings.storage.rows import row_store
from galirep.errors import ConfigError, DataError, format_list, unknown
from galirep.system.files import atomic_write, sync
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.outputs.hdf5 import HDF5Output
from galirep.system.outputs.holding import own_lock
from galirep.system.outputs.locks import OutputLock
from galirep.system.reading.hdf5 import reading

RESUME = (*StoreMeta.ENCODER, "dtype", "precision", "fingerprint", "n_expected", "label_names")
"""The fields of `StoreMeta` that must agree for a file to be resumed."""


class EmbeddingWriter:
    """A writer of `FILE.h5.partial`, block by block, which `finish` renames to `FILE.h5`.

    Make one with `create` or `resume`. `n_written` is the number of rows that are safely in the file.

        meta = StoreMeta("mine", (("features", 8),), n_expected=2)
        with EmbeddingWriter.create("x.h5", meta, ids=["a", "b"]) as writer:
            writer.append(np.eye(2, 8))
            writer.finish()

    Everything has its place in the file from the start: a full disk is noticed at once, and appending changes nothing
    in the file's structure, so that after a kill at any moment the rows below `n_written` are complete. Each row has
    checksums, which `resume` and `verify` compare: they show what a power cut or a faulty disk has damaged.

    `notes` says what `resume` found that whoever asked for it should know.
    """

    def __init__(self, path: Path, output: HDF5Output, meta: StoreMeta, lock: OutputLock | None = None) -> None:
        self.path, self.meta, self._lock = path, meta, lock
        self.notes: tuple[str, ...] = ()
        self.n_written = read_progress(output.file).n_written
        self._output, self._file = output, output.file
        with reading(partial_path(path)):
            self._store = row_store(output, meta)

    @classmethod
    def create(
        cls,
        path: str | Path,
        meta: StoreMeta,
        ids: Sequence[str],
        labels: ArrayLike | None = None,
        *,
        overwrite: bool = False,
        force_unlock: bool = False,
        locking: bool | None = None,
    ) -> "EmbeddingWriter":
        """Start a file for these images, with their labels if they have any (-1: none).

        A file that exists at `path` is replaced by `finish` only.

        Raises:
            ConfigError: `path` or its .partial exists and `overwrite` is false, or its folder does not exist.
            InUseError: another process writes `path` (see `galirep.train`, also for `force_unlock`).
            DataError: another process has the .partial open, or there is not enough space for all rows.
        """
        with own_lock(path, force=force_unlock) as lock:
            path, partial = Path(path), partial_path(path)
            require_startable(path, overwrite=overwrite)
            if meta.dtype not in DTYPES:
                raise ConfigError(unknown("dtype", meta.dtype, DTYPES))
            require_not_in_use(partial)
            require_space(path, meta)
            with explain_full_disk(partial):
                output = create_output(partial, meta, ids, labels, locking=locking)
            return cls(path, output, meta, lock)

    @classmethod
    def resume(
        cls,
        path: str | Path,
        meta: StoreMeta,
        *,
        multiple_of: int = 1,
        force_unlock: bool = False,
        locking: bool | None = None,
    ) -> "EmbeddingWriter":
        """Continue the .partial of `path` after its last finished row.

        Rows after the last multiple of `multiple_of` are written again, and so are rows from the first one on that does
        not have its checksums (`notes` says so). A file of schema 1 stays one, which has no checksums.

        Raises:
            DataError: the .partial does not exist, cannot be read or is damaged outside its rows, or is of another
                encoder, source ...: each difference is listed.
            InUseError: another process writes `path` (see `galirep.train`, also for `force_unlock`).
        """
        with own_lock(path, force=force_unlock) as lock:
            path, partial = Path(path), partial_path(path)
            # of a `create` that was killed
            partial.with_name(f"{partial.name}.new").unlink(missing_ok=True)
            output = open_output(partial, locking=locking)
            try:
                if mismatches := differences(read_meta(output.file), meta, RESUME):
                    raise DataError(
                        f"{partial} cannot be resumed: {'; '.join(mismatches)}; "
                        "use the settings of the first run, or pass --overwrite"
                    )
                writer = cls(path, output, meta, lock)
                start, writer.notes = find_start(output.file, partial, meta.n_expected, multiple_of)
                if start < writer.n_written:
                    with explain_full_disk(partial):
                        writer._store.set_progress(start)
                    writer.n_written = start
            except BaseException:
                output.close()
                raise
            return writer

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(id, reason) of each image among these rows that could not be read."""
        return read_errors(self._file)

    @property
    def complete(self) -> bool:
        """Whether all rows are written."""
        return self.n_written == self.meta.n_expected

    def append(self, features: NDArray[Any], errors: Mapping[int, str] | None = None) -> None:
        """Add the next rows: features (B, dim).

        `errors` maps the rows (0 to B - 1) of images that could not be read to the reason. Such a row is written as
        zeros and marked as not valid.

        Raises:
            DataError: a feature is NaN, infinite or too large for float16 (the ids are named), or no space is left.
            ValueError: there are more rows than the file has, or of another width.
        """
        start, stop = self.n_written, self.n_written + len(features)
        if features.shape[1:] != (self.meta.dim,) or stop > self.meta.n_expected:
            raise ValueError(
                f"features {features.shape} after {start} of {self.meta.n_expected} rows of {self.meta.dim} columns"
            )
        errors = errors or {}
        valid = np.ones(len(features), bool)
        valid[list(errors)] = False
        with np.errstate(over="ignore"):
            rows = (np.where(valid[:, None], features, 0) if errors else features).astype(self.meta.dtype, copy=False)
        self._require_finite(features, rows)
        with explain_full_disk(partial_path(self.path)), self._output.raising():
            self._store.write(start, rows, valid, errors)
            self.n_written = stop

    def _require_finite(self, features: NDArray[Any], rows: NDArray[Any]) -> None:
        """Raise, naming ids, if `rows` (`features` in the stored type, the next in the file) are not all finite."""
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if not len(bad):
            return
        if np.isfinite(features[bad]).all():
            reason = f"too large for {self.meta.dtype} (use float32)"
        else:
            reason = "NaN or infinite"
        names = format_list(self._file["ids"].asstr()[self.n_written + bad].tolist())
        raise DataError(f"features are {reason} for {len(bad)} of {len(rows)} images: {names}")

    def finish(self) -> Path:
        """Mark the file complete and rename it to its final name, replacing an older one in one step.

        Raises:
            DataError: rows are missing, or no space is left.
        """
        if not self.complete:
            raise DataError(f"{self.path} has {self.n_written} of {self.meta.n_expected} rows")
        partial = partial_path(self.path)
        with explain_full_disk(partial):
            self._store.set_progress(self.n_written, complete=True)
            self._output.close()
            self._output.raise_error()
            sync(partial)
            partial.replace(self.path)
        self.close()
        return self.path

    def close(self) -> None:
        """Close the file; without `finish` before, the .partial stays and can be resumed."""
        self._output.close()
        if self._lock is not None:
            self._lock.release()

    def discard_if_empty(self) -> None:
        """Close the file and remove the .partial if it has no row of a readable image."""
        if self.n_written == len(self.errors):
            self.close()
            partial_path(self.path).unlink(missing_ok=True)

    def __enter__(self) -> "EmbeddingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def atomic_writer(
    path: Path,
    meta: StoreMeta,
    ids: Sequence[str],
    labels: ArrayLike | None,
    *,
    overwrite: bool = False,
    locking: bool | None = None,
) -> Iterator[EmbeddingWriter]:
    """Give a writer for a file that is written at once: a clean exit needs all rows and puts the file at `path`.

    On an error `path` is left as it was.

    Raises:
        ConfigError, DataError: as for `EmbeddingWriter.create`.
    """
    with atomic_write(path, overwrite) as temporary:
        try:
            with EmbeddingWriter.create(temporary, meta, ids, labels, locking=locking) as writer:
                yield writer
                writer.finish()
        finally:
            partial_path(temporary).unlink(missing_ok=True)
