"""torchvision's data sets, from files that are there already or that the user asked to download."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from galirep.data.arrays import ArraySource
from galirep.data.picture import one_line
from galirep.data.sources import ImageSource, PathSource
from galirep.errors import DataError, unknown


class _Set(NamedTuple):
    name: str  # of the class in torchvision.datasets
    splits: dict[str, dict[str, Any]]  # our name of a split -> the arguments that choose it there


_TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}

SETS = {
    "svhn": _Set("SVHN", {name: {"split": name} for name in ("train", "test", "extra")}),
    "celeba": _Set("CelebA", {"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}}),
    "cifar10": _Set("CIFAR10", _TRAIN_TEST),
    "cifar100": _Set("CIFAR100", _TRAIN_TEST),
    "mnist": _Set("MNIST", _TRAIN_TEST),
    "fashionmnist": _Set("FashionMNIST", _TRAIN_TEST),
    "stl10": _Set("STL10", {name: {"split": name} for name in ("train", "test", "unlabeled")}),
}


def default_root() -> Path:
    """Where torchvision's sets lie unless said otherwise: `$GALIREP_DATA`, or `~/.cache/galirep/data`."""
    return Path(os.environ.get("GALIREP_DATA") or Path.home() / ".cache" / "galirep" / "data")


def open_torchvision(spec: str, split: str | None, root: str | Path | None, download: bool) -> ImageSource:
    """The set that `spec`, `torchvision:NAME`, names; its training split by default.

    All are held in memory but for CelebA, whose files are read where they lie and which has no labels: its attributes exclude no other.

    Raises:
        DataError: no such set or split, its files are not in `root`, or they are damaged or cannot be downloaded.
    """
    name = spec.partition(":")[2]
    if name not in SETS:
        raise DataError(unknown("torchvision data set", name, SETS))
    kind = SETS[name]
    split = split or "train"
    if split not in kind.splits:
        raise DataError(f"{spec} has no split {split!r}: its splits are {', '.join(kind.splits)}")
    folder = Path(root) if root is not None else default_root()
    loaded = _load(spec, kind.name, folder, {**kind.splits[split], "download": download})
    if kind.name == "CelebA":
        return PathSource(spec, folder / "celeba" / "img_align_celeba", loaded.filename, split=split)
    targets = getattr(loaded, "targets", None)
    labels = np.asarray(loaded.labels if targets is None else targets).astype(np.int64)
    return ArraySource(spec, np.asarray(loaded.data), labels, getattr(loaded, "classes", ()), split)


def _load(spec: str, name: str, folder: Path, arguments: dict[str, Any]) -> Any:
    import torchvision.datasets  # takes seconds to import

    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            return getattr(torchvision.datasets, name)(str(folder), **arguments)
    except Exception as err:  # its readers raise RuntimeError for missing files and anything for damaged ones
        if arguments["download"]:
            raise DataError(f"{spec} could not be downloaded to {folder}: {one_line(err)}") from err
        reason = one_line(err).partition(". ")[0]  # without its advice on torchvision's own arguments
        raise DataError(
            f"{spec} cannot be read from {folder} ({reason}): name its folder with --data-root, or fetch it with --download"
        ) from err
