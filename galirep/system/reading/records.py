"""Plain data against types: a dataclass or TypedDict says what a JSON object must hold, and nothing else checks it.

The types understood are str, int, float, bool, None, Any, unions, Literal, list, tuple, dict and Mapping with texts as
keys, dataclasses, TypedDicts, and any of them with a `Range`.
"""

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from galirep.errors import GalirepError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both inclusive."""

    low: float = -math.inf
    high: float = math.inf


INT64 = 2**63 - 1
Count = Annotated[int, Range(0, 2**53)]
Size = Annotated[int, Range(1, 2**31)]
_LISTS = (list, tuple, Sequence)
_PLAIN = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def quoted(value: object) -> str:
    """Return a value as messages quote it: its beginning, where it is long."""
    try:
        return reprlib.repr(value)
    # a whole number of thousands of digits has no text
    except ValueError:
        return "a number of thousands of digits"


def read_record(
    record: type[T],
    values: object,
    where: str,
    error: type[GalirepError],
    *,
    ignore_unknown: bool = False,
    fault: str = "",
) -> T:
    """Build a dataclass from plain data, its lists as tuples where it has tuples.

    `where` begins the message of an error, `fault` says in it what that makes of the file. A key that is unknown is an
    error, or is ignored.

    Raises:
        GalirepError: of the type `error`: a key is unknown or missing, or a value is of another type or out of range.
    """
    try:
        built: T = _build(record, values, "", ignore_unknown)
    except _MisfitError as err:
        raise error(f"{where}{fault and f' {fault}'}: {err}") from None
    return built


def check(values: object, hint: Any, where: str, error: type[GalirepError], fault: str = "") -> Any:
    """Return plain data that is of a type, such as a TypedDict; keys that the type does not know are left alone.

    Raises:
        GalirepError: of the type `error`, as `read_record`.
    """
    try:
        return _read(values, hint, "", True)
    except _MisfitError as err:
        raise error(f"{where}{fault and f' {fault}'}: {err}") from None


def describe(hint: Any) -> str:
    """Return a type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is Annotated:
        return f"{describe(arguments[0])}{_range_in_words(arguments[1])}"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(describe, arguments)))
    if origin in _LISTS:
        if origin is tuple and Ellipsis not in arguments:
            return f"a list of {len(arguments)}: {', '.join(map(describe, arguments))}"
        return f"a list, each item {describe(arguments[0])}"
    return "a table"


class _MisfitError(Exception):
    """A value that is not of its type."""


def _range_in_words(bounds: Range) -> str:
    if bounds.high == math.inf:
        return f" of at least {bounds.low:g}"
    return f" from {bounds.low:g} to {bounds.high:g}"


def _misfit(value: object, hint: Any, place: str) -> _MisfitError:
    return _MisfitError(f"{place or 'it'} = {quoted(value)} must be {describe(hint)}")


def _read(value: Any, hint: Any, place: str, loose: bool) -> Any:
    """Return a value as its type has it."""
    if hint is Any or hint is object:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        number = _read(value, arguments[0], place, loose)
        if number is not None and not arguments[1].low <= number <= arguments[1].high:
            raise _misfit(value, hint, place)
        return number
    if origin in (types.UnionType, typing.Union):
        return _read_union(value, hint, place, loose)
    if origin is Literal:
        if not isinstance(value, str | int | bool | None) or value not in arguments:
            raise _misfit(value, hint, place)
        return value
    if origin is None and (dataclasses.is_dataclass(hint) or typing.is_typeddict(hint)):
        return _build(hint, value, place, loose)
    if origin in _LISTS or hint in _LISTS:
        return _read_sequence(value, hint, place, loose)
    if origin is not None or hint in (dict, Mapping):
        return _read_mapping(value, hint, place, loose)
    return _read_plain(value, hint, place)


def _read_plain(value: Any, hint: Any, place: str) -> Any:
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 2**1023
        # NaN and infinity are numbers of metrics; whole numbers of hundreds of digits are not
        fits = fits or isinstance(value, float)
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT64
    else:
        fits = isinstance(value, hint)
    if not fits:
        raise _misfit(value, hint, place)
    return value


def _read_union(value: Any, hint: Any, place: str, loose: bool) -> Any:
    arguments = typing.get_args(hint)
    if value is None and type(None) in arguments:
        return None
    fault: _MisfitError | None = None
    for part in arguments:
        if part is type(None):
            continue
        try:
            return _read(value, part, place, loose)
        except _MisfitError as err:
            fault = fault or err
    # a fault within a table says more than that it is none
    structured = [part for part in arguments if part not in _PLAIN]
    raise fault if fault and len(structured) == 1 == len(arguments) - 1 else _misfit(value, hint, place)


def _read_sequence(value: Any, hint: Any, place: str, loose: bool) -> Any:
    arguments, kind = typing.get_args(hint), typing.get_origin(hint) or hint
    kind = list if kind is Sequence else kind
    if not isinstance(value, list | tuple):
        raise _misfit(value, hint, place)
    if not arguments:
        return kind(value)
    if kind is tuple and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise _misfit(value, hint, place)
        return tuple(
            _read(v, part, f"{place}[{i}]", loose) for i, (v, part) in enumerate(zip(value, arguments, strict=True))
        )
    return kind(_read(item, arguments[0], f"{place}[{i}]", loose) for i, item in enumerate(value))


def _read_mapping(value: Any, hint: Any, place: str, loose: bool) -> Any:
    arguments = typing.get_args(hint)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _misfit(value, hint, place)
    if len(arguments) < 2 or arguments[1] is Any:
        return value
    return {
        key: _read(item, arguments[1], f"{place}.{key[:80]}" if place else key[:80], loose)
        for key, item in value.items()
    }


def _build(record: Any, values: Any, place: str, loose: bool) -> Any:
    """Read a dataclass or a TypedDict."""
    if dataclasses.is_dataclass(record) and isinstance(values, record):  # type: ignore[arg-type]
        return values
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise _MisfitError(f"{place or 'it'} = {quoted(values)} must be a table")
    hints = typing.get_type_hints(record, include_extras=True)
    dot = f"{place}." if place else ""
    if dataclasses.is_dataclass(record):
        fields = dataclasses.fields(record)
        names = [f.name for f in fields]
        needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    else:
        names, needed = list(hints), sorted(record.__required_keys__)
    if not loose and (strange := [key for key in values if key not in names]):
        raise _MisfitError(f"{place and f'{place}: '}{unknown('key', strange[0][:100], names)}")
    if missing := [name for name in needed if name not in values]:
        raise _MisfitError(f"{dot}{missing[0]} is missing")
    read = {name: _read(values[name], hints[name], dot + name, loose) for name in names if name in values}
    if dataclasses.is_dataclass(record):
        return record(**read)  # type: ignore[operator]
    return {**values, **read}
