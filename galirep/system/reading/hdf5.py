"""Datasets and attributes of an HDF5 file as values of a type: the file may be damaged, or say anything."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import h5py
import numpy as np

from galirep.errors import DataError, GalirepError
from galirep.system.reading.files import parsing
from galirep.system.reading.limits import require_inflated

_SMALL_CHUNK = 1 << 28


@contextmanager
def reading(what: object, error: type[GalirepError] = DataError) -> Iterator[None]:
    """Turn whatever HDF5 raises on a damaged file into one line; `what` names the file."""
    with parsing(f"{what} is damaged", error):
        yield


def attribute(file: h5py.File, name: str, default: Any = None) -> Any:
    """Return an attribute of one value as a text, number or bool; `default` if it is not there.

    Raises:
        ValueError: it is of another type, or is not there and has no default.
    """
    if name not in file.attrs:
        if default is None:
            raise ValueError(f"it has no attribute {name!r}")
        return default
    # HDF5 goes through as many values as are declared, whether they are there or not
    shape = file.attrs.get_id(name).shape
    if shape is None or math.prod(shape) != 1:
        raise ValueError(f"its attribute {name!r} is not one value")
    value = file.attrs[name]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str | int | float | bool):
        raise ValueError(f"its attribute {name!r} is no text or number")
    return value


def attributes(file: h5py.File) -> dict[str, Any]:
    """Return all attributes of one value, as `attribute` does; others are left out."""
    found = {}
    for name in file.attrs:
        with suppress(ValueError):
            found[name] = attribute(file, name)
    return found


def dataset(file: h5py.File, name: str, kinds: str, axes: int) -> h5py.Dataset:
    """Return a dataset of so many axes whose type is one of `kinds` (numpy's letters; `O` are texts).

    Raises:
        ValueError: it is not there, or is of another kind.
    """
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"it has no dataset {name!r}")
    if found.shape is None or len(found.shape) != axes:
        raise ValueError(
            f"its dataset {name!r} has the shape {found.shape}, not {axes} {'axis' if axes == 1 else 'axes'}"
        )
    kind = found.dtype.kind
    if kind == "O" and h5py.check_string_dtype(found.dtype) is None:
        kind = "references"
    if kind not in kinds:
        raise ValueError(f"its dataset {name!r} has the type {found.dtype}")
    return found


def require_stored(found: h5py.Dataset, rows: int, size: int) -> None:
    """Check that `rows` rows of a dataset can be in a file of `size` bytes, before memory is asked for.

    A virtual dataset is not bounded by its file.

    Raises:
        ValueError: they cannot.
        DataError: they are compressed, and unpack to more than is allowed.
    """
    if found.chunks:
        # a chunk is read whole, however few of its rows are there
        chunk = math.prod(found.chunks) * found.dtype.itemsize
        require_inflated(chunk if chunk > _SMALL_CHUNK else 0, size, f"{found.file.filename}: {found.name}", DataError)
    row_bytes = int(np.prod(found.shape[1:], dtype=object)) * found.dtype.itemsize
    if found.compression is not None or found.scaleoffset is not None:
        require_inflated(rows * row_bytes, size, f"{found.file.filename}: {found.name}", DataError)
    elif not found.is_virtual and rows * row_bytes > size:
        raise ValueError(f"its dataset {found.name!r} declares {rows * row_bytes:,} bytes, more than the file has")
