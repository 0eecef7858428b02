"""Labelled features for a probe: read from embedding files or arrays, checked, and two of them brought to one numbering of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import train_test_split

from galirep.embeddings.labels import renumber_labels
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta, differences
from galirep.errors import DataError

Source: TypeAlias = str | Path | Embeddings | tuple[ArrayLike, ArrayLike]
"""An embedding file, by path or open, or a pair of arrays: (N, D) features and (N,) labels, whole numbers (negative: no label) or names."""


@dataclass(frozen=True)
class Labelled:
    """Features (N, D) float32, finite, with their labels (N,) int64, none negative; `meta` where they come from an embedding file."""

    source: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...] = ()
    layers: tuple[tuple[str, int], ...] = ()
    meta: StoreMeta | None = None

    def name(self, label: int) -> str:
        """The name of a class, or its number where it has none."""
        return self.label_names[label] if label < len(self.label_names) else str(label)

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """These rows."""
        return replace(self, features=self.features[rows], labels=self.labels[rows])

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row numbers: the rest, and `fraction` of each class drawn at random; both in rising order.

        Raises:
            DataError: a class has a single row, or a part would have fewer rows than there are classes.
        """
        classes, counts = np.unique(self.labels, return_counts=True)
        rarest = int(np.argmin(counts))
        if counts[rarest] < 2 or not len(classes) <= round(fraction * len(self.labels)) <= len(self.labels) - len(
            classes
        ):
            raise DataError(
                f"{self.source} has {len(self.labels)} labelled rows of {len(classes)} classes, {counts[rarest]} of class "
                f"{self.name(int(classes[rarest]))!r}: too few to keep {fraction:.0%} of each class back"
            )
        rest, kept = train_test_split(
            np.arange(len(self.labels)), test_size=fraction, stratify=self.labels, random_state=seed
        )
        return np.sort(rest), np.sort(kept)


def open_pair(
    train: Source, test: Source | None, layers: Sequence[str] | None
) -> tuple[Labelled, Labelled | None, list[str]]:
    """Both sides, numbered alike, and notes on what a reader of the result should know.

    Raises:
        DataError: no labels, fewer than two classes in `train`, NaN or infinity, or encoders that differ.
    """
    notes: list[str] = []
    ours = _open(train, layers, "TRAIN", notes)
    if len(classes := np.unique(ours.labels)) < 2:
        raise DataError(
            f"{ours.source} has one class only, {ours.name(int(classes[0]))!r}: a probe tells two or more apart"
        )
    if test is None:
        return ours, None, notes
    theirs = _open(test, layers, "TEST", notes)
    _require_comparable(ours, theirs)
    theirs = _renumbered(theirs, ours.label_names)
    if strange := sorted({theirs.name(int(label)) for label in np.setdiff1d(theirs.labels, ours.labels)}):
        rows = int(np.sum(~np.isin(theirs.labels, ours.labels)))
        notes.append(
            f"{rows} rows of TEST are of classes that TRAIN does not have ({', '.join(strange)}): each counts as an error"
        )
    if ours.meta and theirs.meta and ours.meta.fingerprint and ours.meta.fingerprint == theirs.meta.fingerprint:
        notes.append("TEST holds the same images as TRAIN: this is the error on images that the probe was fitted on")
    return ours, theirs, notes


def _open(source: Source, layers: Sequence[str] | None, side: str, notes: list[str]) -> Labelled:
    if isinstance(source, tuple):
        if layers is not None:
            raise DataError(f"{side} is a pair of arrays, which has no layers to choose")
        found, ids = _from_arrays(source, side), None
    elif isinstance(source, Embeddings):
        chosen = source if layers is None else source.select(layers)
        found, ids = _from_embeddings(chosen), chosen.ids
    else:
        with load_embeddings(source, layers) as opened:
            found, ids = _from_embeddings(opened), opened.ids
    bad = np.flatnonzero(~np.isfinite(found.features).all(axis=1))
    if len(bad):
        first = f"row {bad[0]}" if ids is None else repr(str(ids[bad[0]]))
        raise DataError(
            f"{found.source}: {len(bad)} of {len(found.features)} rows of features hold NaN or infinity, the first is {first}"
        )
    labelled = np.flatnonzero(found.labels >= 0)
    if not len(labelled):
        raise DataError(f"{found.source} has no labels: a probe needs the class of each row")
    if left_out := len(found.labels) - len(labelled):
        notes.append(f"{left_out} of {len(found.labels)} rows of {side} have no label and are left out")
        return found.take(labelled)
    return found


def _from_arrays(pair: tuple[ArrayLike, ArrayLike], side: str) -> Labelled:
    features, labels = np.asarray(pair[0], np.float32), np.asarray(pair[1])
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise DataError(f"{side} must be features (N, D) and labels (N,), not {features.shape} and {labels.shape}")
    names: tuple[str, ...] = ()
    if labels.dtype.kind in "USO":
        known, labels = np.unique(labels.astype(str), return_inverse=True)
        names = tuple(known.tolist())
    elif labels.dtype.kind not in "iub":
        raise DataError(f"labels of {side} must be whole numbers or names, not {labels.dtype}")
    return Labelled(f"{side} (arrays)", features, labels.astype(np.int64), names, (("features", features.shape[1]),))


def _from_embeddings(file: Embeddings) -> Labelled:
    layers = tuple((name, columns.stop - columns.start) for name, columns in file.layers.items())
    labels = np.full(len(file), -1) if file.labels is None else file.labels
    return Labelled(str(file.path), np.asarray(file.features), labels, file.label_names, layers, file.meta)


def _require_comparable(train: Labelled, test: Labelled) -> None:
    found: list[str] = []
    if train.meta and test.meta:
        found = differences(train.meta, test.meta, [name for name in StoreMeta.ENCODER if name != "layers"])
    if train.layers != test.layers:
        found.append(f"layers {dict(train.layers)} are not {dict(test.layers)}")
    if found:
        raise DataError(f"{train.source} and {test.source} are of different encoders: {'; '.join(found)}")


def _renumbered(side: Labelled, names: tuple[str, ...]) -> Labelled:
    """The same rows with classes numbered as in `names`; classes that are not there get numbers after it."""
    if not names or not side.label_names:
        return side
    labels, together = renumber_labels(side.labels, side.label_names, names)
    return replace(side, labels=labels, label_names=together)
