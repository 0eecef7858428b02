"""Writing the embedding file: block by block, so that a kill at any moment loses no finished block."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from galirep.errors import ConfigError, DataError, unknown
from galirep.files import require_free
from galirep.schema import DTYPES, FORMAT, SCHEMA_VERSION, StoreMeta, differences, naming_lack_of_space, open_file, partial_path, read_meta

RESUME = (*StoreMeta.ENCODER, "dtype", "precision", "fingerprint", "n_expected", "label_names")
_CHUNK_BYTES = 1 << 18


class EmbeddingWriter:
    """Writes `FILE.h5.partial` block by block; `finish` gives it its name. Make one with `create` or `resume`.

    Every data set has its full length and all its chunks from the start, so that appending changes nothing in the file's structure: after a
    kill at any moment the rows below `n_written` are there and right. (A power cut may lose what the system had not written yet.)
    """

    def __init__(self, path: Path, file: h5py.File, meta: StoreMeta) -> None:
        self.path, self.meta, self._file = path, meta, file

    @classmethod
    def create(cls, path: str | Path, meta: StoreMeta, *, overwrite: bool = False, locking: bool | None = None) -> "EmbeddingWriter":
        """Start a file. One that exists at `path` stays as it is until `finish`.

        Raises:
            ConfigError: `path` or its .partial exists and `overwrite` is false, or its folder does not exist.
            DataError: another process writes the .partial, or there is too little space for all rows.
        """
        path, partial = Path(path), partial_path(path)
        require_free(path, overwrite)
        if meta.dtype not in DTYPES:
            raise ConfigError(unknown("dtype", meta.dtype, DTYPES))
        if partial.exists():
            if not overwrite:
                raise ConfigError(f"{partial} was left by an interrupted run: pass --resume to continue it or --overwrite to start again")
            _refuse_if_in_use(partial)
        row_bytes = meta.dim * np.dtype(meta.dtype).itemsize
        needed = meta.n_expected * (row_bytes + 64)
        if needed > (free := shutil.disk_usage(path.parent).free):
            raise DataError(f"no space for {path}: {meta.n_expected} rows of {meta.dim} columns need {needed:,} bytes, {free:,} are free")
        new = partial.with_name(f"{partial.name}.new")  # so that a .partial, however early the kill, can be resumed
        with naming_lack_of_space(partial):
            file = h5py.File(new, "w", locking=locking)
            try:
                write_outline(file, meta)
                file.create_dataset("features", (meta.n_expected, meta.dim), meta.dtype, **_layout(meta.n_expected, row_bytes, meta.dim))
                file.flush()
                new.replace(partial)
            except BaseException:
                _close(file)
                new.unlink(missing_ok=True)
                raise
        return cls(path, file, meta)

    @classmethod
    def resume(cls, path: str | Path, meta: StoreMeta, *, multiple_of: int = 1, locking: bool | None = None) -> "EmbeddingWriter":
        """Continue the .partial of `path` after its last finished row; the rows beyond a multiple of `multiple_of` are written anew.

        Raises:
            DataError: there is no .partial, it cannot be read, or it is of another encoder, source ...: each difference listed.
        """
        partial = partial_path(path)
        file = open_file(partial, "r+", locking=locking)
        if differ := differences(read_meta(file), meta, RESUME):
            file.close()
            raise DataError(f"{partial} cannot be resumed: {'; '.join(differ)}; run as the first time, or pass --overwrite")
        writer = cls(Path(path), file, meta)
        if not writer.complete:
            file.attrs["n_written"] = writer.n_written // multiple_of * multiple_of
        return writer

    @property
    def n_written(self) -> int:
        """Rows that are safely in the file."""
        return int(self._file.attrs["n_written"])

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return self.n_written == self.meta.n_expected

    def append(
        self, features: NDArray[Any], ids: Sequence[str], labels: ArrayLike | None = None, errors: Sequence[str] | None = None
    ) -> None:
        """Add a block: features (B, dim), B ids, B labels (-1: none), B errors.

        An error is "" for an image that was read, else the reason why it was not: then the row becomes zeros and not valid.

        Raises:
            DataError: a feature is NaN or infinite, or too large for float16 (ids named), more rows than expected, or no space left.
            ValueError: lengths or widths that do not fit.
        """
        start, stop = self.n_written, self.n_written + len(ids)
        reasons = np.array(["" for _ in ids] if errors is None else list(errors), dtype=object)
        valid = reasons == ""
        given = np.full(len(ids), -1) if labels is None else np.asarray(labels)
        if features.shape != (len(ids), self.meta.dim) or given.shape != (len(ids),) or len(reasons) != len(ids):
            got = f"features {features.shape}, labels {given.shape}, errors {reasons.shape}"
            raise ValueError(f"{len(ids)} ids, {self.meta.dim} columns: {got}")
        if stop > self.meta.n_expected:
            raise DataError(f"{self.path}: {stop} rows, but {self.meta.n_expected} were expected")
        with np.errstate(over="ignore"):
            rows = np.where(valid[:, None], features, 0).astype(self.meta.dtype)
        if len(bad := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
            why = "NaN or infinite" if not np.isfinite(features[bad]).all() else f"too large for {self.meta.dtype} (take float32)"
            raise DataError(f"features are {why} for {len(bad)} of {len(ids)} images: {_few([ids[int(i)] for i in bad])}")
        with naming_lack_of_space(partial_path(self.path)):
            for name, values in (("features", rows), ("ids", list(ids)), ("labels", given), ("valid", valid), ("errors", reasons)):
                self._file[name][start:stop] = values
            self._file.flush()  # the rows first, then the number that vouches for them
            self._file.attrs["n_written"] = stop
            self._file.flush()

    def finish(self) -> Path:
        """Mark the file complete and give it its name, replacing an older one in one step.

        Raises:
            DataError: rows are missing, or no space is left.
        """
        if not self.complete:
            raise DataError(f"{self.path} has {self.n_written} of {self.meta.n_expected} rows")
        partial = partial_path(self.path)
        with naming_lack_of_space(partial):
            self._file.attrs["complete"] = True
            self._file.close()
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(self.path)
        return self.path

    def close(self) -> None:
        """Close without finishing: the .partial stays and can be resumed."""
        _close(self._file)

    def __enter__(self) -> "EmbeddingWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_outline(file: h5py.File, meta: StoreMeta) -> None:
    """Write everything but /features: attributes, label names, and the columns beside the features at their full length."""
    text, rows = h5py.string_dtype(), meta.n_expected
    for name, kind, size in (("ids", text, 16), ("labels", np.int64, 8), ("valid", np.bool_, 1), ("errors", text, 16)):
        file.create_dataset(name, (rows,), kind, **_layout(rows, size), fillvalue=-1 if name == "labels" else None)
    file.create_dataset("label_names", data=list(meta.label_names), dtype=text, shape=(len(meta.label_names),))
    own = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "file_id": secrets.token_hex(8), "n_written": 0, "complete": False}
    own["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for name, value in {**own, **meta.attributes()}.items():
        file.attrs[name] = value


def _layout(rows: int, row_bytes: int, *tail: int) -> dict[str, Any]:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    chunk = max(1, min(rows, _CHUNK_BYTES // max(row_bytes, 1)))
    return {"chunks": (chunk, *tail), "maxshape": (None, *tail), "dcpl": creation}


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


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
