"""The embedding file, schema 1: what it holds, how it is opened, and how two files are compared. docs/embeddings.md has the table."""

import errno
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from galirep.errors import DataError
from galirep.version import __version__

FORMAT = "galirep-embeddings"
SCHEMA_VERSION = 1
DTYPES = ("float32", "float16")
ERROR = np.dtype(
    [("row", np.int64), ("reason", h5py.string_dtype("utf-8", 256))]
)  # one for each image that could not be read
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LOCK = (errno.EAGAIN, errno.EACCES, errno.ENOLCK)
_MAX_ATTRIBUTE = 32_000  # bytes; HDF5 keeps an attribute in an object header, which holds 64 KiB


@dataclass(frozen=True)
class StoreMeta:
    """What an embedding file says of itself.

    `layers` are (name, width) in the order of the columns of /features. `fingerprint` is that of the images (`ImageSource.fingerprint`),
    `n_expected` their number. Two files are of one encoder where the fields in `ENCODER` agree.
    """

    encoder: str
    layers: tuple[tuple[str, int], ...]
    n_expected: int
    encoder_spec: str = ""
    encoder_tag: str = ""
    encoder_sha256: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    precision: str = "fp32"
    seed: int = 0
    source: str = ""
    split: str | None = None
    fingerprint: str = ""
    label_names: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()

    ENCODER = ("encoder", "encoder_tag", "encoder_sha256", "preprocessing", "layers")

    @property
    def dim(self) -> int:
        """Number of columns."""
        return sum(width for _, width in self.layers)

    @property
    def columns(self) -> dict[str, slice]:
        """Layer name -> its columns."""
        stops = np.cumsum([0, *(width for _, width in self.layers)]).tolist()
        return {
            name: slice(start, stop) for (name, _), start, stop in zip(self.layers, stops[:-1], stops[1:], strict=True)
        }

    def attributes(self) -> dict[str, Any]:
        """The root attributes that these fields become; lists and objects as JSON."""
        return {
            "encoder": self.encoder,
            "encoder_spec": self.encoder_spec.encode(errors="replace").decode(),
            "encoder_tag": self.encoder_tag,
            "encoder_sha256": self.encoder_sha256,
            "preprocessing": json.dumps(dict(self.preprocessing), sort_keys=True),
            "layers": json.dumps({name: [columns.start, columns.stop] for name, columns in self.columns.items()}),
            "precision": self.precision,
            "seed": self.seed,
            "source": self.source.encode(errors="replace").decode(),  # a path may be no UTF-8
            "split": self.split or "",
            "source_fingerprint": self.fingerprint,
            "argv": _short_json(self.argv),
            "versions": json.dumps(_versions()),
            "n_expected": self.n_expected,
        }


def partial_path(path: str | Path) -> Path:
    """Where the file `path` is while it is not complete: `FILE.h5.partial`."""
    return Path(path).with_name(f"{Path(path).name}.partial")


def read_meta(file: h5py.File) -> StoreMeta:
    """The meta data of an open embedding file (see `open_file`)."""
    attributes = file.attrs
    layers = sorted(json.loads(attributes["layers"]).items(), key=lambda item: int(item[1][0]))
    return StoreMeta(
        encoder=attributes["encoder"],
        layers=tuple((name, stop - start) for name, (start, stop) in layers),
        n_expected=int(attributes["n_expected"]),
        encoder_spec=attributes["encoder_spec"],
        encoder_tag=attributes["encoder_tag"],
        encoder_sha256=attributes["encoder_sha256"],
        preprocessing=json.loads(attributes["preprocessing"]),
        dtype=file["features"].dtype.name,
        precision=attributes["precision"],
        seed=int(attributes["seed"]),
        source=attributes["source"],
        split=attributes["split"] or None,
        fingerprint=attributes["source_fingerprint"],
        label_names=tuple(file["label_names"].asstr()[:]),
        argv=tuple(json.loads(attributes["argv"])),
    )


def read_errors(file: h5py.File) -> list[tuple[str, str]]:
    """(id, reason) of each image that could not be read, among the rows written."""
    table = file["errors"][:]
    found = table[table["row"] < file.attrs["n_written"]].tolist()
    return [(file["ids"].asstr()[row], reason.decode()) for row, reason in found]


def differences(ours: StoreMeta, theirs: StoreMeta, fields: Iterable[str]) -> list[str]:
    """One text for each field that differs: `encoder_sha256 '12ab' is not '34cd'`."""
    pairs = ((name, getattr(ours, name), getattr(theirs, name)) for name in fields)
    return [f"{name} {_brief(a)} is not {_brief(b)}" for name, a, b in pairs if a != b]


