"""`merge`: embedding files of one encoder as one, copied or as a virtual data set that points at them."""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.labels import renumber_labels
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta, differences, naming_lack_of_space
from galirep.embeddings.writer import EmbeddingWriter, append_errors, write_outline, writing_whole
from galirep.errors import ConfigError, DataError, format_list
from galirep.system.files import atomic_write, sha256_json

SAME = (*StoreMeta.ENCODER, "dtype", "precision")


@dataclass(frozen=True)
class MergeResult:
    """What `merge` made: `rows` in `path`, from `parts`; `virtual` if the features stay where they are."""

    path: Path
    rows: int
    parts: tuple[Path, ...]
    virtual: bool


def merge(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    virtual: bool = False,
    overwrite: bool = False,
    file_locking: bool | None = None,
) -> MergeResult:
    """Join embedding files into `out`, one behind the other, with the rows of unreadable images. `out` is whole or not there.

    Labels are matched by their names. `virtual` copies everything but the features and points at those of the parts, by paths relative to
    `out`: the parts must stay where they are and as they are, which is checked when `out` is opened.

    Raises:
        DataError: a part cannot be read or is of another encoder, layers, preprocessing, dtype or precision (each difference listed); ids
            occur twice (listed); labels have names in some parts only; no space is left.
        ConfigError: no parts, one is named twice, `out` exists, or is one of the parts.
    """
    target, parts = Path(out), [Path(path) for path in paths]
    if not parts:
        raise ConfigError("name the files to merge")
    if target.exists() and any(part.exists() and part.samefile(target) for part in parts):
        raise ConfigError(f"{target} is one of the files to merge: choose another name")
    if twice := [part for i, part in enumerate(parts) if part in parts[:i]]:
        raise ConfigError(f"{twice[0]} is named twice: name each file once")
    with ExitStack() as stack:
        files = [stack.enter_context(load_embeddings(part, valid_only=False, locking=file_locking)) for part in parts]
        meta = _meta_of_all(files)
        ids = [name for file in files for name in file.ids]
        if len(set(ids)) < len(ids):
            raise DataError(f"ids occur in more than one row: {format_list(_repeated(files), separator='; ')}")
        labels = _labels_of_all(files, meta.label_names)
        if virtual:
            with atomic_write(target, overwrite) as temporary, naming_lack_of_space(target):
                _point(files, temporary, target, meta, ids, labels)
        else:
            with writing_whole(target, meta, ids, labels, overwrite=overwrite, locking=file_locking) as writer:
                _copy(files, writer)
    return MergeResult(target, len(ids), tuple(parts), virtual)


def _meta_of_all(files: Sequence[Embeddings]) -> StoreMeta:
    first = files[0].meta
    for file in files[1:]:
        if differ := differences(first, file.meta, SAME):
            raise DataError(
                f"{files[0].path} and {file.path} are of different encoders or settings: {'; '.join(differ)}"
            )
    names = tuple(dict.fromkeys(name for file in files for name in file.label_names))
    if names and (unnamed := [file.path for file in files if file.labels is not None and not file.label_names]):
        raise DataError(
            f"{format_list(unnamed)} has labels without names, other parts have named ones: they cannot be matched"
        )
    return replace(
        first,
        n_expected=sum(len(file) for file in files),
        source=_common([file.meta.source for file in files]),
        split=first.split if len({(file.meta.source, file.meta.split) for file in files}) == 1 else None,
        fingerprint=first.fingerprint if len(files) == 1 else sha256_json([file.meta.fingerprint for file in files]),
        label_names=names,
        argv=("merge", *(str(file.path) for file in files)),
    )


def _common(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else format_list(dict.fromkeys(values), separator="; ")


def _repeated(files: Sequence[Embeddings]) -> list[str]:
    owners: dict[str, list[str]] = {}
    for file in files:
        for name in file.ids:
            owners.setdefault(name, []).append(str(file.path))
    return [f"{name} in {' and '.join(dict.fromkeys(paths))}" for name, paths in owners.items() if len(paths) > 1]


def _labels_of_all(files: Sequence[Embeddings], names: Sequence[str]) -> NDArray[np.int64]:
    columns = []
    for file in files:
        labels = np.full(len(file), -1, np.int64) if file.labels is None else file.labels
        columns.append(renumber_labels(labels, file.label_names, names)[0])
    return np.concatenate(columns)


def _copy(files: Sequence[Embeddings], writer: EmbeddingWriter) -> None:
    for file in files:
        reasons = _errors_by_row(file)
        for rows, block in file.blocks():
            writer.append(
                block, {row - rows.start: why for row, why in reasons.items() if rows.start <= row < rows.stop}
            )


def _point(
    files: Sequence[Embeddings],
    temporary: Path,
    target: Path,
    meta: StoreMeta,
    ids: Sequence[str],
    labels: NDArray[np.int64],
) -> None:
    layout = h5py.VirtualLayout((meta.n_expected, meta.dim), meta.dtype, maxshape=(None, meta.dim))
    valid = np.ones(meta.n_expected, bool)
    parts = []
    with h5py.File(temporary, "w") as whole:
        write_outline(whole, meta, ids, labels)
        start = 0
        for file in files:
            where = os.path.relpath(file.path.resolve(), target.parent.resolve())
            layout[start : start + len(file)] = h5py.VirtualSource(where, "features", (len(file), meta.dim))
            parts.append({"path": where, "rows": len(file), "file_id": file.attributes["file_id"]})
            if reasons := _errors_by_row(file):
                valid[start + np.array(list(reasons))] = False
                append_errors(whole["errors"], start, reasons)
            start += len(file)
        whole.create_virtual_dataset("features", layout)
        whole["valid"][:] = valid
        text = [json.dumps(part) for part in parts]
        whole.create_dataset("parts", (len(text),), h5py.string_dtype(), text)
        whole.attrs["n_written"] = meta.n_expected
        whole.attrs["complete"] = True


def _errors_by_row(file: Embeddings) -> dict[int, str]:
    reasons: dict[str, str] = dict(file.errors)
    return {row: reasons[name] for row, name in enumerate(file.ids) if name in reasons} if reasons else {}
