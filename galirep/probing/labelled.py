"""Labelled features for a probe: read from embedding files or arrays, checked, and numbered by the same classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import train_test_split

from galirep.data.labels import note_unlabelled, read_labels
from galirep.embeddings.labels import renumber_labels
from galirep.embeddings.overlap import Side, note_overlap
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta, differences
from galirep.errors import DataError, format_list
from galirep.metrics.overlap import hash_rows, match_rows


class RareClassError(DataError):
    """A class has too few training rows for a protocol."""


@dataclass(frozen=True)
class Labelled:
    """Finite features (N, D) float32 with labels (N,) int64 >= 0; `meta` and `ids` are None for arrays."""

    source: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...] = ()
    layers: tuple[tuple[str, int], ...] = ()
    meta: StoreMeta | None = None
    ids: NDArray[np.object_] | None = None

    def name(self, label: int) -> str:
        """Return the name of a class, or its number as text if it has no name."""
        return self.label_names[label] if label < len(self.label_names) else str(label)

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """Return the same source restricted to `rows`, in the order given."""
        ids = None if self.ids is None else self.ids[rows]
        return replace(self, features=self.features[rows], labels=self.labels[rows], ids=ids)

    def columns(self, names: Sequence[str]) -> "Labelled":
        """Return the same rows with the columns of these layers, in the order of the source."""
        kept = tuple(layer for layer in self.layers if layer[0] in names)
        chosen = np.repeat([name in names for name, _ in self.layers], [width for _, width in self.layers])
        return replace(self, features=self.features[:, chosen], layers=kept)

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw `fraction` of each class at random; return the row numbers of the rest and of the drawn rows, ascending.

        Raises:
            RareClassError: a class has a single row, or a part would have fewer rows than there are classes.
        """
        classes, counts = np.unique(self.labels, return_counts=True)
        rarest = int(np.argmin(counts))
        n_rows, n_classes, n_drawn = len(self.labels), len(classes), round(fraction * len(self.labels))
        if counts[rarest] < 2 or not n_classes <= n_drawn <= n_rows - n_classes:
            raise RareClassError(
                f"{self.source} has {n_rows} labelled rows of {n_classes} classes, {counts[rarest]} of class "
                f"{self.name(int(classes[rarest]))!r}: too few to hold out {fraction:.0%} of each class"
            )
        rest, drawn = train_test_split(np.arange(n_rows), test_size=fraction, stratify=self.labels, random_state=seed)
        return np.sort(rest), np.sort(drawn)


Source: TypeAlias = str | Path | Embeddings | tuple[ArrayLike, ArrayLike] | Labelled
"""An embedding file, by path or open; (N, D) features and (N,) labels, whole numbers (< 0: none) or names; or rows."""


def load_pair(
    train: Source, test: Source | None, layers: Sequence[str] | None, min_per_class: int | None = None
) -> tuple[Labelled, Labelled | None, list[str]]:
    """Load both sets with the class numbers of `train`, and collect notes for the reader of the result.

    Classes with fewer than `min_per_class` rows in `train` are left out of both.

    Raises:
        DataError: no labels, fewer than two classes in `train`, none of them in `test`, numbers on one side and names
            on the other, NaN or infinity, or different encoders.
    """
    notes: list[str] = []
    train_set = _load_set(train, layers, "TRAIN", notes)
    _require_two_classes(train_set)
    test_set = None
    if test is not None:
        test_set = _load_set(test, layers, "TEST", notes)
        _require_comparable(train_set, test_set)
        test_set = _renumber(test_set, train_set)
        _require_shared_class(train_set, test_set)
    if min_per_class is not None:
        train_set, test_set = _leave_out_rare(train_set, test_set, min_per_class, notes)
    if test_set is not None:
        notes += _compare(train_set, test_set)
    return train_set, test_set, notes


def note_equal_rows(train: Labelled, test: Labelled, train_name: str = "TRAIN", test_name: str = "TEST") -> list[str]:
    """Return a note on rows of `test` that have the vector of a row of `train`, or none."""
    equal = match_rows(hash_rows([test.features]), hash_rows([train.features]))
    return note_overlap(
        Side(test_name, test.ids, test.meta),
        Side(train_name, train.ids, train.meta),
        equal,
        "the error on pictures that the probe was not fitted on may be higher",
    )


def _require_two_classes(rows: Labelled) -> None:
    classes = np.unique(rows.labels)
    if len(classes) < 2:
        only = rows.name(int(classes[0]))
        raise DataError(f"{rows.source} has one class only, {only!r}: a probe needs two or more classes")


def _require_shared_class(train: Labelled, test: Labelled) -> None:
    if not np.isin(test.labels, train.labels).any():
        sides = [
            f"{side.source} has {format_list(sorted({repr(side.name(k)) for k in side.labels.tolist()}))}"
            for side in (train, test)
        ]
        raise DataError(f"no class is in both: {'; '.join(sides)}. Classes are matched by name, or by number")


