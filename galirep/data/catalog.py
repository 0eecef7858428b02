"""Image sets by name: `open_data` opens any set that galirep reads."""

from pathlib import Path

from galirep.data.arrays import Hdf5Source, open_digits, open_npz
from galirep.data.csv_list import open_csv
from galirep.data.folders import open_folder, open_tar
from galirep.data.sources import ImageSource
from galirep.data.torchvision import SETS, open_torchvision
from galirep.errors import DataError, unknown

SPECS = {
    "FOLDER": "class subfolders of image files, or a flat folder; train/, val/ and test/ in it are its splits",
    "FILE.tar": "an uncompressed tar of such a folder, read without unpacking",
    "sklearn:digits": "1,797 handwritten digits, 8x8 grey, from scikit-learn; splits train, test",
    **{f"torchvision:{name}": f"{s.name} from torchvision; splits {', '.join(s.splits)}" for name, s in SETS.items()},
    "npz:FILE": "arrays images|x|arr_0 and labels|y|arr_1",
    "hdf5:FILE[#DATASET]": "a dataset of images (default images|x), labels|y beside it; read row by row",
    "csv:FILE": "columns path,label",
}
"""How each kind of data set is written, and what it is."""


def open_data(
    spec: str | Path, split: str | None = None, *, root: str | Path | None = None, download: bool = False
) -> ImageSource:
    """The image set that `spec` names, written as in `SPECS`; docs/data.md states the ids, labels and splits of each kind.

    `split` None takes the training split where there are splits. `root` is where torchvision's sets lie (default `$GALIREP_DATA`, or
    `~/.cache/galirep/data`); they are fetched only if `download`.

    Raises:
        DataError: unknown kind, nothing there, no images in it, or no such split.
    """
    spec = str(spec)
    kind, colon, name = spec.partition(":")
    if kind == "torchvision":
        return open_torchvision(spec, split, root, download)
    if spec == "sklearn:digits":
        return open_digits(spec, split)
    if kind in ("npz", "hdf5", "csv") and colon:
        if split is not None:
            raise DataError(f"{spec} has no split {split!r}: it has no splits, so leave --split out")
        if kind == "hdf5" and not Path(name).is_file():  # a # may also be part of the file's name
            name, _, dataset = name.partition("#")
            return Hdf5Source(spec, _file(name), dataset or None)
        return {"npz": open_npz, "hdf5": Hdf5Source, "csv": open_csv}[kind](spec, _file(name))
    path = Path(spec)
    if spec and path.is_dir():
        return open_folder(spec, path, split)
    if path.is_file():
        prefix = {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".csv": "csv"}.get(path.suffix.lower())
        if prefix:
            raise DataError(f"{spec} is no folder and no .tar: write {prefix}:{spec}")
        return open_tar(spec, path, split)
    for known in SPECS:
        if known.endswith(f":{spec}"):
            raise DataError(f"there is no folder or .tar {spec!r}: did you mean {known!r}?")
    if colon:
        raise DataError(unknown("data set", spec, SPECS))
    raise DataError(f"there is no folder or .tar {spec!r}; data sets are {', '.join(SPECS)}")


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise DataError(f"there is no file {name!r}")
    return path
