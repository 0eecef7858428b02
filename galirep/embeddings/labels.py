"""Match the classes of two data sets: by name, or by the number that a name is."""

from collections.abc import Callable, Sequence

import numpy as np

from galirep.data.labels import as_read, equal_as_read, number_of
from galirep.errors import DataError, format_list
from galirep.metrics.arrays import Ints
from galirep.metrics.ranking import NO_LABEL


def renumber_labels(
    labels: Ints,
    names: Sequence[str],
    reference: Sequence[str],
    *,
    side: str = "one side",
    other: str = "the other",
) -> tuple[Ints, tuple[str, ...]]:
    """Renumber `labels` (N,), which index `names`, to the classes that `reference` names.

    Returns the labels and the names that they now index: those of `reference`, then those that only `names` has. (Two
    files number the same classes differently if one of them lacks a class.) Names are compared as a reader sees them:
    composed Unicode, no blanks at the ends.

    Where neither side has names, labels are numbers and returned unchanged. Where one side has, and each of its names
    is a whole number (`7`, `7.0`, `07`), classes are matched by the number. `side` and `other` are what an error calls
    the set of `labels` and that of `reference`.

    Raises:
        DataError: one side has numbers and the other names that are not: nothing says that both number alike. Or one
            side has two names that are equal as they are compared, and the other has not the same two.
    """
    if not (names and reference) and not (labels >= 0).any():
        return labels, tuple(reference or names)
    if not names and not reference:
        return labels, ()
    if not reference:
        return _take(labels, _numbers_of(names, side, other)), ()
    if not names:
        return _name_numbers(labels, reference, side, other)
    all_names = list(dict.fromkeys(reference))
    number = {name: i for i, name in enumerate(all_names)}
    key = _number_key if all(number_of(name) is not None for name in (*names, *reference)) else as_read
    _require_apart(names, reference, key, side, other)
    index: dict[str, int] = {}
    for i, name in enumerate(all_names):
        index.setdefault(key(name), i)
    for name in names:
        if name not in number:
            number[name] = index.setdefault(key(name), len(all_names))
            if number[name] == len(all_names):
                all_names.append(name)
    return _take(labels, [number[name] for name in names]), tuple(all_names)


def _require_apart(
    names: Sequence[str], reference: Sequence[str], key: Callable[[str], str], side: str, other: str
) -> None:
    """Raise if two classes of one side are equal under `key` where the other side does not have the same two."""
    # classes that both sides call the same, to the character, are matched by that
    unsure = {key(name) for name in set(names) ^ set(reference)}
    for what, given in ((side, names), (other, reference)):
        if alike := equal_as_read((name for name in given if key(name) in unsure), key):
            raise DataError(
                f"the classes {' and '.join(map(ascii, alike))} of {what} are equal as a reader sees them, or the same "
                "number: nothing says which is meant; merge or rename their folders and embed again"
            )


def _take(labels: Ints, table: Sequence[int]) -> Ints:
    """Return `table[labels]`, -1 where there is no label."""
    return np.asarray(np.array([*table, NO_LABEL], dtype=np.int64)[np.maximum(labels, NO_LABEL)])


def _number_key(name: str) -> str:
    return str(number_of(name))


def _numbers_of(names: Sequence[str], named: str, unnamed: str) -> list[int]:
    """Return the number that each name is."""
    numbers = [number_of(name) for name in names]
    words = [name for name, number in zip(names, numbers, strict=True) if number is None]
    if words:
        raise DataError(
            f"the labels of {unnamed} are numbers without names, but classes of {named} are called "
            f"{format_list(map(repr, words), 3)}: nothing says which number is which class. Give both sides names "
            "(class folders, or a CSV file, npz or parquet with names as labels), or both numbers"
        )
    found = [number for number in numbers if number is not None]
    if len(set(found)) < len(found):
        twice = next(number for number in found if found.count(number) > 1)
        same = [repr(name) for name, number in zip(names, found, strict=True) if number == twice]
        raise DataError(
            f"the labels of {unnamed} are numbers without names, and {' and '.join(same)} of {named} are the same "
            "number: give both sides names"
        )
    return found


def _name_numbers(labels: Ints, reference: Sequence[str], side: str, other: str) -> tuple[Ints, tuple[str, ...]]:
    """Return the position in `reference` of each number; numbers that it lacks become names after it."""
    position = {number: i for i, number in enumerate(_numbers_of(reference, other, side))}
    all_names = list(reference)
    used, inverse = np.unique(labels, return_inverse=True)
    table = []
    for number in used.tolist():
        if number >= 0 and number not in position:
            position[number] = len(all_names)
            all_names.append(str(number))
        table.append(position.get(number, NO_LABEL))
    return np.array(table, dtype=np.int64)[inverse.reshape(-1)], tuple(all_names)
