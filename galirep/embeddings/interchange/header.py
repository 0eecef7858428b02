"""galirep.json, beside the files of an exported folder: metadata, unreadable images and what was not exported."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from galirep.embeddings.reader import Embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.errors import DataError, format_list

HEADER = "galirep.json"


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
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        # folders of earlier versions have the errors and no notes
        notes = note_unreadable([str(error["id"]) for error in header.pop("errors")])
        header.pop("notes", None)
        header["layers"] = tuple((name, width) for name, width in header["layers"])
        header["label_names"] = tuple(header["label_names"])
        header["argv"] = tuple(header["argv"])
        meta = StoreMeta(**{**header, "n_expected": rows, "dtype": dtype})
    except (ValueError, TypeError, KeyError) as err:
        raise DataError(f"{path} is damaged: {err}") from err
    if meta.dim != array.shape[1]:
        raise DataError(f"{folder}: the .npy files have {array.shape[1]} columns, but {HEADER} says {meta.dim}")
    return meta, notes
