"""Writing the embedding file: block by block, so that a kill at any moment loses no finished block."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from galirep.embeddings.schema import (
    DTYPES,
    ERROR,
    FORMAT,
    SCHEMA_VERSION,
    StoreMeta,
    differences,
    naming_lack_of_space,
    open_file,
    partial_path,
    read_errors,
    read_meta,
)
from galirep.errors import ConfigError, DataError, format_list, unknown
from galirep.system.files import atomic_write, require_free, sync

RESUME = (*StoreMeta.ENCODER, "dtype", "precision", "fingerprint", "n_expected", "label_names")
_CHUNK_BYTES = 1 << 18


class EmbeddingWriter:
    """Writes `FILE.h5.partial` block by block; `finish` gives it its name. Make one with `create` or `resume`.

    `n_written` rows are safely in the file.

        with EmbeddingWriter.create("x.h5", StoreMeta("mine", (("features", 8),), n_expected=2), ids=["a", "b"]) as writer:
            writer.append(np.eye(2, 8))
            writer.finish()

    Ids and labels are written first, and /features has all its chunks (zeros) from the start: lack of space shows at once, and appending
    changes nothing in the file's structure, so that after a kill at any moment the rows below `n_written` are there and right. (A power
    cut may lose what the system had not written.)
    """

    def __init__(self, path: Path, file: h5py.File, meta: StoreMeta) -> None:
        self.path, self.meta, self.n_written, self._file = path, meta, int(file.attrs["n_written"]), file
        self._features, self._valid = file["features"], file["valid"]

    @classmethod
    def create(
        cls,
        path: str | Path,
        meta: StoreMeta,
        ids: Sequence[str],
        labels: ArrayLike | None = None,
        *,
        overwrite: bool = False,
        locking: bool | None = None,
    ) -> "EmbeddingWriter":
        """Start a file for these images, with their labels if there are any (-1: none). One that exists at `path` stays until `finish`.

        Raises:
            ConfigError: `path` or its .partial exists and `overwrite` is false, or its folder does not exist.
            DataError: another process writes the .partial, or there is too little space for all rows.
        """
        path, partial = Path(path), partial_path(path)
        require_startable(path, overwrite=overwrite)
        if meta.dtype not in DTYPES:
            raise ConfigError(unknown("dtype", meta.dtype, DTYPES))
        if partial.exists():
            _refuse_if_in_use(partial)
        row_bytes = meta.dim * np.dtype(meta.dtype).itemsize
        needed = meta.n_expected * (row_bytes + 64)
        if needed > (free := shutil.disk_usage(path.parent).free):
            raise DataError(
                f"no space for {path}: {meta.n_expected} rows of {meta.dim} columns need {needed:,} bytes, {free:,} are free"
            )
        new = partial.with_name(f"{partial.name}.new")  # so that a .partial, however early the kill, can be resumed
        with naming_lack_of_space(partial):
            file = h5py.File(new, "w", locking=locking)
            try:
                write_outline(file, meta, ids, labels)
                shape = (meta.n_expected, meta.dim)
                file.create_dataset(
                    "features", shape, meta.dtype, **_preallocated(meta.n_expected, row_bytes, meta.dim)
                )
                file.flush()
                new.replace(partial)
            except BaseException:
                _close(file)
                new.unlink(missing_ok=True)
                raise
        return cls(path, file, meta)

    @classmethod
    def resume(
        cls, path: str | Path, meta: StoreMeta, *, multiple_of: int = 1, locking: bool | None = None
    ) -> "EmbeddingWriter":
        """Continue the .partial of `path` after its last finished row; the rows beyond a multiple of `multiple_of` are written anew.

        Raises:
            DataError: there is no .partial, it cannot be read, or it is of another encoder, source ...: each difference listed.
        """
        partial = partial_path(path)
        file = open_file(partial, "r+", locking=locking)
        if differ := differences(read_meta(file), meta, RESUME):
            file.close()
            raise DataError(
                f"{partial} cannot be resumed: {'; '.join(differ)}; run as the first time, or pass --overwrite"
            )
        writer = cls(Path(path), file, meta)
        if not writer.complete:
            writer.n_written = writer.n_written // multiple_of * multiple_of
            file.attrs.modify("n_written", writer.n_written)
        return writer

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(id, reason) of each image among these rows that could not be read."""
        return read_errors(self._file)

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return self.n_written == self.meta.n_expected

    def append(self, features: NDArray[Any], errors: Mapping[int, str] | None = None) -> None:
        """Add the next rows: features (B, dim). `errors` maps the rows (0 to B - 1) of images that could not be read to the reason why.

        Such a row becomes zeros and is marked as not valid.

        Raises:
            DataError: a feature is NaN or infinite, or too large for float16 (ids named), or no space is left.
            ValueError: more rows than the file has, or another width.
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
        if len(bad := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
            why = (
                "NaN or infinite"
                if not np.isfinite(features[bad]).all()
                else f"too large for {self.meta.dtype} (take float32)"
            )
            names = format_list(self._file["ids"].asstr()[start + bad].tolist())
            raise DataError(f"features are {why} for {len(bad)} of {len(rows)} images: {names}")
        with naming_lack_of_space(partial_path(self.path)):
            self._features[start:stop] = rows
            self._valid[start:stop] = valid
            if errors:
                append_errors(self._file["errors"], start, errors)
            self._file.flush()  # the rows first, then the number that vouches for them
            self._file.attrs.modify("n_written", stop)  # in place, where assigning would make the attribute anew
            self._file.flush()
            self.n_written = stop

    def finish(self) -> Path:
        """Mark the file complete and give it its name, replacing an older one in one step.

        Raises:
            DataError: rows are missing, or no space is left.
        """
        if not self.complete:
            raise DataError(f"{self.path} has {self.n_written} of {self.meta.n_expected} rows")
        partial = partial_path(self.path)
        with naming_lack_of_space(partial):
            self._file.attrs.modify("complete", True)
            self._file.close()
            sync(partial)
            partial.replace(self.path)
        return self.path

    def close(self) -> None:
        """Close without finishing: the .partial stays and can be resumed."""
        _close(self._file)

    def __enter__(self) -> "EmbeddingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def writing_whole(
    path: Path,
    meta: StoreMeta,
    ids: Sequence[str],
    labels: ArrayLike | None,
    *,
    overwrite: bool = False,
    locking: bool | None = None,
) -> Iterator[EmbeddingWriter]:
    """A writer of a file made in one go: whole at `path` after a clean exit, which needs all rows; else `path` is as it was.

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


