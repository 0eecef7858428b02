"""Opening embedding files and checking where one may be started, with clear errors.

The errors name files that are locked, damaged, foreign or in use, and disks without room.
"""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from galirep.embeddings.integrity.structure import require_structure
from galirep.embeddings.schema import FORMAT, READABLE_VERSIONS, StoreMeta, partial_path, read_meta, read_progress
from galirep.errors import ConfigError, DataError
from galirep.system.files import below, require_free
from galirep.system.outputs.hdf5 import HDF5Output
from galirep.system.reading.files import kind_of
from galirep.system.reading.hdf5 import attribute, reading
from galirep.system.reading.heaps import require_sound_heaps
from galirep.system.reading.own_data import require_own_links, require_own_storage, require_sources
from galirep.version import __version__

_Opened = TypeVar("_Opened", h5py.File, HDF5Output)
_NO_LOCK = (errno.EAGAIN, errno.EACCES, errno.ENOLCK)


def open_file(path: Path, *, locking: bool | None = None) -> h5py.File:
    """Open an embedding file for reading and check its schema; `locking=False` does without HDF5's file lock.

    Raises:
        DataError: the file does not exist, is not HDF5, is truncated, damaged or locked, was not written by galirep, or
            has another schema version.
    """
    return _opened(path, lambda: h5py.File(path, "r", locking=locking))


def open_output(path: Path, *, locking: bool | None = None) -> HDF5Output:
    """Open an embedding file for writing and check its schema. Raises as `open_file`."""
    return _opened(path, lambda: HDF5Output(path, "r+", locking=locking))


def _opened(path: Path, opening: Callable[[], _Opened]) -> _Opened:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if kind := kind_of(path):
        raise DataError(f"{path} is {kind}, not an embedding file")
    try:
        opened = opening()
    except OSError as err:
        raise DataError(_explain_failure(path, err)) from err
    try:
        _check_schema(opened.file if isinstance(opened, HDF5Output) else opened, path)
    except BaseException:
        opened.close()
        raise
    return opened


def _explain_failure(path: Path, err: OSError) -> str:
    """Return why HDF5 could not open `path`; it names most causes only in its text."""
    if isinstance(err, BlockingIOError) or (err.errno in _NO_LOCK and "lock" in str(err)):
        return (
            f"{path} is locked: another process reads or writes it, or its file system does not support locks; "
            "wait for that process, or set HDF5_USE_FILE_LOCKING=FALSE in the environment to do without locks"
        )
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: {err.strerror}"
    if "truncated" in str(err):
        return f"{path} is truncated: make it again or copy it again"
    if "signature" in str(err):
        return f"{path} is not an HDF5 file, so not an embedding file of `galirep embed`"
    return f"{path} is damaged and cannot be read as HDF5: {err}"


def require_own_data(file: h5py.File, path: Path, above: tuple[Path, ...] = ()) -> None:
    """Check that an open file reads nothing but itself and, as a virtual merge, parts under its folder.

    The parts are checked likewise; `above` are the files that lead to this one.

    Raises:
        DataError: it has links or external storage, or a virtual dataset that `merge` did not write.
    """
    require_own_links(file, path)
    with reading(path):
        items = list(file.items())
    for name, item in items:
        if isinstance(item, h5py.Dataset) and not (name == "features" and item.is_virtual and "parts" in file):
            require_own_storage(item, path)
    if "parts" in file:
        _check_parts(file, path, (*above, path.resolve()))


