"""Export and import of embedding files in the folder layout of clip-retrieval, .npy with .parquet.

autofaiss and embedding-reader read this layout too.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from galirep.embeddings.interchange.folder import FEATURES, METADATA, import_pyarrow, read_folder
from galirep.embeddings.interchange.header import HEADER, make_header, note_unreadable, read_header, require_files
from galirep.embeddings.interchange.labels import read_table_labels
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.writer import atomic_writer
from galirep.errors import ConfigError
from galirep.system.files import require_free_folder, sync, write_json
from galirep.system.outputs.folders import replacing_folder
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.outputs.holding import locks_outputs

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


@locks_outputs("out", inputs=("path",))
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
    arrow, parquet = import_pyarrow()
    if rows_per_file < 1:
        raise ConfigError(f"rows_per_file is {rows_per_file}, but must be 1 or more")
    target = Path(out)
    require_free_folder(target, overwrite)
    with (
        # the files get checksums of their own, which must not certify what is damaged
        load_embeddings(path, layers, check=True, locking=file_locking) as embeddings,
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
        write_json(folder / HEADER, make_header(embeddings, notes, folder))
        for file in (*folder.glob("*/*.npy"), *folder.glob("*/*.parquet")):
            sync(file)
        return ExportResult(target, len(embeddings), embeddings.dim, len(starts), notes)


@locks_outputs("out", inputs=("path",))
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
        DataError: files are missing, do not fit each other or do not have their checksums (`galirep.json`), ids are
            missing or repeat, labels are neither whole numbers nor names, or no space is left.
        ConfigError: `out` exists, or pyarrow is missing.
    """
    folder = Path(path)
    require_files(folder)
    arrays, tables, ids, column_notes = read_folder(folder)
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
