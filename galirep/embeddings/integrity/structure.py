"""Whether an embedding file is built as one: types, shapes and sizes of all that is read of it later.

It is checked when a file is opened, before anything else looks into it. What the values say is for `verify`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.data.report import DataReport
from galirep.embeddings.schema import DTYPES, StoreMeta
from galirep.errors import DataError
from galirep.system.pooling_record import Preprocessing
from galirep.system.reading.documents import parse_json
from galirep.system.reading.hdf5 import attribute, dataset, reading, require_stored
from galirep.system.reading.records import Count, Size, check, quoted, read_record

_ENCODER = ("encoder", "encoder_spec", "encoder_tag", "encoder_sha256")
_TEXTS = (*_ENCODER, "precision", "source", "split", "source_fingerprint")
_COLUMNS = {"ids": "OS", "labels": "iu", "valid": "bui"}
_MAX_DIM = 1 << 31


class Part(TypedDict):
    """An entry of `parts`, the files that a virtual merge points at."""

    path: str
    file_id: str
    rows: Count


def require_structure(file: h5py.File, path: Path) -> None:
    """Check the attributes and datasets of an open file.

    Raises:
        DataError: one is missing, or not of its type, number of axes or possible size.
    """
    with reading(path):
        size = path.stat().st_size
        for name in _TEXTS:
            if not isinstance(attribute(file, name), str):
                raise ValueError(f"its attribute {name!r} is no text")
        for name in ("splits", "created"):
            if not isinstance(attribute(file, name, "auto"), str):
                raise ValueError(f"its attribute {name!r} is no text")
        version = attribute(file, "schema_version", 0)
        for name in ("n_expected", "seed", *(("n_written",) if version == 1 else ())):
            check(_number(attribute(file, name)), Count, f"{path} is damaged: its attribute {name!r}", DataError)
        for name, hint in (("argv", list[str]), ("versions", dict[str, Any])):
            _json(file, path, name, hint, "[]" if name == "argv" else "{}")
        _json(file, path, "preprocessing", Preprocessing)
        if report := _json(file, path, "data_report", dict[str, Any], "{}"):
            read_record(DataReport, report, f"{path}: its data report", DataError, ignore_unknown=True)
        for name, kinds in _COLUMNS.items():
            found = dataset(file, name, kinds, 1)
            require_stored(found, len(found), size)
        features = dataset(file, "features", "f", 2)
        require_stored(features, len(features), size)
        if features.dtype.name not in DTYPES or features.shape[1] > _MAX_DIM:
            raise ValueError(f"its features are {features.dtype.name} of {features.shape[1]} columns")
        if (dim := _dim_of(_json(file, path, "layers", dict[str, tuple[Count, Count]]), path)) != features.shape[1]:
            raise ValueError(f"its layers have {dim} columns, its features {features.shape[1]}")
        if version > 1:
            _require_sums(file, size)
        names = dataset(file, "label_names", "OSf", 1)
        require_stored(names, len(names), size)
        if len(names):
            dataset(file, "label_names", "OS", 1).asstr()[:]
        _require_errors(file, size)
        if "parts" in file:
            parts = dataset(file, "parts", "OS", 1)
            require_stored(parts, len(parts), size)
            for text in parts.asstr()[:]:
                check(parse_json(text, str(path), DataError), Part, str(path), DataError, "is damaged: its parts")


def read_json_meta(values: Mapping[str, Any], where: str) -> StoreMeta:
    """Build metadata from plain data, as an index or an exported folder has them; layers are pairs or a table.

    Raises:
        DataError: a value is missing, of another type or out of range; `where` begins the message.
    """
    layers = values.get("layers")
    plain = {**values, "layers": list(layers.items()) if isinstance(layers, Mapping) else layers}
    meta: StoreMeta = read_record(StoreMeta, plain, where, DataError, ignore_unknown=True)
    check(dict(meta.preprocessing), Preprocessing, f"{where}: preprocessing", DataError)
    check([width for _, width in meta.layers], list[Size], f"{where}: the widths of layers", DataError)
    check([meta.n_expected, meta.seed], list[Count], f"{where}: n_expected and seed", DataError)
    if meta.data_report:
        read_record(DataReport, meta.data_report, f"{where}: the data report", DataError, ignore_unknown=True)
    if not meta.layers or len(dict(meta.layers)) < len(meta.layers):
        raise DataError(f"{where}: it has no layers, or two of one name")
    return meta


def require_labels(labels: NDArray[np.int64], names: int, path: Path) -> None:
    """Check labels before they are used to look up names.

    Raises:
        DataError: one is below -1, or no number of a name.
    """
    highest = names - 1 if names else np.iinfo(np.int64).max
    wrong = np.flatnonzero((labels < -1) | (labels > highest))
    if len(wrong):
        raise DataError(
            f"{path} is damaged: {len(wrong)} labels are outside -1 to {highest}, the first is {labels[wrong[0]]}: "
            "galirep verify says which"
        )


def _require_sums(file: h5py.File, size: int) -> None:
    """Check the datasets that schema 1 does not have."""
    rows = len(file["ids"])
    sums, progress = dataset(file, "checksums", "u", 2), dataset(file, "progress", "i", 1)
    require_stored(sums, len(sums), size)
    if sums.shape != (rows, 2) or progress.shape != (2,) or not isinstance(attribute(file, "outline"), str):
        raise ValueError(f"its checksums are {sums.shape}, its progress {progress.shape}, for {rows} rows")
    written, complete = progress[:].tolist()
    if not 0 <= written <= rows or complete not in (0, 1):
        raise ValueError(f"its progress is {written} of {rows} rows, complete {complete}")


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _json(file: h5py.File, path: Path, name: str, hint: Any, default: str | None = None) -> Any:
    """Return an attribute that has JSON of a type."""
    text, where = attribute(file, name, default), f"{path} is damaged: its attribute {name!r}"
    if not isinstance(text, str):
        raise ValueError(f"its attribute {name!r} is no text")
    return check(parse_json(text, where, DataError), hint, where, DataError)


def _dim_of(spans: Mapping[str, tuple[int, int]], path: Path) -> int:
    """Return the number of columns of layers that stand side by side."""
    dim = 0
    for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if start != dim or stop <= start:
            raise DataError(f"{path} is damaged: layer {quoted(name)} has the columns {start} to {stop}")
        dim = stop
    if not dim:
        raise DataError(f"{path} is damaged: it has no layers")
    return dim


def _require_errors(file: h5py.File, size: int) -> None:
    errors = dataset(file, "errors", "V", 1)
    require_stored(errors, len(errors), size)
    fields = errors.dtype.fields or {}
    if "row" not in fields or "reason" not in fields:
        raise ValueError("its dataset errors has no field 'reason' or no field 'row'")
    if fields["row"][0].kind not in "iu" or fields["reason"][0].kind not in "OS":
        raise ValueError("its dataset errors has fields of other types")
    rows = errors.fields("row")[:]
    # of schema 2, rows of -1 are room for more
    if len(rows) and not -1 <= rows.min() <= rows.max() < len(file["ids"]):
        raise ValueError(f"its dataset errors names the rows {rows.min()} to {rows.max()}, of {len(file['ids'])}")
