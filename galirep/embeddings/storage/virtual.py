"""The features of a virtual merge: they stay in the files that were merged, its parts."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.integrity.checksums import sum_features, sum_labels
from galirep.embeddings.reader import Embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.embeddings.storage.layout import append_errors, create_texts


def link_features(files: Sequence[Embeddings], merged: h5py.File, meta: StoreMeta, folder: Path) -> None:
    """Create /features as a virtual dataset of the parts, by paths relative to `folder`, and /parts; fill the rest.

    The checksums of features are those of the parts; of a part of schema 1, which has none, they are computed.
    """
    layout = h5py.VirtualLayout((meta.n_expected, meta.dim), meta.dtype)
    parts: list[str] = []
    reasons: dict[int, str] = {}
    sums = []
    start = 0
    for file in files:
        part_path = os.path.relpath(file.path.resolve(), folder.resolve())
        layout[start : start + len(file)] = h5py.VirtualSource(part_path, "features", (len(file), meta.dim))
        parts.append(json.dumps({"path": part_path, "rows": len(file), "file_id": file.attributes["file_id"]}))
        reasons |= {start + row: reason for row, reason in file.reasons.items()}
        sums.append(_sum_part(file))
        start += len(file)
    merged.create_virtual_dataset("features", layout)
    create_texts(merged, "parts", parts)
    valid = np.ones(meta.n_expected, bool)
    valid[list(reasons)] = False
    merged["valid"][:] = valid
    if reasons:
        append_errors(merged["errors"], 0, reasons)
    beside = sum_labels(merged["ids"][:].tolist(), merged["labels"][:], valid, reasons)
    merged["checksums"][:] = np.stack([np.concatenate(sums), beside], axis=1)
    merged["progress"][:] = (meta.n_expected, 1)


def _sum_part(file: Embeddings) -> NDArray[np.uint32]:
    if (stored := file.feature_sums) is not None:
        return stored
    sums = [sum_features(block.astype(file.meta.dtype)) for _, block in file.blocks()]
    return np.concatenate([np.empty(0, np.uint32), *sums])
