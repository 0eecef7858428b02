"""`merge`: join embedding files of one encoder, by copying or as a virtual dataset that points at them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.data.report import DataReport, join_reports
from galirep.embeddings.integrity.checksums import sum_features
from galirep.embeddings.labels import renumber_labels
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import MAX_REPORT, StoreMeta, differences
from galirep.embeddings.storage.layout import seal, write_outline
from galirep.embeddings.storage.virtual import link_features
from galirep.embeddings.writer import EmbeddingWriter, atomic_writer
from galirep.errors import ConfigError, DataError, format_list
from galirep.system.files import atomic_write, below, sha256_json
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.outputs.hdf5 import writing_hdf5
from galirep.system.outputs.holding import locks_outputs

SAME = (*StoreMeta.ENCODER, "dtype", "precision")
"""The fields of `StoreMeta` in which all parts must agree."""


@dataclass(frozen=True)
class MergeResult:
    """The outcome of `merge`: `rows` in `path`, from `parts`; `virtual` if the features stay in the parts."""

    path: Path
    rows: int
    parts: tuple[Path, ...]
    virtual: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {**vars(self), "path": str(self.path), "parts": [str(part) for part in self.parts]}


@locks_outputs("out")
def merge(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    virtual: bool = False,
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    file_locking: bool | None = None,
) -> MergeResult:
    """Join embedding files into `out`, one after the other, with the rows of unreadable images.

    Labels are matched by their names (see `labels.renumber_labels`). `virtual` copies everything but the features and
    points at those of the parts, by paths relative to `out`: the parts must not be moved or changed, which is checked
    when `out` is opened, and must be in its folder or below. `out` is written in one step.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        DataError: a part cannot be read or does not have its checksums, or differs in encoder, layers, preprocessing,
            dtype or precision (each difference is listed); ids occur twice (listed); labels are numbers in one part and
            names in another; no space is left.
        ConfigError: there are no parts, one is named twice or (`virtual`) elsewhere, `out` exists, or is one of the
            parts.
    """
    target, parts = Path(out), [Path(path) for path in paths]
    if not parts:
        raise ConfigError("name the files to merge")
    if target.exists() and any(part.exists() and part.samefile(target) for part in parts):
        raise ConfigError(f"{target} is one of the files to merge: choose another name")
    if repeated := [part for i, part in enumerate(parts) if part in parts[:i]]:
        raise ConfigError(f"{repeated[0]} is named twice: name each file once")
    with ExitStack() as stack:
        files = [stack.enter_context(load_embeddings(part, valid_only=False, locking=file_locking)) for part in parts]
        for file in files:
            file.require_intact(features=False)
        _require_same(files)
        ids = [name for file in files for name in file.ids]
        if len(set(ids)) < len(ids):
            raise DataError(f"ids occur in more than one row: {format_list(_find_repeated_ids(files), separator='; ')}")
        labels, names = _merge_labels(files)
        meta = _merge_meta(files, names)
        if virtual:
            _require_below(parts, target)
            with (
                explain_full_disk(target),
                atomic_write(target, overwrite) as temporary,
                writing_hdf5(temporary) as merged,
            ):
                write_outline(merged, meta, ids, labels)
                link_features(files, merged, meta, target.parent)
                seal(merged)
        else:
            with atomic_writer(target, meta, ids, labels, overwrite=overwrite, locking=file_locking) as writer:
                _copy_features(files, writer)
    return MergeResult(target, len(ids), tuple(parts), virtual)


def _require_below(parts: Sequence[Path], target: Path) -> None:
    """Check that a virtual merge may read its parts: a file is let read no other folders."""
    if outside := [part for part in parts if not below(part, target.parent)]:
        raise ConfigError(
            f"{target} would point at {outside[0]}, but parts of a virtual merge are read only from its own folder and "
            "those below: choose a name there, or leave --virtual out"
        )


def _require_same(files: Sequence[Embeddings]) -> None:
    for file in files[1:]:
        if mismatches := differences(files[0].meta, file.meta, SAME):
            raise DataError(
                f"{files[0].path} and {file.path} have different encoders or settings: {'; '.join(mismatches)}"
            )


def _merge_meta(files: Sequence[Embeddings], names: tuple[str, ...]) -> StoreMeta:
    first = files[0].meta
    return replace(
        first,
        n_expected=sum(len(file) for file in files),
        source=_join_distinct([file.meta.source for file in files]),
        split=first.split if len({(file.meta.source, file.meta.split) for file in files}) == 1 else None,
        fingerprint=first.fingerprint if len(files) == 1 else sha256_json([file.meta.fingerprint for file in files]),
        label_names=names,
        data_report=_join_reports(files),
        argv=("merge", *(str(file.path) for file in files)),
    )


def _join_reports(files: Sequence[Embeddings]) -> dict[str, Any]:
    """Return the joined report of the parts that have one; those of earlier versions have none."""
    reports = [DataReport.from_dict(file.meta.data_report) for file in files if file.meta.data_report]
    return join_reports(reports).short_dict(MAX_REPORT) if reports else {}


def _join_distinct(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else format_list(dict.fromkeys(values), separator="; ")


def _find_repeated_ids(files: Sequence[Embeddings]) -> list[str]:
    """Return `ID in FILE and FILE` for each id that occurs in more than one row."""
    owners: dict[str, list[str]] = {}
    for file in files:
        for name in file.ids:
            owners.setdefault(name, []).append(str(file.path))
    return [f"{name} in {' and '.join(dict.fromkeys(paths))}" for name, paths in owners.items() if len(paths) > 1]


def _merge_labels(files: Sequence[Embeddings]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the labels of all rows and the names that they index; classes that no row has keep their names."""
    labelled = [file for file in files if file.labels is not None]
    reference = max(labelled or files, key=lambda file: bool(file.label_names))
    names = reference.label_names
    columns = []
    for file in files:
        labels = np.full(len(file), -1, np.int64) if file.labels is None else file.labels
        labels, names = renumber_labels(labels, file.label_names, names, side=str(file.path), other=str(reference.path))
        columns.append(labels)
    return np.concatenate(columns), names


def _copy_features(files: Sequence[Embeddings], writer: EmbeddingWriter) -> None:
    for file in files:
        sums, reasons = file.feature_sums, file.reasons
        for rows, block in file.blocks():
            # the copy gets checksums of its own, which must not certify what is damaged
            if (
                sums is not None
                and (bad := np.flatnonzero(sum_features(block.astype(file.meta.dtype)) != sums[rows])).size
            ):
                raise DataError(
                    f"{file.path} is damaged: {len(bad)} of its rows do not have their checksums, the first is that of "
                    f"{file.ids[rows.start + bad[0]]!r} (galirep verify lists them): make it again or copy it again"
                )
            errors = {row - rows.start: reason for row, reason in reasons.items() if rows.start <= row < rows.stop}
            writer.append(block, errors)
