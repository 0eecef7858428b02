"""torchvision's data sets, from local files, or downloaded if the user asks for it."""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from galirep.data.arrays import ArraySource
from galirep.data.picture import one_line
from galirep.data.sources import ImageSource, PathSource
from galirep.errors import DataError, unknown
from galirep.system.offline import offline


@dataclass(frozen=True)
class _Set:
    """A class in torchvision.datasets, and for each of our split names the arguments that select it there."""

    name: str
    splits: Mapping[str, Mapping[str, Any]]


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
    """Return the default folder of torchvision's sets: `$GALIREP_DATA`, or `~/.cache/galirep/data`."""
    return Path(os.environ.get("GALIREP_DATA") or Path.home() / ".cache" / "galirep" / "data")


def open_torchvision(spec: str, split: str | None, root: str | Path | None, download: bool) -> ImageSource:
    """Open the torchvision set that `spec`, `torchvision:NAME`, names; its training split by default.

    All sets are loaded into memory except CelebA, whose files are read from the folder. CelebA has no labels, because
    its attributes do not exclude each other.

    Raises:
        DataError: there is no such set or split, or its files are not in `root`, are damaged or cannot be downloaded.
    """
    name = spec.partition(":")[2]
    if name not in SETS:
        raise DataError(unknown("torchvision data set", name, SETS))
    chosen = SETS[name]
    split = split or "train"
    if split not in chosen.splits:
        raise DataError(f"{spec} has no split {split!r}: its splits are {', '.join(chosen.splits)}")
    folder = Path(root) if root is not None else default_root()
    loaded = _load(spec, chosen.name, chosen.splits[split], folder, download)
    if chosen.name == "CelebA":
        return PathSource(spec, folder / "celeba" / "img_align_celeba", loaded.filename, split=split)
    targets = getattr(loaded, "targets", None)
    labels = np.asarray(loaded.labels if targets is None else targets).astype(np.int64)
    return ArraySource(spec, np.asarray(loaded.data), labels, getattr(loaded, "classes", ()), split)


def _load(spec: str, name: str, split_arguments: Mapping[str, Any], folder: Path, download: bool) -> Any:
    import torchvision.datasets  # takes seconds to import

    try:
        # stdout is for results
        with contextlib.redirect_stdout(sys.stderr), offline(unless=download):
            return getattr(torchvision.datasets, name)(str(folder), **split_arguments, download=download)
    except Exception as err:
        # its readers raise RuntimeError for missing files and any exception for damaged ones
        if download:
            raise DataError(f"{spec} could not be downloaded to {folder}: {one_line(err)}") from err
        # without its advice on torchvision's own arguments
        reason = one_line(err).partition(". ")[0]
        raise DataError(
            f"{spec} cannot be read from {folder} ({reason}): "
            "name its folder with --data-root, or fetch it with --download"
        ) from err
