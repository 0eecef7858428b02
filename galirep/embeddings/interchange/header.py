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
from galirep.system.reading.documents import read_json
from galirep.system.reading.records import check

HEADER = "galirep.json"


class _Error(TypedDict):
    id: str


class _Header(TypedDict):
    # folders of earlier versions have no notes
    errors: list[_Error]


def note_unreadable(ids: Sequence[str]) -> tuple[str, ...]:
    """Return the note that the rows of these images are not exported; none without images."""
    if not ids:
        return ()
    rows = "1 row of an unreadable image is" if len(ids) == 1 else f"{len(ids)} rows of unreadable images are"
    return (f"{rows} not exported: {format_list(ids)}",)


def make_header(embeddings: Embeddings, notes: Sequence[str]) -> dict[str, Any]:
    """Return the content of galirep.json: the metadata with the chosen layers, the unreadable images and `notes`."""
    layers = tuple((name, columns.stop - columns.start) for name, columns in embeddings.layers.items())
    meta = dataclasses.replace(embeddings.meta, layers=layers)
    errors = [{"id": image_id, "reason": reason} for image_id, reason in embeddings.errors]
    return {**dataclasses.asdict(meta), "errors": errors, "notes": list(notes)}


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
    own = {name: value for name, value in header.items() if name not in ("errors", "notes")}
    meta = read_json_meta({**own, "n_expected": rows, "dtype": dtype}, str(path))
    if meta.dim != array.shape[1]:
        raise DataError(f"{folder}: the .npy files have {array.shape[1]} columns, but {HEADER} says {meta.dim}")
    return meta, notes
