"""Image sets by name: `open_data` opens every kind of set that galirep reads."""

from collections.abc import Sequence
from pathlib import Path

from galirep.data.arrays import Hdf5Source, open_digits, open_npz
from galirep.data.files.csv_list import open_csv
from galirep.data.files.folders import open_folder
from galirep.data.files.splits import AUTO, NONE, write_splits
from galirep.data.files.tar import open_tar
from galirep.data.report import DataReport
from galirep.data.sources import HANDED, FileSource, ImageSource
from galirep.data.torchvision import SETS, open_torchvision
from galirep.errors import ConfigError, DataError, unknown
from galirep.system.reading.files import kind_of

SPECS = {
    "FOLDER": "class subfolders of image files, or a flat folder; train/, val/ and test/ in it are its splits",
    "FILE.tar": "an uncompressed tar of such a folder, read without unpacking",
    "sklearn:digits": "1,797 handwritten digits, 8x8 grey, from scikit-learn; splits train, test",
    **{f"torchvision:{name}": f"{s.name} from torchvision; splits {', '.join(s.splits)}" for name, s in SETS.items()},
    "npz:FILE": "arrays images|x|arr_0 and labels|y|arr_1",
    "hdf5:FILE[#DATASET]": "a dataset of images (default images|x), labels|y beside it; read row by row",
    "csv:FILE": "columns path,label",
}
"""How to write each kind of data set, and what it is."""


def open_data(
    spec: str | Path,
    split: str | None = None,
    *,
    splits: str | Sequence[str] | None = AUTO,
    root: str | Path | None = None,
    download: bool = False,
    max_pixels: int | None = None,
) -> ImageSource:
    """Open the image set that `spec` names, written as in `SPECS`.

    docs/data.md states the ids, labels and splits of each kind. `split` None is the training split of a set that has
    splits. `splits` says which top-level folders of a folder or tar are splits: `auto` goes by their names, `none`
    takes all of them as classes, anything else names them (a list, or one text with commas). `report` of the source
    says what was read, left out and assumed. `root` is the folder of torchvision's sets (default `$GALIREP_DATA`, or
    `~/.cache/galirep/data`); they are downloaded only with `download`. `max_pixels` is the size of the
    largest image file that is decoded (default `$GALIREP_MAX_PIXELS`, or 178,956,970).

    Raises:
        DataError: the kind is unknown, the path does not exist, the set has no images or no such split, or it is not
            plain which folders are splits.
        ConfigError: `splits` is empty, or names folders of a set that is not a folder or tar.
    """
    source = _open(str(spec), split, write_splits(splits), root, download)
    if max_pixels is not None and isinstance(source, FileSource):
        source.max_pixels = max_pixels
    return source


def path_of(spec: str) -> Path | None:
    """Return the file or folder that a spec names; None for sets that have no place of their own on the disk."""
    kind, colon, name = spec.partition(":")
    if kind == "torchvision" or spec == "sklearn:digits":
        return None
    if kind in ("npz", "hdf5", "csv") and colon:
        return Path(name.partition("#")[0] if kind == "hdf5" and not Path(name).is_file() else name)
    return Path(spec)


def _open(spec: str, split: str | None, splits: str, root: str | Path | None, download: bool) -> ImageSource:
    kind, colon, name = spec.partition(":")
    path = Path(spec)
    if splits not in (AUTO, NONE) and not path.exists():
        raise ConfigError(f"--splits {splits}: {spec} is not a folder or .tar, which alone have folders")
    if kind == "torchvision":
        return open_torchvision(spec, split, root, download)
    if spec == "sklearn:digits":
        digits = open_digits(spec, split)
        digits.tell(DataReport(spec, splits=("train", "test")))
        return digits
    if kind in ("npz", "hdf5", "csv") and colon:
        if split is not None:
            raise DataError(f"{spec} has no split {split!r}: it has no splits, so leave --split out")
        return _open_file(spec, kind, name)
    if spec and path.is_dir():
        return open_folder(spec, path, split, splits)
    if path.is_file():
        prefix = {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".csv": "csv"}.get(path.suffix.lower())
        if prefix:
            raise DataError(f"{spec} is not a folder or .tar: write {prefix}:{spec}")
        return open_tar(spec, path, split, splits)
    raise DataError(_explain_missing(spec))


def _open_file(spec: str, kind: str, name: str) -> ImageSource:
    # a # may also be part of the file's name
    if kind == "hdf5" and not Path(name).is_file():
        name, _, dataset = name.partition("#")
        return Hdf5Source(spec, _existing_file(name), dataset or None)
    return {"npz": open_npz, "hdf5": Hdf5Source, "csv": open_csv}[kind](spec, _existing_file(name))


def _existing_file(name: str) -> Path:
    path = Path(name)
    if kind := kind_of(path):
        raise DataError(f"{name!r} is {kind}, not a file")
    if not path.is_file():
        raise DataError(f"the file {name!r} does not exist")
    return path


def _explain_missing(spec: str) -> str:
    """Return the message for a path that does not exist, with the spec that was probably meant."""
    if spec.startswith(HANDED):
        return (
            f"{spec}, which no file names: give them again from Python (galirep.train(..., data=images, resume=True))"
        )
    for known_spec in SPECS:
        if known_spec.endswith(f":{spec}"):
            return f"the folder or .tar {spec!r} does not exist: did you mean {known_spec!r}?"
    if ":" in spec:
        return unknown("data set", spec, SPECS)
    return f"the folder or .tar {spec!r} does not exist; data sets are {', '.join(SPECS)}"
