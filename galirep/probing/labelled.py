"""Labelled features for a probe: read from embedding files or arrays, checked, and numbered by the same classes."""

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
"""An embedding file, by path or open, or a pair of arrays: (N, D) features and (N,) labels.

Labels of arrays are whole numbers (negative: no label) or names."""


@dataclass(frozen=True)
class Labelled:
    """Finite features (N, D) float32 with labels (N,) int64 >= 0; `meta` is None for arrays."""

    source: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...] = ()
    layers: tuple[tuple[str, int], ...] = ()
    meta: StoreMeta | None = None

    def name(self, label: int) -> str:
        """Return the name of a class, or its number as text if it has no name."""
        return self.label_names[label] if label < len(self.label_names) else str(label)

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """Return the same source restricted to `rows`, in the order given."""
        return replace(self, features=self.features[rows], labels=self.labels[rows])

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw `fraction` of each class at random; return the row numbers of the rest and of the drawn rows, ascending.

        Raises:
            DataError: a class has a single row, or a part would have fewer rows than there are classes.
        """
        classes, counts = np.unique(self.labels, return_counts=True)
        rarest = int(np.argmin(counts))
        n_rows, n_classes, n_drawn = len(self.labels), len(classes), round(fraction * len(self.labels))
        if counts[rarest] < 2 or not n_classes <= n_drawn <= n_rows - n_classes:
            raise DataError(
                f"{self.source} has {n_rows} labelled rows of {n_classes} classes, {counts[rarest]} of class "
                f"{self.name(int(classes[rarest]))!r}: too few to hold out {fraction:.0%} of each class"
            )
        rest, drawn = train_test_split(np.arange(n_rows), test_size=fraction, stratify=self.labels, random_state=seed)
        return np.sort(rest), np.sort(drawn)


def load_pair(
    train: Source, test: Source | None, layers: Sequence[str] | None
) -> tuple[Labelled, Labelled | None, list[str]]:
    """Load both sets with the class numbers of `train`, and collect notes for the reader of the result.

    Raises:
        DataError: no labels, fewer than two classes in `train`, NaN or infinity, or different encoders.
    """
    notes: list[str] = []
    train_set = _load_set(train, layers, "TRAIN", notes)
    classes = np.unique(train_set.labels)
    if len(classes) < 2:
        only = train_set.name(int(classes[0]))
        raise DataError(f"{train_set.source} has one class only, {only!r}: a probe needs two or more classes")
    if test is None:
        return train_set, None, notes
    test_set = _load_set(test, layers, "TEST", notes)
    _require_comparable(train_set, test_set)
    test_set = _renumber(test_set, train_set.label_names)
    notes += _compare(train_set, test_set)
    return train_set, test_set, notes


def _compare(train: Labelled, test: Labelled) -> list[str]:
    """Return notes on test classes that are not in `train`, and on a test set with the training images."""
    notes = []
    unseen = sorted({test.name(int(label)) for label in np.setdiff1d(test.labels, train.labels)})
    if unseen:
        rows = int(np.sum(~np.isin(test.labels, train.labels)))
        notes.append(
            f"{rows} rows of TEST are of classes that TRAIN does not have ({', '.join(unseen)}): "
            "each counts as an error"
        )
    if train.meta and test.meta and train.meta.fingerprint and train.meta.fingerprint == test.meta.fingerprint:
        notes.append("TEST holds the same images as TRAIN: this is the error on images that the probe was fitted on")
    return notes


def _load_set(source: Source, layers: Sequence[str] | None, side: str, notes: list[str]) -> Labelled:
    """Load TRAIN or TEST without its unlabelled rows, which `notes` then mentions; refuse NaN and infinity."""
    ids: NDArray[np.object_] | None = None
    if isinstance(source, tuple):
        if layers is not None:
            raise DataError(f"{side} is a pair of arrays, which has no layers to choose")
        rows = _from_arrays(source, side)
    elif isinstance(source, Embeddings):
        selected = source if layers is None else source.select(layers)
        rows, ids = _from_embeddings(selected), selected.ids
    else:
        with load_embeddings(source, layers) as opened:
            rows, ids = _from_embeddings(opened), opened.ids
    _require_finite(rows, ids)
    labelled = np.flatnonzero(rows.labels >= 0)
    if not len(labelled):
        raise DataError(f"{rows.source} has no labels: a probe needs the class of each row")
    n_unlabelled = len(rows.labels) - len(labelled)
    if n_unlabelled:
        notes.append(f"{n_unlabelled} of {len(rows.labels)} rows of {side} have no label and are left out")
        return rows.take(labelled)
    return rows


def _require_finite(rows: Labelled, ids: NDArray[np.object_] | None) -> None:
    bad = np.flatnonzero(~np.isfinite(rows.features).all(axis=1))
    if len(bad):
        first = f"row {bad[0]}" if ids is None else repr(str(ids[bad[0]]))
        raise DataError(
            f"{rows.source}: {len(bad)} of {len(rows.features)} rows of features contain NaN or infinity, "
            f"the first is {first}"
        )


def _from_arrays(pair: tuple[ArrayLike, ArrayLike], side: str) -> Labelled:
    features, labels = np.asarray(pair[0], np.float32), np.asarray(pair[1])
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise DataError(f"{side} must be features (N, D) and labels (N,), not {features.shape} and {labels.shape}")
    names: tuple[str, ...] = ()
    if labels.dtype.kind in "USO":
        classes, labels = np.unique(labels.astype(str), return_inverse=True)
        names = tuple(classes.tolist())
    elif labels.dtype.kind not in "iub":
        raise DataError(f"labels of {side} must be whole numbers or names, not {labels.dtype}")
    return Labelled(f"{side} (arrays)", features, labels.astype(np.int64), names, (("features", features.shape[1]),))


def _from_embeddings(file: Embeddings) -> Labelled:
    layers = tuple((name, columns.stop - columns.start) for name, columns in file.layers.items())
    labels = np.full(len(file), -1) if file.labels is None else file.labels
    return Labelled(str(file.path), np.asarray(file.features), labels, file.label_names, layers, file.meta)


def _require_comparable(train: Labelled, test: Labelled) -> None:
    mismatches: list[str] = []
    if train.meta and test.meta:
        mismatches = differences(train.meta, test.meta, [name for name in StoreMeta.ENCODER if name != "layers"])
    if train.layers != test.layers:
        mismatches.append(f"layers {dict(train.layers)} are not {dict(test.layers)}")
    if mismatches:
        raise DataError(f"{train.source} and {test.source} are of different encoders: {'; '.join(mismatches)}")


def _renumber(side: Labelled, names: tuple[str, ...]) -> Labelled:
    """Renumber the classes of `side` as in `names`; classes that `names` lacks get the numbers after it."""
    if not names or not side.label_names:
        return side
    labels, label_names = renumber_labels(side.labels, side.label_names, names)
    return replace(side, labels=labels, label_names=label_names)