def require_startable(path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output that exists, complete or not, unless it is to be overwritten or resumed.

    Raises:
        ConfigError: see `galirep.system.files.require_free`; or an interrupted run left the .partial of `path`.
    """
    require_free(path, overwrite or resume)
    if partial_path(path).exists() and not (overwrite or resume):
        raise ConfigError(
            f"{partial_path(path)} was left by an interrupted run: --resume continues it, --overwrite starts again"
        )


def write_outline(file: h5py.File, meta: StoreMeta, ids: Sequence[str], labels: ArrayLike | None = None) -> None:
    """Write everything but /features: attributes, ids, labels, and the place for validity and errors."""
    text, rows = h5py.string_dtype(), meta.n_expected
    if bad := [name for name in (*ids, *meta.label_names) if not _is_utf8(name)]:
        raise DataError(
            f"names that are not UTF-8 cannot be kept as ids, rename the files ({len(bad)}): {format_list(map(ascii, bad))}"
        )
    given = np.full(rows, -1, np.int64) if labels is None else np.asarray(labels, np.int64)
    if len(ids) != rows or given.shape != (rows,):
        raise ValueError(f"{rows} rows are expected: {len(ids)} ids, labels {given.shape}")
    file.create_dataset("ids", (rows,), text, list(ids), chunks=_chunks(rows, 16), maxshape=(None,))
    file.create_dataset("labels", (rows,), np.int64, given, chunks=_chunks(rows, 8), maxshape=(None,))
    file.create_dataset("label_names", (len(meta.label_names),), text, list(meta.label_names))
    file.create_dataset("valid", (rows,), np.bool_, **_preallocated(rows, 1))
    file.create_dataset("errors", (0,), ERROR, chunks=(64,), maxshape=(None,))
    own = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "file_id": secrets.token_hex(8),
        "n_written": 0,
        "complete": False,
    }
    own["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for name, value in {**own, **meta.attributes()}.items():
        file.attrs[name] = value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # of a file whose name has other bytes
        return False
    return True


def append_errors(table: h5py.Dataset, start: int, errors: Mapping[int, str]) -> None:
    """Add to /errors those of the rows `start` + key; what it holds of such rows is replaced."""
    kept = int((table["row"] < start).sum())  # those of a block that a kill left without its n_written are overwritten
    new = [(start + row, _shortened(errors[row])) for row in sorted(errors)]
    table.resize((kept + len(new),))
    table[kept:] = np.array(new, ERROR)


def _shortened(reason: str) -> bytes:
    return (
        reason.encode(errors="replace")[: ERROR["reason"].itemsize].decode(errors="ignore").encode()
    )  # no half character at the end


def _chunks(rows: int, row_bytes: int, *tail: int) -> tuple[int, ...]:
    return (max(1, min(rows, _CHUNK_BYTES // max(row_bytes, 1))), *tail)


def _preallocated(rows: int, row_bytes: int, *tail: int) -> dict[str, Any]:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    return {"chunks": _chunks(rows, row_bytes, *tail), "maxshape": (None, *tail), "dcpl": creation}


def _refuse_if_in_use(partial: Path) -> None:
    try:
        h5py.File(partial, "r+").close()
    except BlockingIOError as err:
        raise DataError(f"{partial} is being written by another process: wait for it or choose another name") from err
    except OSError:
        pass  # damaged, so of no use to anybody


def _close(file: h5py.File) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # the disk is full: the error that matters is already on its way
        file.close()
