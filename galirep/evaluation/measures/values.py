"""The file of --save-values: the values of each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
from numpy.typing import NDArray

from galirep.system.files import atomic_write
from galirep.system.outputs.hdf5 import writing_hdf5


class Values(NamedTuple):
    """The arrays of one subject: metric -> name -> one row an image, in the order of `ids`."""

    name: str
    ids: Sequence[str]
    metrics: Mapping[str, Mapping[str, NDArray[Any]]]


def write_values(path: Path, subjects: Sequence[Values], overwrite: bool) -> None:
    """Write `runs/I/ids` and `runs/I/METRIC/NAME` for the I-th subject, whose name is the attribute `run`."""
    with atomic_write(path, overwrite) as temporary, writing_hdf5(temporary) as file:
        for i, subject in enumerate(subjects):
            group = file.create_group(f"runs/{i}")
            group.attrs["run"] = subject.name
            group.create_dataset("ids", data=list(subject.ids), dtype=h5py.string_dtype())
            for metric, arrays in subject.metrics.items():
                for name, array in arrays.items():
                    group.create_dataset(f"{metric}/{name}", data=array, compression="gzip", compression_opts=1)
