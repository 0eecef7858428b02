"""Read and write the three files of an index.

FILE.faiss is faiss's own file, FILE.faiss.rows.h5 has the id and label of each row, and the sidecar FILE.faiss.json has
the description (`IndexInfo`) with the checksums of the other two.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.reader import Embeddings
from galirep.errors import DataError
from galirep.search.faiss_library import load_faiss
from galirep.search.index_info import FORMAT, READABLE_VERSIONS, IndexInfo
from galirep.search.index_replacing import put_in_place, rows_path, sidecar_path, waiting
from galirep.system.files import is_sealed, require_free
from galirep.system.outputs.hdf5 import writing_hdf5
from galirep.system.reading.documents import read_json
from galirep.system.reading.files import parsing
from galirep.system.reading.hdf5 import dataset, reading, require_stored
from galirep.system.reading.heaps import require_sound_heaps
from galirep.system.reading.own_data import require_own_links, require_own_storage
from galirep.system.reading.records import quoted

# ids written at a time
_ID_BLOCK = 1 << 16
# an index of at least this size is mapped into memory instead of read
_MIN_MAPPED_BYTES = 1 << 28


def is_index(path: Path) -> bool:
    """Return whether `path` is an index, by its suffix, its sidecar file, or the first bytes of a faiss file."""
    if path.suffix == ".faiss" or sidecar_path(path).is_file():
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == b"Ix"


def require_free_index(path: Path, overwrite: bool) -> None:
    """Raise if any of the three files of the index `path` may not be written.

    Raises:
        ConfigError: see `files.require_free`.
    """
    for file in (path, rows_path(path), sidecar_path(path)):
        require_free(file, overwrite)


def write_rows(path: Path, embeddings: Embeddings) -> None:
    """Write the ids and labels of `embeddings` to `path`; ids as UTF-8 of fixed length.

    Raises:
        OSError: they cannot be written, such as on a full disk.
    """
    count = len(embeddings)
    starts = range(0, count, _ID_BLOCK)
    longest = max((len(name) for start in starts for name in embeddings.utf8_ids(start, start + _ID_BLOCK)), default=1)
    id_type = h5py.string_dtype("utf-8", max(1, longest))
    with writing_hdf5(path) as file:
        ids = file.create_dataset("ids", (count,), dtype=id_type)
        for start in starts:
            ids[start : start + _ID_BLOCK] = embeddings.utf8_ids(start, start + _ID_BLOCK).astype(id_type)
        if embeddings.labels is not None:
            file.create_dataset("labels", data=embeddings.labels)


def write_faiss(path: Path, index: Any) -> None:
    """Write a faiss index to `path`.

    Raises:
        OSError: no space is left on the device.
    """
    faiss = load_faiss()
    failures: list[OSError] = []
    with path.open("wb") as file:
        # faiss ignores a full disk when it writes by itself, and only prints what a callback raises
        def write(data: bytes) -> int:
            if not failures:
                try:
                    return file.write(data)
                except OSError as err:
                    failures.append(err)
            return len(data)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write))
        if failures:
            raise failures[0]


def read_info(path: Path) -> IndexInfo:
    """Read the sidecar file of the index `path`, and check that the other two files are there and match it.

    Raises:
        DataError: a file is missing, was not written by galirep, has another schema version, or changed since.
    """
    sidecar = sidecar_path(path)
    if not path.is_file() and not waiting(path).is_file():
        raise DataError(f"the index file {path} does not exist")
    for file, part in ((sidecar, "sidecar"), (rows_path(path), "list of ids")):
        if not file.is_file() and not waiting(file).is_file():
            raise DataError(
                f"{path} has no {part} {file.name} beside it: an index is three files; copy them all, or build it again"
            )
    while True:
        info = _read_sidecar(sidecar)
        if (strange := put_in_place(path, info)) is None:
            return info
        # unless another process has put a new index there meanwhile
        if _read_sidecar(sidecar).files == info.files:
            raise DataError(
                f"{strange} is not the file that {sidecar.name} was written for: "
                "it was changed, or building it was interrupted; build it again"
            )


def _read_sidecar(sidecar: Path) -> IndexInfo:
    foreign = f"{sidecar} is not the sidecar of an index that `galirep index` made"
    value = read_json(sidecar, DataError)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f"{foreign}: it does not say the format {FORMAT!r}")
    version = value.get("schema_version")
    if version not in READABLE_VERSIONS:
        versions = value.get("versions")
        writer = versions.get("galirep") if isinstance(versions, dict) else None
        raise DataError(
            f"{sidecar} has schema version {quoted(version)}, not {' or '.join(map(str, READABLE_VERSIONS))}: "
            f"read it with galirep {quoted(writer)}, which wrote it"
        )
    info = IndexInfo.from_dict(value, foreign)
    if not is_sealed(value):
        raise DataError(f"{sidecar} is damaged: it is not what was written; copy it again, or build the index again")
    return info


def read_index(path: Path, info: IndexInfo) -> Any:
    """Read the faiss index, with `info.nprobe` set; a large one is mapped into memory.

    Raises:
        DataError: faiss cannot read it.
    """
    faiss = load_faiss()
    mapped = path.stat().st_size >= _MIN_MAPPED_BYTES
    with parsing(f"{path} cannot be read as a faiss index", DataError):
        index = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP) if mapped else 0)
    if (index.d, index.ntotal) != (info.dim, info.n):
        raise DataError(
            f"{path} has {index.ntotal} rows of {index.d} columns, but its sidecar says {info.n} of {info.dim}"
        )
    if info.nprobe is not None:
        with parsing(f"{path} has no inverted lists, but its sidecar says nprobe {info.nprobe}", DataError):
            faiss.extract_index_ivf(index).nprobe = info.nprobe
    return index


def read_rows(path: Path, n: int) -> tuple[NDArray[np.object_], NDArray[np.int64] | None]:
    """Return the (N,) ids and (N,) labels of the index `path`, of `n` rows; None if no row has a label.

    Raises:
        DataError: the file is damaged, or has another number of rows, or its values in other files.
    """
    file_path = rows_path(path)
    size = file_path.stat().st_size
    with reading(file_path), h5py.File(file_path, "r") as file:
        require_own_links(file, file_path)
        require_sound_heaps(file, file_path)
        for item in file.values():
            if isinstance(item, h5py.Dataset):
                require_own_storage(item, file_path)
        ids = dataset(file, "ids", "OS", 1)
        require_stored(ids, len(ids), size)
        labels = None
        if "labels" in file:
            labels = dataset(file, "labels", "i", 1)
            require_stored(labels, len(labels), size)
        if any(column is not None and len(column) != n for column in (ids, labels)):
            raise DataError(f"{file_path} has {len(ids)} ids, but its sidecar says {n} rows")
        return ids.asstr()[:], None if labels is None else labels[:].astype(np.int64)
