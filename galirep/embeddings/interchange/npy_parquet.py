"""Export and import of embedding files in the folder layout of clip-retrieval, .npy with .parquet.

autofaiss and embedding-reader read this layout too.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from galirep.embeddings.interchange.header import HEADER, make_header, note_unreadable, read_header
from galirep.embeddings.interchange.labels import match_columns, note_columns, read_column, read_table_labels
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.writer import atomic_writer
from galirep.errors import ConfigError, DataError, format_list
from galirep.system.files import require_free_folder, sync, write_json
from galirep.system.outputs.folders import replacing_folder
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.outputs.holding import locks_outputs
from galirep.system.reading.arrays import map_npy
from galirep.system.reading.files import parsing, require_regular
from galirep.system.reading.limits import require_inflated

FEATURES, METADATA = "img_emb", "metadata"
# the names in clip-retrieval for images from files, webdataset and img2dataset
ID_COLUMNS = ("image_path", "key", "url")
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class ExportResult:
    """The outcome of an export or import: `rows` of `dim` columns in `path`, in `files` pairs of files (1 for HDF5).

    `notes` say how labels were read, where that was not plain, and which rows are not exported.
    """

    path: Path
    rows: int
    dim: int
    files: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {**vars(self), "path": str(self.path), "notes": list(self.notes)}


def is_npy_parquet(path: Path) -> bool:
    """Return whether a folder has this layout."""
    return (path / FEATURES).is_dir() and (path / METADATA).is_dir()


@locks_outputs("out")
def export_embeddings(
    path: str | Path,
    out: str | Path,
    *,
    layers: Sequence[str] | None = None,
    rows_per_file: int = 1_000_000,
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    file_locking: bool | None = None,
) -> ExportResult:
    """Write an embedding file as a folder of .npy and .parquet files.

    The files are `img_emb/img_emb_0000.npy` ..., `metadata/metadata_0000.parquet` ... and `galirep.json`. The .npy
    files contain the rows of readable images in the dtype of the embedding file; the .parquet files their ids
    (`image_path`) and, if there are labels, `label` (null for none) and `label_name`. The rows of unreadable images are
    not exported, which a note says. The folder appears in one step; other files in one that is
    overwritten are kept.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        DataError: `path` cannot be read, or no space is left.
        ConfigError: `out` exists, pyarrow is missing, or `rows_per_file` is less than 1.
    """
    arrow, parquet = _import_pyarrow()
    if rows_per_file < 1:
        raise ConfigError(f"rows_per_file is {rows_per_file}, but must be 1 or more")
    target = Path(out)
    require_free_folder(target, overwrite)
    with (
        load_embeddings(path, layers, locking=file_locking) as embeddings,
        explain_full_disk(target),
        replacing_folder(target, renewed=(FEATURES, METADATA, HEADER)) as folder,
    ):
        (folder / FEATURES).mkdir()
        (folder / METADATA).mkdir()
        starts = range(0, len(embeddings), rows_per_file)
        for number, start in enumerate(starts):
            rows = slice(start, min(start + rows_per_file, len(embeddings)))
            _write_npy(folder / FEATURES / f"img_emb_{number:04d}.npy", embeddings, rows)
            table = arrow.table(_metadata_columns(embeddings, rows, arrow))
            parquet.write_table(table, folder / METADATA / f"metadata_{number:04d}.parquet")
        notes = note_unreadable([image_id for image_id, _ in embeddings.errors])
        write_json(folder / HEADER, make_header(embeddings, notes))
        for file in (*folder.glob("*/*.npy"), *folder.glob("*/*.parquet")):
            sync(file)
        return ExportResult(target, len(embeddings), embeddings.dim, len(starts), notes)


@locks_outputs("out")
def import_embeddings(
    path: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    file_locking: bool | None = None,
) -> ExportResult:
    """Make an embedding file of such a folder, also of one that clip-retrieval made.

    The metadata are read from `galirep.json`; without that file the folder's name is recorded as the encoder. Ids are
    the column `image_path`, `key` or `url`. Labels are the column `label`, numbers or names (see `labels.read_labels`);
    the numbers are named by `galirep.json` or by the column `label_name`. Upper and lower case of these names do not
    matter; other columns are told in `notes`.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        DataError: files are missing or do not fit each other, ids are missing or repeat, labels are neither whole
            numbers nor names, or no space is left.
        ConfigError: `out` exists, or pyarrow is missing.
    """
    folder = Path(path)
    _, parquet = _import_pyarrow()
    arrays = [_open_npy(file) for file in sorted((folder / FEATURES).glob("*.npy"))]
    tables = [_read_parquet(parquet, file) for file in sorted((folder / METADATA).glob("*.parquet"))]
    _check_shapes(folder, arrays, tables)
    ids, column_notes = _read_ids(folder, tables)
    meta, notes = read_header(folder, len(ids), arrays[0])
    notes = (*notes, *column_notes)
    labels = read_table_labels(f"{folder}: the labels", tables, meta.label_names)
    meta = dataclasses.replace(meta, label_names=labels.names)
    block_rows = _block_rows(meta.dim)
    with atomic_writer(Path(out), meta, ids, labels.labels, overwrite=overwrite, locking=file_locking) as writer:
        for array in arrays:
            for start in range(0, len(array), block_rows):
                writer.append(np.asarray(array[start : start + block_rows]))
    return ExportResult(Path(out), len(ids), meta.dim, 1, (*notes, *labels.notes))


def _block_rows(dim: int) -> int:
    """Return how many rows are copied at once."""
    return max(1, _BLOCK_BYTES // (4 * dim))


def _write_npy(path: Path, embeddings: Embeddings, rows: slice) -> None:
    dtype = np.dtype(embeddings.meta.dtype)
    shape = (rows.stop - rows.start, embeddings.dim)
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    block_rows = _block_rows(embeddings.dim)
    with path.open("wb") as file:
        npy_format.write_array_header_1_0(file, header)
        for start in range(rows.start, rows.stop, block_rows):
            block = embeddings.features[start : min(start + block_rows, rows.stop)]
            file.write(block.astype(dtype).tobytes())


def _metadata_columns(embeddings: Embeddings, rows: slice, arrow: Any) -> dict[str, Any]:
    columns = {"image_path": arrow.array(embeddings.ids[rows], arrow.string())}
    if embeddings.labels is not None:
        labels, names = embeddings.labels[rows], embeddings.label_names
        columns["label"] = arrow.array(labels, arrow.int64(), mask=labels < 0)
        if names:
            row_names = [names[label] if label >= 0 else None for label in labels]
            columns["label_name"] = arrow.array(row_names, arrow.string())
    return columns


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


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise ConfigError("this format needs pyarrow: pip install 'galirep[parquet]'") from err
    return pyarrow, pyarrow.parquet