def _leave_out_rare(
    train: Labelled, test: Labelled | None, minimum: int, notes: list[str]
) -> tuple[Labelled, Labelled | None]:
    """Leave out the classes with fewer than `minimum` training rows, and say so in `notes`."""
    classes, counts = np.unique(train.labels, return_counts=True)
    kept = classes[counts >= minimum]
    if len(kept) < 2:
        raise DataError(
            f"{train.source}: {len(kept)} of {len(classes)} classes have {minimum} rows or more (min_per_class), "
            "but a probe needs two or more classes"
        )
    train_rows = np.flatnonzero(np.isin(train.labels, kept))
    count = dict(zip(classes.tolist(), counts.tolist(), strict=True))
    others = set(classes.tolist()) if test is None else {*classes.tolist(), *test.labels.tolist()}
    rare = sorted((count.get(label, 0), (test or train).name(label)) for label in others - set(kept.tolist()))
    lost = f"{len(train.labels) - len(train_rows)} rows of TRAIN"
    train = train.take(train_rows)
    if test is not None:
        test_rows = np.flatnonzero(np.isin(test.labels, kept))
        lost += f" and {len(test.labels) - len(test_rows)} of TEST"
        test = test.take(test_rows)
        if not len(test_rows):
            raise DataError(f"{test.source} has no row of a class with {minimum} training rows or more (min_per_class)")
    if rare:
        listed = format_list(f"{name!r} ({n})" for n, name in rare)
        notes.append(f"classes with fewer than {minimum} rows in TRAIN are left out: {listed}; {lost} with them")
    return train, test


def _compare(train: Labelled, test: Labelled) -> list[str]:
    """Return notes on test classes that are not in `train`, and on test images that are."""
    notes = []
    unseen = sorted({test.name(int(label)) for label in np.setdiff1d(test.labels, train.labels)})
    if unseen:
        rows = int(np.sum(~np.isin(test.labels, train.labels)))
        folded = {train.name(int(label)).casefold() for label in np.unique(train.labels)}
        alike = [name for name in unseen if name.casefold() in folded]
        hint = f"; TRAIN has them in another case: {format_list(map(repr, alike))}" if alike else ""
        notes.append(
            f"{rows} rows of TEST are of classes that TRAIN does not have ({', '.join(unseen)}): "
            f"each counts as an error{hint}"
        )
    if train.meta and test.meta and train.meta.fingerprint and train.meta.fingerprint == test.meta.fingerprint:
        notes.append("TEST holds the same images as TRAIN: this is the error on images that the probe was fitted on")
        return notes
    return notes + note_equal_rows(train, test)


def _load_set(source: Source, layers: Sequence[str] | None, side: str, notes: list[str]) -> Labelled:
    """Load TRAIN or TEST without its unlabelled rows, which `notes` then mentions; refuse NaN and infinity."""
    if isinstance(source, Labelled):
        rows = source
    elif isinstance(source, tuple):
        if layers is not None:
            raise DataError(f"{side} is a pair of arrays, which has no layers to choose")
        rows = from_arrays(*source, f"{side} (arrays)", side, notes)
    elif isinstance(source, Embeddings):
        rows = _from_embeddings(source if layers is None else source.select(layers))
    else:
        with load_embeddings(source, layers) as opened:
            rows = _from_embeddings(opened)
    _require_finite(rows)
    labelled = np.flatnonzero(rows.labels >= 0)
    if not len(labelled):
        raise DataError(f"{rows.source} has no labels: a probe needs the class of each row")
    n_unlabelled = len(rows.labels) - len(labelled)
    if n_unlabelled:
        notes.append(f"{n_unlabelled} of {len(rows.labels)} rows of {side} have no label and are left out")
        return rows.take(labelled)
    return rows


def _require_finite(rows: Labelled) -> None:
    bad = np.flatnonzero(~np.isfinite(rows.features).all(axis=1))
    if len(bad):
        first = f"row {bad[0]}" if rows.ids is None else repr(str(rows.ids[bad[0]]))
        raise DataError(
            f"{rows.source}: {len(bad)} of {len(rows.features)} rows of features contain NaN or infinity, "
            f"the first is {first}"
        )


def from_arrays(values: ArrayLike, labels: ArrayLike, source: str, side: str, notes: list[str]) -> Labelled:
    """Return (N, D) features with (N,) labels as rows of `source`; `notes` get what a reader must know of `side`."""
    features = np.asarray(values, np.float32)
    given = labels if isinstance(labels, list) else np.asarray(labels)
    shape = np.shape(np.asarray(given, dtype=object))
    if features.ndim != 2 or shape != features.shape[:1]:
        raise DataError(f"{side} must be features (N, D) and labels (N,), not {features.shape} and {shape}")
    if isinstance(given, np.ndarray) and given.dtype.kind == "i":
        # any negative number means no label here
        given = np.maximum(given, -1)
    column = read_labels(f"the labels of {side}", given, len(features))
    # rows without a label are told where they are left out
    untold = [note for note in column.notes if note not in note_unlabelled(column.labels)]
    notes += [f"{side}: {note}" for note in untold]
    layers = (("features", features.shape[1]),)
    return Labelled(source, features, column.labels, column.names, layers)


def _from_embeddings(file: Embeddings) -> Labelled:
    layers = tuple((name, columns.stop - columns.start) for name, columns in file.layers.items())
    labels = np.full(len(file), -1) if file.labels is None else file.labels
    return Labelled(str(file.path), np.asarray(file.features), labels, file.label_names, layers, file.meta, file.ids)


def _require_comparable(train: Labelled, test: Labelled) -> None:
    mismatches: list[str] = []
    if train.meta and test.meta:
        mismatches = differences(train.meta, test.meta, [name for name in StoreMeta.ENCODER if name != "layers"])
    if train.layers != test.layers:
        mismatches.append(f"layers {dict(train.layers)} are not {dict(test.layers)}")
    if mismatches:
        raise DataError(f"{train.source} and {test.source} are of different encoders: {'; '.join(mismatches)}")


def _renumber(test: Labelled, train: Labelled) -> Labelled:
    """Renumber the classes of `test` as in `train`; classes that `train` lacks get the numbers after its own."""
    labels, label_names = renumber_labels(
        test.labels, test.label_names, train.label_names, side=test.source, other=train.source
    )
    return replace(test, labels=labels, label_names=label_names)
