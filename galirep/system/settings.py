"""Settings of any job as text: YAML files and KEY=VALUE."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from galirep.errors import ConfigError


def merge_settings(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with those of `chosen` over them; steps and epochs exclude each other, so one that is chosen drops the other."""
    dropped = {other for one, other in (("steps", "epochs"), ("epochs", "steps")) if chosen.get(one) is not None}
    return {**{name: value for name, value in values.items() if name not in dropped}, **chosen}


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, unchecked.

    Raises:
        ConfigError: the file is missing or is no YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"cannot read {path}: {err.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(err).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings as 'name: value' lines, not {type(values).__name__}")
    return values


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping; values are read as YAML (`null`, `true`, `0.1`, `word`), what is no YAML as text.

    Raises:
        ConfigError: an item has no `=`.
    """
    values = {}
    for item in assignments:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item!r}: write KEY=VALUE")
        try:
            values[key.strip().replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError:
            values[key.strip().replace("-", "_")] = value
    return values