def _check_schema(file: h5py.File, path: Path) -> None:
    """Check that an open file is an embedding file of this schema with all its parts."""
    require_sound_heaps(file, path)
    with reading(path):
        is_ours = attribute(file, "format", "") == FORMAT
    if not is_ours:
        raise DataError(
            f"{path} is an HDF5 file, but not an embedding file of galirep; to read images from it, --data hdf5:{path}"
        )
    require_own_data(file, path)
    with reading(path):
        version = attribute(file, "schema_version", 0)
    if version not in READABLE_VERSIONS:
        with reading(path):
            writer = dict(json.loads(attribute(file, "versions", "{}"))).get("galirep", "an unknown version")
        raise DataError(
            f"{path} has schema version {version}, galirep {__version__} reads version "
            f"{' and '.join(map(str, READABLE_VERSIONS))}: "
            f"read it with galirep {writer}, which wrote it"
        )
    require_structure(file, path)
    try:
        meta = read_meta(file)
        rows = read_progress(file).n_written
        lengths = {name: file[name].shape[0] for name in ("ids", "labels", "valid", "features")}
        width = file["features"].shape[1]
        error_fields = file["errors"].dtype.names or ()
    except (KeyError, IndexError, ValueError, TypeError, OSError) as err:
        raise DataError(f"{path} is damaged: {' '.join(str(err).split())}") from err
    if "reason" not in error_fields:
        raise DataError(f"{path} is damaged: its dataset errors has no field 'reason'")
    too_short = [name for name, length in lengths.items() if length < rows]
    if too_short or width != meta.dim:
        raise DataError(
            f"{path} is damaged: it records {rows} rows of {meta.dim} columns, "
            f"{', '.join(too_short) or 'features'} has fewer"
        )


def _check_parts(file: h5py.File, path: Path, above: tuple[Path, ...]) -> None:
    """Check that the parts of a virtual merge are there: HDF5 itself returns zeros for the rows of a missing part."""
    try:
        parts = [json.loads(text) for text in file["parts"].asstr()[:]]
        recorded = {str(part["path"]): (part["file_id"], int(part["rows"])) for part in parts}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as err:
        raise DataError(f"{path} is damaged: its list of parts: {' '.join(str(err).split())}") from err
    if file["features"].is_virtual:
        require_sources(file["features"], recorded, path)
    for name, (file_id, rows) in recorded.items():
        part_path = path.parent / name
        if not below(part_path, path.parent) or part_path.resolve() in above:
            raise DataError(
                f"{path} points at {part_path}, but parts are read only from its own folder and those below: "
                "move them there and merge again, or merge without --virtual"
            )
        if not part_path.is_file():
            raise DataError(
                f"{path} points at {part_path}, which cannot be read: put it back, or merge again without --virtual"
            )
        try:
            with h5py.File(part_path, "r", locking=False) as other:
                require_sound_heaps(other, part_path)
                require_own_data(other, part_path, above)
                same = attribute(other, "file_id", "") == file_id and other["features"].shape[0] >= rows
        except (OSError, KeyError, AttributeError, ValueError) as err:
            raise DataError(
                f"{path} points at {part_path}, which cannot be read: put it back, or merge again without --virtual"
            ) from err
        if not same:
            raise DataError(f"{path} points at {part_path}, which is another file now: merge again")


def require_startable(path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Check that a file may be written at `path`: no file or .partial exists, or it may be overwritten or resumed.

    Raises:
        ConfigError: see `galirep.system.files.require_free`; or the .partial of an interrupted run exists.
    """
    require_free(path, overwrite or resume)
    if partial_path(path).exists() and not (overwrite or resume):
        raise ConfigError(
            f"{partial_path(path)} was left by an interrupted run: --resume continues it, --overwrite starts again"
        )


def require_space(path: Path, meta: StoreMeta) -> None:
    """Check that the disk of `path` has room for all rows of a file.

    Raises:
        DataError: it has not.
    """
    # 64 bytes a row for ids, labels and validity
    needed = meta.n_expected * (meta.dim * np.dtype(meta.dtype).itemsize + 64)
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"no space for {path}: {meta.n_expected} rows of {meta.dim} columns need {needed:,} bytes, "
            f"{free:,} are free"
        )


def require_not_in_use(partial: Path) -> None:
    """Check that no other process writes the file `partial`, if it exists.

    Raises:
        DataError: another process has it open.
    """
    if not partial.exists():
        return
    try:
        h5py.File(partial, "r+").close()
    except BlockingIOError as err:
        raise DataError(f"{partial} is being written by another process: wait for it or choose another name") from err
    # damaged, and about to be replaced
    except OSError:
        pass
