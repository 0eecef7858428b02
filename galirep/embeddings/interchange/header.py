"""galirep.json, beside the files of an exported folder: metadata, unreadable images and what was not exported."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from numpy.typing import NDArray

from galirep.embeddings.integrity.structure import read_json_meta
from galirep.embeddings.reader import Embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.errors import DataError, format_list
from galirep.system.files import SEAL, below, checksum, is_sealed, seal_json
from galirep.system.reading.documents import read_json
from galirep.system.reading.records import check

HEADER = "galirep.json"


class _Error(TypedDict):
    id: str


class _Files(TypedDict, total=False):
    files: dict[str, str]


class _Header(_Files):
    # folders of earlier versions have no notes, no files and no hash of the header
    errors: list[_Error]


def note_unreadable(ids: Sequence[str]) -> tuple[str, ...]:
    """Return the note that the rows of these images are not exported; none without images."""
    if not ids:
        return ()
    rows = "1 row of an unreadable image is" if len(ids) == 1 else f"{len(ids)} rows of unreadable images are"
    return (f"{rows} not exported: {format_list(ids)}",)


def make_header(embeddings: Embeddings, notes: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return the content of galirep.json: the metadata with the chosen layers, the unreadable images and `notes`.

    It has the checksums of all files below `folder`, by their relative paths, and the hash of itself.
    """
    layers = tuple((name, columns.stop - columns.start) for name, columns in embeddings.layers.items())
    meta = dataclasses.replace(embeddings.meta, layers=layers)
    errors = [{"id": image_id, "reason": reason} for image_id, reason in embeddings.errors]
    files = {path.relative_to(folder).as_posix(): checksum(path, whole=True) for path in sorted(folder.glob("*/*"))}
    return seal_json({**dataclasses.asdict(meta), "errors": errors, "notes": list(notes), "files": files})


def require_files(folder: Path) -> bool:
    """Compare the files of an exported folder with the checksums in galirep.json; return whether it has some.

    Raises:
        DataError: one is missing or another, or galirep.json is damaged.
    """
    path = folder / HEADER
    if not path.exists():
        return False
    header = check(read_json(path, DataError), _Header, str(path), DataError, "is damaged")
    for name, expected in header.get("files", {}).items():
        file = folder / name
        # a name that leads elsewhere is not opened
        if not below(file, folder) or not file.is_file() or checksum(file, whole=True) != expected:
            raise DataError(
                f"{folder}: {name[:200]!r} is not the file that {HEADER} was written for: export it again or, if the "
                f"change is meant, remove 'files' and {SEAL!r} from {HEADER}"
            )
    return "files" in header


def read_header(folder: Path, rows: int, array: NDArray[Any]) -> tuple[StoreMeta, tuple[str, ...]]:
    """Read the metadata and the note about rows that were not exported; make metadata up for a folder without a header.

    Raises:
        DataError: galirep.json is damaged, or does not fit the columns of `array`.
    """
    path, dtype = folder / HEADER, array.dtype.name
    if not path.exists():
        meta = StoreMeta(
            encoder=folder.resolve().name,
            layers=(("features", array.shape[1]),),
            n_expected=rows,
            dtype=dtype,
            source=str(folder),
        )
        return meta, ()
    header = check(read_json(path, DataError), _Header, str(path), DataError, "is damaged")
    notes = note_unreadable([error["id"] for error in header["errors"]])
    own = {name: value for name, value in header.items() if name not in ("errors", "notes", "files")}
    meta = read_json_meta({**own, "n_expected": rows, "dtype": dtype}, str(path))
    if not is_sealed(header):
        raise DataError(f"{path} is damaged: it is not what was written; export the folder again")
    if meta.dim != array.shape[1]:
        raise DataError(f"{folder}: the .npy files have {array.shape[1]} columns, but {HEADER} says {meta.dim}")
    return meta, notes
