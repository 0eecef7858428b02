"""What an HDF5 file may hold when it is read: data of its own, not what it takes from elsewhere on the disk.

HDF5 can keep the values of a dataset in any other file (external storage), take them from datasets of other files
(virtual datasets), and name objects of other files (external links, also through soft ones). Whoever writes a file
could so have its reader open what the reader may and the writer may not.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import h5py

from galirep.errors import DataError

# by its number HDF5 chooses among sources: x%b.h5 is x0.h5, x1.h5, ...
_NUMBERED = re.compile(r"%\d*b")


def require_own_links(file: h5py.File, path: object) -> None:
    """Check that all names in an open file are of objects in it: no external, soft or user-defined links.

    Raises:
        DataError: there is another link, or the names cannot be read.
    """
    try:
        found = file.id.links.visit(lambda name, info: None if info.type == h5py.h5l.TYPE_HARD else name, info=True)
    except (OSError, RuntimeError, KeyError, ValueError) as err:
        raise DataError(f"{path} is damaged: {' '.join(str(err).split())}") from err
    if found is not None:
        name = found.decode(errors="replace")
        raise DataError(f"{path}: {name!r} is a link to another place, which is not followed: copy the data itself")


def require_own_storage(dataset: h5py.Dataset, path: object) -> h5py.Dataset:
    """Check that the values of a dataset are in its own file: no external storage, not virtual; return it.

    Raises:
        DataError: they are elsewhere.
    """
    try:
        external, virtual = dataset.id.get_create_plist().get_external_count(), dataset.is_virtual
    except (OSError, RuntimeError, ValueError) as err:
        raise DataError(f"{path} is damaged: {' '.join(str(err).split())}") from err
    if external or virtual:
        kind = "in external storage" if external else "virtual"
        raise DataError(
            f"{path}: the dataset {dataset.name!r} is {kind}, its values in other files, which are not read: "
            "copy the data into one file"
        )
    return dataset


def require_sources(dataset: h5py.Dataset, expected: Iterable[str], path: Path) -> None:
    """Check that a virtual dataset takes its values from the dataset of its own name in the `expected` files alone.

    Raises:
        DataError: it has other sources.
    """
    known, name = set(expected), dataset.name.rpartition("/")[2]
    for source in dataset.virtual_sources():
        if source.file_name not in known or source.dset_name != name or _NUMBERED.search(source.file_name):
            raise DataError(
                f"{path}: the virtual dataset {dataset.name!r} reads {source.file_name!r} ({source.dset_name}), "
                "which `galirep merge --virtual` did not write: merge again"
            )
