"""Reading a folder of .npy and .parquet files, and checking it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.integrity.findings import Findings
from galirep.embeddings.interchange.header import HEADER, read_header, require_files
from galirep.embeddings.interchange.labels import match_columns, note_columns, read_column
from galirep.errors import ConfigError, DataError, format_list
from galirep.system.reading.arrays import map_npy
from galirep.system.reading.files import parsing, require_regular
from galirep.system.reading.limits import require_inflated

FEATURES, METADATA = "img_emb", "metadata"
# the names in clip-retrieval for images from files, webdataset and img2dataset
ID_COLUMNS = ("image_path", "key", "url")


class Folder(NamedTuple):
    """What a folder has: its arrays and pyarrow tables, file by file, the ids, and notes on columns not read."""

    arrays: list[NDArray[Any]]
    tables: list[Any]
    ids: list[str]
    notes: list[str]


def is_npy_parquet(path: Path) -> bool:
    """Return whether a folder has this layout."""
    return (path / FEATURES).is_dir() and (path / METADATA).is_dir()


def read_folder(folder: Path) -> Folder:
    """Read the tables of a folder and map its arrays.

    Raises:
        DataError: files are missing or do not fit each other, or ids are missing or repeat.
        ConfigError: pyarrow is missing.
    """
    _, parquet = import_pyarrow()
    arrays = [_open_npy(file) for file in sorted((folder / FEATURES).glob("*.npy"))]
    tables = [_read_parquet(parquet, file) for file in sorted((folder / METADATA).glob("*.parquet"))]
    _check_shapes(folder, arrays, tables)
    return Folder(arrays, tables, *_read_ids(folder, tables))


def check_export(folder: Path, findings: Findings) -> tuple[int, int]:
    """Compare the files of such a folder with their checksums and with each other; return its rows and columns.

    Raises:
        DataError: they are not what was written, or cannot be read.
    """
    if not require_files(folder):
        findings.warnings.append(f"it has no {HEADER} with checksums: what its files say is not checked")
    arrays, _, ids, _ = read_folder(folder)
    read_header(folder, len(ids), arrays[0])
    bad = (f"{FEATURES}, file {i}" for i, array in enumerate(arrays) if not np.isfinite(array).all())
    findings.list_problem("files with NaN or infinity", bad)
    return len(ids), arrays[0].shape[1]


def _open_npy(path: Path) -> NDArray[Any]:
    array = map_npy(path)
    if array.ndim != 2 or array.dtype not in (np.float32, np.float16):
        raise DataError(f"{path} contains {array.dtype} {array.shape}, not rows of float32 or float16")
    return array


def _check_shapes(folder: Path, arrays: Sequence[NDArray[Any]], tables: Sequence[Any]) -> None:
    if not arrays or not tables:
        raise DataError(
            f"{folder} is not a folder of embeddings: it needs {FEATURES}/*.npy and {METADATA}/*.parquet, as "
            "galirep export --format npy-parquet and clip-retrieval write them"
        )
    shapes = [array.shape for array in arrays]
    counts = [table.num_rows for table in tables]
    kinds = {(array.shape[1], array.dtype) for array in arrays}
    if [rows for rows, _ in shapes] != counts or len(kinds) > 1:
        raise DataError(
            f"{folder}: its .npy files of shapes {format_list(shapes)} do not fit together, "
            f"or do not fit its .parquet files of {format_list(counts)} rows"
        )


def _read_parquet(parquet: Any, file: Path) -> Any:
    require_regular(file, str(file), DataError)
    with parsing(f"{file} is not a readable .parquet file", DataError):
        metadata = parquet.read_metadata(file)
        groups = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        # a run of equal values takes next to nothing in the file, and 8 bytes or more each in memory
        cells = 8 * metadata.num_rows * metadata.num_columns
        require_inflated(max(sum(groups), cells), file.stat().st_size, str(file), DataError)
        table = parquet.read_table(file)
        table.validate(full=True)
    return match_columns(str(file), table, ID_COLUMNS)


def _read_ids(folder: Path, tables: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Return the ids, and notes on columns that are not read."""
    column = next((name for name in ID_COLUMNS if name in tables[0].column_names), None)
    if column is None:
        raise DataError(
            f"{folder}: the metadata have no ids: expected a column {' or '.join(ID_COLUMNS)}, "
            f"found {tables[0].column_names}"
        )
    ids = read_column(tables, column)
    if missing := [row for row, name in enumerate(ids) if name is None]:
        raise DataError(f"{folder}: {len(missing)} rows have no {column}, the first is row {missing[0]}")
    ids = [str(name) for name in ids]
    if len(set(ids)) < len(ids):
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        raise DataError(f"{folder}: ids that occur more than once: {format_list(repeated)}")
    return ids, note_columns(tables, column, ID_COLUMNS)


def import_pyarrow() -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise ConfigError("this format needs pyarrow: pip install 'galirep[parquet]'") from err
    return pyarrow, pyarrow.parquet
