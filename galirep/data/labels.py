"""Labels as people write them: numbers, whole floats, names, blanks, NaN and nulls, to classes numbered from 0."""

import decimal
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from galirep.errors import DataError, format_list
from galirep.metrics.arrays import Ints

NO_LABEL = -1
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"(\d+)(?:\.0*)?", re.ASCII)
# torchvision names the classes of MNIST `0 - zero`
_NUMBERED = re.compile(r"(\d+) - \D.*", re.ASCII)
_BOOLEANS = ("labels that are booleans are read as 0 and 1",)
_MAX_LABEL = np.iinfo(np.int64).max


@dataclass(frozen=True)
class LabelColumn:
    """The labels of N images: `labels` (N,) int64, -1 for none, that index `names` if there are any.

    `notes` say in words how they were read, where that was not plain.
    """

    labels: Ints
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def as_read(name: str) -> str:
    """Return a name as a reader sees it: composed Unicode (NFC), no blanks at the ends."""
    return unicodedata.normalize("NFC", name).strip()


def equal_as_read(names: Iterable[str], key: Callable[[str], object] = as_read) -> tuple[str, ...]:
    """Return the first names that differ but are equal under `key`; none if there are none."""
    groups: dict[object, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(key(name), []).append(name)
    return next((tuple(group) for group in groups.values() if len(group) > 1), ())


def number_of(name: str) -> int | None:
    """Return the number that a class name is: 7 for `7`, `07`, ` 7.0` and `7 - seven`; None for any other name."""
    text = as_read(name)
    match = _WHOLE.fullmatch(text) or _NUMBERED.fullmatch(text)
    return int(match[1]) if match and int(match[1]) <= _MAX_LABEL else None


def read_labels(what: str, values: Any, count: int, place: Callable[[int], str] = "row {}".format) -> LabelColumn:
    """Read one label an image from an array or list of numbers, texts, bytes and nulls.

    `what` begins an error, and `place` says in it where a label stands.

    Whole numbers, also as floats or texts (`3`, `3.0`), are kept as they are. Any other text makes the labels names:
    as a reader sees them (`as_read`), numbered in sorted order. None, NaN, an empty text and -1 mean no label.
    Booleans are 0 and 1. Notes say so, and how many rows have no label if some have one.

    Raises:
        DataError: there is not one for each image, or one is a fraction, below -1, too large or of another type.
    """
    column = _read(what, values if isinstance(values, np.ndarray) else _as_array(values), count, place)
    return replace(column, notes=(*column.notes, *note_unlabelled(column.labels)))


def note_unlabelled(labels: Ints) -> list[str]:
    """Return a note on how many rows have no label if some have one."""
    none = int((labels == NO_LABEL).sum())
    return [f"{none} of {len(labels)} rows have no label"] if 0 < none < len(labels) else []


def _read(what: str, column: np.ndarray[Any, Any], count: int, place: Callable[[int], str]) -> LabelColumn:
    if column.shape not in ((count,), (count, 1)):
        raise DataError(f"{what} are {column.dtype} of shape {column.shape}: expected {count}, one for each image")
    column = column.reshape(-1)
    if column.dtype.kind in "iub":
        return LabelColumn(_check_range(what, column), notes=_BOOLEANS if column.dtype.kind == "b" else ())
    if column.dtype.kind == "f":
        return LabelColumn(_from_floats(what, column, place))
    if column.dtype.kind not in "USOT":
        raise DataError(f"{what} are {column.dtype}: a label is a whole number or a name")
    return _from_objects(what, column.tolist(), place)


def _as_array(values: Any) -> np.ndarray[Any, Any]:
    """Return a list without numpy's conversions, which would turn [1, "a"] into texts."""
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        if any(isinstance(value, list | tuple | np.ndarray) for value in values):
            return np.asarray(values)
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    return np.asarray(values)


def _check_range(what: str, numbers: np.ndarray[Any, Any]) -> Ints:
    if len(numbers) and int(numbers.max()) > _MAX_LABEL:
        raise DataError(f"{what} go up to {numbers.max()}, which is no class number")
    labels: Ints = numbers.astype(np.int64)
    if len(labels) and labels.min() < NO_LABEL:
        raise DataError(f"{what} go down to {labels.min()}: a label is 0 or more, or -1 for none")
    return labels


def _from_floats(what: str, values: np.ndarray[Any, Any], place: Callable[[int], str]) -> Ints:
    none = np.isnan(values)
    # a float beyond 2^53 may stand for several whole numbers
    bad = np.flatnonzero(~none & ((values != np.round(values)) | (np.abs(values) > 2.0**53)))
    if len(bad):
        raise _fraction(what, values[bad[0]], place(int(bad[0])))
    return _check_range(what, np.where(none, NO_LABEL, values).astype(np.int64))


def _fraction(what: str, value: object, place: str) -> DataError:
    return DataError(f"{what} are classes, whole numbers or names, but that of {place} is {value}")


def _from_objects(what: str, values: list[Any], place: Callable[[int], str]) -> LabelColumn:
    texts = [_text_of(what, value, row, place) for row, value in enumerate(values)]
    n_nan = sum(text.casefold() == "nan" for text in texts)
    notes = [f"{n_nan} labels are {'NaN'!r} and count as no label"] if n_nan else []
    notes += _BOOLEANS if any(isinstance(value, bool | np.bool_) for value in values) else []
    texts = ["" if text.casefold() == "nan" else text for text in texts]
    given = dict.fromkeys(text for text in texts if text)
    others = [text for text in given if not _NUMBER.fullmatch(text)]
    if not others:
        number = {text: _whole_of(what, text, place(texts.index(text))) for text in given}
        odd = [text for text in given if text != str(number[text])]
        if odd:
            notes.append(f"labels written as {format_list(odd)} are read as whole numbers")
        labels = np.array([number[text] if text else NO_LABEL for text in texts], dtype=object)
        return LabelColumn(_check_range(what, labels), notes=tuple(notes))
    numbers = [text for text in given if _NUMBER.fullmatch(text) and text != "-1"]
    if numbers:
        notes.append(
            f"labels are taken as names, because {format_list(map(repr, others), 3)} "
            f"is no number; so the class {numbers[0]!r} is a name too"
        )
    if "-1" in given:
        notes.append(f"{texts.count('-1')} labels are '-1' and count as no label")
    names = sorted(set(given) - {"-1"})
    notes += _alike(names)
    number = {name: k for k, name in enumerate(names)}
    return LabelColumn(np.array([number.get(text, NO_LABEL) for text in texts], np.int64), tuple(names), tuple(notes))


def _text_of(what: str, value: Any, row: int, place: Callable[[int], str]) -> str:
    """Return one label as text; "" for none."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return as_read(value.decode())
        except UnicodeDecodeError as err:
            raise DataError(f"{what}: that of {place(row)}, {value!r}, is not UTF-8") from err
    if isinstance(value, str):
        return as_read(value)
    if isinstance(value, bool | np.bool_ | int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating | decimal.Decimal):
        if math.isnan(value):
            return ""
        if math.isinf(value) or value != int(value):
            raise _fraction(what, value, place(row))
        return str(int(value))
    raise DataError(f"{what}: that of {place(row)} is a {type(value).__name__}, not a whole number or a name")


def _whole_of(what: str, text: str, place: str) -> int:
    value = decimal.Decimal(text)
    # the exponent is bounded before the number is written out
    if value.adjusted() > 18 or value != value.to_integral_value():
        raise _fraction(what, text, place)
    return int(value)


def _alike(names: Sequence[str]) -> list[str]:
    """Return a note on names that differ in upper and lower case alone."""
    by_fold: dict[str, list[str]] = {}
    for name in names:
        by_fold.setdefault(name.casefold(), []).append(name)
    pairs = [" and ".join(map(repr, group)) for group in by_fold.values() if len(group) > 1]
    return [f"classes that differ in upper and lower case alone are kept apart: {format_list(pairs)}"] if pairs else []
