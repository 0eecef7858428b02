"""Reading rows of /features: some of its columns, in any order, as float32."""

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

# rows of a file in one piece that are this close to each other are read at once, like those of one chunk
_NEAR_BYTES = 1 << 18


def read_feature_rows(dataset: h5py.Dataset, rows: NDArray[np.int64], columns: Sequence[slice]) -> NDArray[np.float32]:
    """Return the rows of a dataset, in the order given, with these columns side by side: (N, width) float32."""
    if not len(rows):
        return np.empty((0, sum(part.stop - part.start for part in columns)), np.float32)
    if (np.diff(rows) == 1).all():
        return _read_consecutive(dataset, rows[0], rows[-1] + 1, columns)
    return _read_scattered(dataset, rows, columns)


def _read_consecutive(dataset: h5py.Dataset, start: int, stop: int, columns: Sequence[slice]) -> NDArray[np.float32]:
    blocks = [dataset[start:stop, part] for part in columns]
    features: NDArray[Any] = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
    return features.astype(np.float32, copy=False)


def _read_scattered(dataset: h5py.Dataset, rows: NDArray[np.int64], columns: Sequence[slice]) -> NDArray[np.float32]:
    features = np.empty((len(rows), sum(part.stop - part.start for part in columns)), np.float32)
    order = np.argsort(rows, kind="stable")
    sorted_rows = rows[order]
    near = max(1, _NEAR_BYTES // (dataset.shape[1] * dataset.dtype.itemsize))
    near = (dataset.chunks or (near,))[0]
    breaks = np.flatnonzero((np.diff(sorted_rows) > 1) & (np.diff(sorted_rows // near) > 0)) + 1
    for run in np.split(np.arange(len(rows)), breaks):
        first, last = sorted_rows[run[0]], sorted_rows[run[-1]]
        target = 0
        for part in columns:
            width = part.stop - part.start
            features[order[run], target : target + width] = dataset[first : last + 1, part][sorted_rows[run] - first]
            target += width
    return features