def open_file(path: Path, mode: str = "r", *, locking: bool | None = None) -> h5py.File:
    """Open an embedding file of this schema and check its outline; `locking=False` does without HDF5's file lock.

    Raises:
        DataError: no such file, not HDF5, truncated, locked, not written by galirep, or of another schema version.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file" if not path.exists() else f"{path} is a directory, not an embedding file"
        )
    try:
        file = h5py.File(path, mode, locking=locking)
    except OSError as err:
        raise DataError(_cannot_open(path, err)) from err
    try:
        _check_outline(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _cannot_open(path: Path, err: OSError) -> str:
    if err.errno in _NO_LOCK and "lock" in str(err):
        return (
            f"{path} is locked: another process reads or writes it, or its file system has no locks; "
            "wait for that process; where there is none, HDF5_USE_FILE_LOCKING=FALSE in the environment does without locks"
        )
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: {err.strerror}"
    if "truncated" in str(err):
        return f"{path} is truncated: a part of it is missing; make it again or copy it again"
    if "signature" in str(err):
        return f"{path} is not an HDF5 file, so not an embedding file that `galirep embed` made"
    return f"{path} cannot be read as HDF5, it is damaged: {err}"


def _check_outline(file: h5py.File, path: Path) -> None:
    attributes = file.attrs
    if attributes.get("format") != FORMAT:
        raise DataError(
            f"{path} is an HDF5 file, but not an embedding file of galirep; as images it would be --data hdf5:{path}"
        )
    version = int(attributes.get("schema_version", 0))
    if version != SCHEMA_VERSION:
        writer = json.loads(attributes.get("versions", "{}")).get("galirep", "an unknown version")
        raise DataError(
            f"{path} has schema version {version}, galirep {__version__} reads version {SCHEMA_VERSION}: "
            f"read it with galirep {writer}, which wrote it"
        )
    try:
        meta, rows = read_meta(file), int(attributes["n_written"])
        shapes = {name: file[name].shape for name in ("ids", "labels", "valid")}
        width, _ = file["features"].shape[1], file["errors"].dtype["reason"]
    except (KeyError, ValueError, TypeError, OSError) as err:
        raise DataError(f"{path} is damaged: {' '.join(str(err).split())}") from err
    if "parts" in file:
        _check_parts(file, path)
    too_short = [name for name, shape in {**shapes, "features": file["features"].shape}.items() if shape[0] < rows]
    if too_short or width != meta.dim:
        raise DataError(
            f"{path} is damaged: it records {rows} rows of {meta.dim} columns, {', '.join(too_short) or 'features'} has fewer"
        )


def _check_parts(file: h5py.File, path: Path) -> None:
    """HDF5 itself gives zeros, in silence, for the rows of a part that is gone."""
    for part in map(json.loads, file["parts"].asstr()[:]):
        place = path.parent / part["path"]
        try:
            with h5py.File(place, "r", locking=False) as other:
                same = other.attrs.get("file_id") == part["file_id"] and other["features"].shape[0] >= part["rows"]
        except OSError as err:
            raise DataError(
                f"{path} points at {place}, which cannot be read: put it back, or merge again without --virtual"
            ) from err
        if not same:
            raise DataError(f"{path} points at {place}, which is another file now: merge again")


@contextmanager
def naming_lack_of_space(path: Path) -> Iterator[None]:
    """Turn a full disk, quota or file-size limit met while writing `path` into one clear error.

    Raises:
        DataError: in place of the error that says so; others pass.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as err:  # HDF5 names the cause only in its text
        if getattr(err, "errno", None) in _NO_SPACE or any(f"errno = {number}" in str(err) for number in _NO_SPACE):
            raise DataError(
                f"no space left for {path}: free some and run it again; a complete file of before is untouched"
            ) from err
        raise


def _versions() -> dict[str, str]:
    libraries = {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version, "numpy": np.__version__}
    return {"galirep": __version__, "python": platform.python_version(), **libraries}


def _short_json(values: tuple[str, ...]) -> str:
    if len(text := json.dumps(values)) <= _MAX_ATTRIBUTE:
        return text
    kept = 0
    for kept, size in enumerate(np.cumsum([len(json.dumps(v)) + 2 for v in values]), 1):  # noqa: B007
        if size > _MAX_ATTRIBUTE:
            break
    return json.dumps([*values[: kept - 1], f"... {len(values) - kept + 1} more"])


def _brief(value: Any) -> str:
    text = json.dumps(dict(value), sort_keys=True) if isinstance(value, Mapping) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
