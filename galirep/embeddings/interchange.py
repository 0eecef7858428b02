"""Embedding files to and from the folder layout of clip-retrieval (.npy beside .parquet), which autofaiss and embedding-reader read."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta, naming_lack_of_space
from galirep.embeddings.writer import writing_whole
from galirep.errors import ConfigError, DataError, format_list
from galirep.system.files import atomic_folder, write_json

FEATURES, METADATA, ABOUT = "img_emb", "metadata", "galirep.json"
ID_COLUMNS = ("image_path", "key", "url")  # what clip-retrieval calls them: files, webdataset, img2dataset


@dataclass(frozen=True)
class ExportResult:
    """What was written: `rows` of `dim` columns in `path`, in `files` pairs of files (1 for HDF5)."""

    path: Path
    rows: int
    dim: int
    files: int


def is_npy_parquet(path: Path) -> bool:
    """Whether a folder has this layout."""
    return (path / FEATURES).is_dir() and (path / METADATA).is_dir()


def export_embeddings(
    path: str | Path,
    out: str | Path,
    *,
    layers: Sequence[str] | None = None,
    rows_per_file: int = 1_000_000,
    overwrite: bool = False,
    file_locking: bool | None = None,
) -> ExportResult:
    """Write an embedding file as a folder: `img_emb/img_emb_0000.npy` ..., `metadata/metadata_0000.parquet` ... and `galirep.json`.

    The .npy hold the rows of readable images in the file's own dtype; the .parquet their ids (`image_path`) and, where there are labels,
    `label` (null for none) and `label_name`. The folder is whole or not there.

    Raises:
        DataError: `path` cannot be read, or no space is left.
        ConfigError: `out` exists, pyarrow is missing, or `rows_per_file` is less than 1.
    """
    arrow, parquet = _pyarrow()
    if rows_per_file < 1:
        raise ConfigError(f"rows_per_file {rows_per_file}: 1 or more")
    target = Path(out)
    with (
        load_embeddings(path, layers, locking=file_locking) as found,
        naming_lack_of_space(target),
        atomic_folder(target, overwrite) as folder,
    ):
        (folder / FEATURES).mkdir()
        (folder / METADATA).mkdir()
        starts = range(0, len(found), rows_per_file)
        for number, start in enumerate(starts):
            rows = slice(start, min(start + rows_per_file, len(found)))
            _write_npy(folder / FEATURES / f"img_emb_{number:04d}.npy", found, rows)
            parquet.write_table(
                arrow.table(_columns(found, rows, arrow)), folder / METADATA / f"metadata_{number:04d}.parquet"
            )
        about = dataclasses.replace(
            found.meta, layers=tuple((name, s.stop - s.start) for name, s in found.layers.items())
        )
        write_json(
            folder / ABOUT,
            {**dataclasses.asdict(about), "errors": [{"id": name, "reason": why} for name, why in found.errors]},
        )
        return ExportResult(target, len(found), found.dim, len(starts))


def import_embeddings(
    path: str | Path, out: str | Path, *, overwrite: bool = False, file_locking: bool | None = None
) -> ExportResult:
    """Make an embedding file of such a folder; of one that clip-retrieval made, too.

    The encoder and all else that is recorded come from `galirep.json`; without one the folder's name stands for the encoder. Ids are the
    column `image_path`, `key` or `url`.

    Raises:
        DataError: files are missing or do not fit each other, ids are missing or repeat, or no space is left.
        ConfigError: `out` exists, or pyarrow is missing.
    """
    folder = Path(path)
    _, parquet = _pyarrow()
    arrays = [_open_npy(file) for file in sorted((folder / FEATURES).glob("*.npy"))]
    tables = [parquet.read_table(file) for file in sorted((folder / METADATA).glob("*.parquet"))]
    shapes, counts = [array.shape for array in arrays], [table.num_rows for table in tables]
    if (
        not arrays
        or [rows for rows, _ in shapes] != counts
        or len({(array.shape[1], array.dtype) for array in arrays}) > 1
    ):
        raise DataError(
            f"{folder}: its .npy of shapes {format_list(shapes)} do not fit together, or not its .parquet of {format_list(counts)} rows"
        )
    column = next((name for name in ID_COLUMNS if name in tables[0].column_names), None)
    if column is None:
        raise DataError(
            f"{folder}: the metadata have no ids: expected a column {' or '.join(ID_COLUMNS)}, found {tables[0].column_names}"
        )
    ids = [str(name) for table in tables for name in table[column].to_pylist()]
    if len(set(ids)) < len(ids):
        raise DataError(
            f"{folder}: ids that occur more than once: {format_list(name for name, count in Counter(ids).items() if count > 1)}"
        )
    labels = None
    if all("label" in table.column_names for table in tables):
        labels = np.array(
            [-1 if label is None else label for table in tables for label in table["label"].to_pylist()], np.int64
        )
    meta = _read_about(folder, len(ids), arrays[0])
    with writing_whole(Path(out), meta, ids, labels, overwrite=overwrite, locking=file_locking) as writer:
        for array in arrays:
            for start in range(0, len(array), step := max(1, (1 << 24) // (4 * meta.dim))):
                writer.append(np.asarray(array[start : start + step]))
    return ExportResult(Path(out), len(ids), meta.dim, 1)


def _write_npy(path: Path, found: Embeddings, rows: slice) -> None:
    with path.open("wb") as file:
        dtype = np.dtype(found.meta.dtype)
        shape = (rows.stop - rows.start, found.dim)
        npy_format.write_array_header_1_0(
            file, {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        step = max(1, (1 << 24) // (4 * found.dim))
        for start in range(rows.start, rows.stop, step):
            file.write(found.features[start : min(start + step, rows.stop)].astype(dtype).tobytes())


def _columns(found: Embeddings, rows: slice, arrow: Any) -> dict[str, Any]:
    columns = {"image_path": arrow.array(found.ids[rows], arrow.string())}
    if found.labels is not None:
        labels = found.labels[rows]
        columns["label"] = arrow.array(labels, arrow.int64(), mask=labels < 0)
        if found.label_names:
            columns["label_name"] = arrow.array(
                [found.label_names[label] if label >= 0 else None for label in labels], arrow.string()
            )
    return columns


def _open_npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as err:
        raise DataError(f"{path} is no readable .npy file: {err}") from err
    if array.ndim != 2 or array.dtype not in (np.float32, np.float16):
        raise DataError(f"{path} holds {array.dtype} {array.shape}, not rows of float32 or float16")
    return array


def _read_about(folder: Path, rows: int, array: NDArray[Any]) -> StoreMeta:
    own: dict[str, Any] = {"n_expected": rows, "dtype": array.dtype.name}
    if not (folder / ABOUT).exists():
        return StoreMeta(
            encoder=folder.resolve().name, layers=(("features", array.shape[1]),), source=str(folder), **own
        )
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        about.pop("errors")
        lists = {name: tuple(about[name]) for name in ("label_names", "argv")}
        meta = StoreMeta(**{**about, **lists, **own, "layers": tuple((name, width) for name, width in about["layers"])})
    except (ValueError, TypeError, KeyError) as err:
        raise DataError(f"{folder / ABOUT} is damaged: {err}") from err
    if meta.dim != array.shape[1]:
        raise DataError(f"{folder}: the .npy have {array.shape[1]} columns, {ABOUT} tells of {meta.dim}")
    return meta


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise ConfigError("this format needs pyarrow: pip install 'galirep[parquet]'") from err
    return pyarrow, pyarrow.parquet
