"""Settings of a job as frozen dataclasses: type, bounds and help in one line each; YAML files and KEY=VALUE."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from galirep.errors import ConfigError, similar, unknown
from galirep.system.reading.documents import parse_yaml, read_yaml
from galirep.system.reading.files import parsing
from galirep.system.reading.records import INT64, quoted

Self = TypeVar("Self", bound="Settings")


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str | int, ...] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    free: bool = False,
) -> Any:
    """Declare a field of `Settings`.

    `low` and `high` are inclusive bounds, `above` and `below` exclusive ones. A `free` setting may differ when a run is
    resumed, since it cannot change the result.
    """
    limits = {"low": low, "high": high, "above": above, "below": below}
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "free": free, **limits})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of the settings of a job; each field of a subclass is declared with `setting`.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds, or settings contradict each other; one message
            lists all faults.
    """

    command: ClassVar[str] = ""
    """The command that these are the settings of."""
    exclusive: ClassVar[tuple[str, ...]] = ()
    """Names of settings of which only one may be given."""
    extractors: ClassVar[tuple[str, ...]] = ()
    """Names of settings that name an extractor, which may be code."""

    def __post_init__(self) -> None:
        kinds = setting_types(type(self))
        for name, (kind, _) in kinds.items():
            value = getattr(self, name)
            if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023:
                # whole numbers are floats where floats are meant, as everywhere in Python
                object.__setattr__(self, name, float(value))
        checked = [_fault(f, *kinds[f.name], getattr(self, f.name)) for f in dataclasses.fields(self)]
        # settings are compared with each other once each of them fits alone
        faults = [fault for fault in checked if fault is not None] or self.contradictions()
        if faults:
            raise ConfigError("; ".join(faults))

    def contradictions(self) -> list[str]:
        """Return what is wrong with settings that fit one by one, a line each."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[Self], values: Mapping[str, Any]) -> Self:
        """Build the settings from a mapping; settings it does not name take their defaults.

        Raises:
            ConfigError: it is no mapping, a key is unknown (with the nearest known one) or a value does not fit.
        """
        cls.require_mapping(values)
        names = {f.name for f in dataclasses.fields(cls)}
        wrong = [str(key) for key in values if key not in names]
        if len(wrong) == 1:
            raise ConfigError(unknown("setting", wrong[0], names))
        if wrong:
            hints = "; ".join(f"unknown setting {key!r}{similar(key, names)}" for key in wrong)
            raise ConfigError(f"{hints}; known: {', '.join(sorted(names))}")
        kinds = setting_types(cls)
        return cls(**{name: _to_number(kinds[name][0], value) for name, value in values.items()})

    @classmethod
    def require_mapping(cls, values: object) -> None:
        """Raise ConfigError if `from_dict` was given no mapping."""
        if not isinstance(values, Mapping):
            what = quoted(str(values)) if isinstance(values, str | PathLike) else f"a {type(values).__name__}"
            raise ConfigError(
                f"settings: {what} is no mapping of names and values and no {cls.__name__}; "
                f"of a YAML file: {cls.__name__}.from_dict(galirep.system.settings.read_settings(path))"
            )

    @classmethod
    def of(cls: type[Self], values: Self | Mapping[str, Any]) -> Self:
        """Return settings as they are, or build them from a mapping; raise as `from_dict`."""
        return values if isinstance(values, cls) else cls.from_dict(values)  # type: ignore[arg-type]

    @classmethod
    def merge(cls, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `overrides` into `values`; one of the `exclusive` settings that is set removes the others."""
        replaced: set[str] = set()
        if any(overrides.get(name) is not None for name in cls.exclusive):
            replaced = set(cls.exclusive)
        return {**{name: value for name, value in values.items() if name not in replaced}, **overrides}

    def differences(self: Self, other: Self) -> list[str]:
        """List what differs from another run's settings, as `name: this, not that`, without the `free` settings."""
        return [
            f"{f.name}: {getattr(self, f.name)!r}, not {getattr(other, f.name)!r}"
            for f in dataclasses.fields(self)
            if not f.metadata["free"] and getattr(self, f.name) != getattr(other, f.name)
        ]


