"""The files of an index: FILE.faiss, FILE.faiss.rows.h5 (the id and label of each row) and FILE.faiss.json, written last, which vouches for
both."""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.reader import Embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.errors import DataError
from galirep.search.faiss_library import load_faiss
from galirep.system.files import atomic_write, require_free, sync, write_json

FORMAT, SCHEMA_VERSION = "galirep-index", 1
_PIECE, _PIECES = 1 << 20, 1024  # bytes, number: what a checksum reads at most
_IDS = 1 << 16  # ids written at a time
_MAP_FROM = 1 << 28  # bytes from which an index is mapped into memory, not read


@dataclass(frozen=True)
class IndexInfo:
    """What the side-car says of an index.

    `normalised`: its vectors have unit length, as metric cosine demands. `exact`: it compares with every row. `nprobe`: how many lists of
    an inverted file are searched. `recall_at_10`: the share of the true 10 nearest that it found on a sample of its own rows (1 if exact).
    `embeddings`: the file it was made from, `layers` being those that were indexed.
    """

    metric: str
    normalised: bool
    factory: str
    exact: bool
    n: int
    dim: int
    nprobe: int | None
    recall_at_10: float
    recall_queries: int
    embeddings: StoreMeta
    source: str
    created: str
    versions: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)  # index and rows -> checksum

    def to_json(self) -> dict[str, Any]:
        """As the side-car holds it."""
        value = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}
        value["embeddings"]["layers"] = dict(self.embeddings.layers)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "IndexInfo":
        """The way back from `to_json`."""
        fields = {name: value[name] for name in cls.__dataclass_fields__}
        meta: dict[str, Any] = {
            name: tuple(item) if isinstance(item, list) else item for name, item in fields["embeddings"].items()
        }
        meta["layers"] = tuple(meta["layers"].items())
        return cls(**{**fields, "embeddings": StoreMeta(**meta)})


def meta_of(embeddings: Embeddings) -> StoreMeta:
    """The meta data of an open file, its layers being those that were chosen."""
    return replace(
        embeddings.meta, layers=tuple((name, part.stop - part.start) for name, part in embeddings.layers.items())
    )


def card_path(path: Path) -> Path:
    """The side-car of an index."""
    return path.with_name(f"{path.name}.json")


def rows_path(path: Path) -> Path:
    """The ids and labels of an index."""
    return path.with_name(f"{path.name}.rows.h5")


def is_index(path: Path) -> bool:
    """Whether `path` is to be read as an index: by its name, its side-car, or the first bytes of a faiss file."""
    if path.suffix == ".faiss" or card_path(path).is_file():
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == b"Ix"


def checksum(path: Path) -> str:
    """`SIZE-CRC32` of a file: proof against accidents, not against malice. Of a file over 1 GiB, 1024 pieces of 1 MiB are read, spread
    evenly."""
    size = path.stat().st_size
    starts = (
        range(0, size, _PIECE)
        if size <= _PIECE * _PIECES
        else np.linspace(0, size - _PIECE, _PIECES, dtype=np.int64).tolist()
    )
    value = 0
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            value = zlib.crc32(file.read(_PIECE), value)
    return f"{size}-{value:08x}"


def require_free_index(path: Path, overwrite: bool) -> None:
    """Refuse to write where any of an index's three files exists (see `files.require_free`)."""
    for name in (path, rows_path(path), card_path(path)):
        require_free(name, overwrite)


def write_rows(path: Path, embeddings: Embeddings) -> None:
    """Write the ids and labels of `embeddings` to `path`."""
    with h5py.File(path, "w") as file:
        ids = file.create_dataset("ids", (len(embeddings),), dtype=h5py.string_dtype())
        for start in range(0, len(embeddings), _IDS):
            ids[start : start + _IDS] = embeddings.utf8_ids(start, start + _IDS)
        if embeddings.labels is not None:
            file.create_dataset("labels", data=embeddings.labels)


@contextmanager
def writing_index(path: Path) -> Iterator[tuple[Path, Path]]:
    """Give the temporary paths of an index and its rows, which take their places on a clean exit; `write_card` must follow."""
    # an index can be built again, and its checksums tell what a power cut spoiled, so nobody waits for the disk
    with atomic_write(path, synced=False) as index, atomic_write(rows_path(path), synced=False) as rows:
        yield index, rows
        if index.stat().st_size > _PIECE * _PIECES:  # but the checksum sees only parts of it
            sync(index)


def write_faiss(path: Path, index: Any) -> None:
    """Write a faiss index to `path`.

    Raises:
        OSError: no space is left.
    """
    faiss = load_faiss()
    failure: list[OSError] = []
    with path.open("wb") as file:

        def write(
            data: bytes,
        ) -> int:  # faiss prints what a callback raises, and overlooks a full disk when it writes by itself
            if not failure:
                try:
                    return file.write(data)
                except OSError as err:
                    failure.append(err)
            return len(data)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write))
        if failure:
            raise failure[0]


def write_card(path: Path, info: IndexInfo) -> IndexInfo:
    """Write the side-car of the index at `path`, with the checksums of its files; after a kill before it, the old one does not fit them."""
    info = replace(info, files={"index": checksum(path), "rows": checksum(rows_path(path))})
    write_json(card_path(path), info.to_json(), synced=False)
    return info


def read_info(path: Path) -> IndexInfo:
    """The side-car of the index `path`, after a check that the files are those it was written for.

    Raises:
        DataError: a file is missing, no index of galirep's, of another schema version, or changed since.
    """
    card = card_path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such index file")
    for name, part in ((card, "side-car"), (rows_path(path), "list of ids")):
        if not name.is_file():
            raise DataError(
                f"{path} has no {part} {name.name} beside it: an index is three files; copy them all, or build it again"
            )
    try:
        value = json.loads(card.read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise KeyError("format")
        if value["schema_version"] != SCHEMA_VERSION:
            writer = value["versions"]["galirep"]
            found = value["schema_version"]
            raise DataError(
                f"{card} has schema version {found}, not {SCHEMA_VERSION}: read it with galirep {writer}, which wrote it"
            )
        info = IndexInfo.from_json(value)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataError(
            f"{card} is not the side-car of an index that `galirep index` made: {type(err).__name__}: {err}"
        ) from err
    for kind, name in (("index", path), ("rows", rows_path(path))):
        if info.files.get(kind) != checksum(name):
            problem = "it was changed, or its building was cut off; build it again"
            raise DataError(f"{name} is not the file that {card.name} was written for: {problem}")
    return info


def read_index(path: Path, info: IndexInfo) -> Any:
    """The faiss index, ready to search; mapped into memory, not read, where it is large.

    Raises:
        DataError: faiss cannot read it.
    """
    faiss = load_faiss()
    large = path.stat().st_size >= _MAP_FROM
    try:
        index = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP) if large else 0)
    except RuntimeError as err:
        raise DataError(f"{path} cannot be read as a faiss index: {err}") from err
    if (index.d, index.ntotal) != (info.dim, info.n):
        raise DataError(
            f"{path} holds {index.ntotal} rows of {index.d} columns, its side-car says {info.n} of {info.dim}"
        )
    if info.nprobe is not None:
        faiss.extract_index_ivf(index).nprobe = info.nprobe
    return index


def read_rows(path: Path) -> tuple[NDArray[np.object_], NDArray[np.int64] | None]:
    """(N,) ids and (N,) labels, or None where no row has one."""
    with h5py.File(rows_path(path), "r") as file:
        return file["ids"].asstr()[:], file["labels"][:] if "labels" in file else None