def setting_types(settings: type[Settings]) -> dict[str, tuple[type, bool]]:
    """Return the type of each setting (str, int, float or bool) and whether it may be None."""
    kinds = {}
    for name, hint in typing.get_type_hints(settings).items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds[name] = next(t for t in options if t is not type(None)), type(None) in options
    return kinds


def _to_number(kind: type, value: Any) -> Any:
    """Read an int, or a text such as 2e-4 (which YAML 1.1 takes for text), as a float where a float is meant."""
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return value
    return value


def _fault(field: "dataclasses.Field[Any]", kind: type, optional: bool, value: Any) -> str | None:
    """Return what is wrong with one value, or None."""
    if value is None and optional:
        return None
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        return f"{field.name} {quoted(value)}: must be {kind.__name__}{' or null' if optional else ''}"
    if isinstance(value, int) and abs(value) > INT64:
        return f"{field.name} {quoted(value)}: must be a whole number of 64 bits"
    if isinstance(value, str) and "\0" in value:
        return f"{field.name} {quoted(value)}: must be a text without zero bytes"
    choices = field.metadata["choices"]
    if choices and value not in choices:
        if kind is int:
            return f"{field.name} {value!r}: must be {' or '.join(map(str, choices))}"
        return unknown(field.name, str(value), choices)
    if value == math.inf:
        return f"{field.name} {value!r}: must be finite"
    return None if _within(field, value) else f"{field.name} {value!r}: must be {_bounds_in_words(field)}"


def _within(field: "dataclasses.Field[Any]", value: Any) -> bool:
    """Return whether a value keeps its bounds; NaN keeps none."""
    low, high, above, below = (field.metadata[name] for name in ("low", "high", "above", "below"))
    return (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def _bounds_in_words(field: "dataclasses.Field[Any]") -> str:
    low, high, above, below = (field.metadata[name] for name in ("low", "high", "above", "below"))
    if above is not None:
        return f"more than {above:g}" + (f" and less than {below:g}" if below is not None else "")
    return f"from {low:g} to {high:g}" if high is not None else f"{low:g} or more"


def require_whole(name: str, value: Any, least: int) -> None:
    """Check an argument that is a whole number.

    Raises:
        ConfigError: it is none, or below `least`.
    """
    if not hasattr(value, "__index__") or isinstance(value, bool):
        raise ConfigError(f"{name} {quoted(value)} must be a whole number of {least} or more")
    if not least <= int(value) <= INT64:
        raise ConfigError(
            f"{name} {quoted(int(value))} must be {least} or more" + (" and of 64 bits" if value > 0 else "")
        )


def require_callback(name: str, value: Any) -> None:
    """Check an argument that is a function or None; raise ConfigError if it is neither."""
    if value is not None and not callable(value):
        raise ConfigError(f"{name} {quoted(value)} must be a function of one row")


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings in a YAML file, by name, their values unchecked.

    Raises:
        ConfigError: the file cannot be read or is not a YAML mapping of names (see `documents.read_yaml`).
    """
    values = read_yaml(path, ConfigError)
    if values is None:
        raise ConfigError(f"{path} is empty: it must contain settings as 'name: value' lines")
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must contain settings as 'name: value' lines, not {type(values).__name__}")
    if wrong := next((key for key in values if not isinstance(key, str)), None):
        raise ConfigError(f"{path}: {quoted(wrong)} is not the name of a setting")
    return values


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse `key=value` texts into a mapping; a value is read as YAML (`null`, `true`, `0.1`), else kept as text.

    Raises:
        ConfigError: an item has no `=`.
    """
    values = {}
    for item in assignments:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item!r}: write KEY=VALUE")
        try:
            with parsing("", ConfigError):
                parsed = parse_yaml(value)
        except ConfigError:
            parsed = value
        values[key.strip().replace("-", "_")] = parsed
    return values
