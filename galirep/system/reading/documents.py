"""JSON, YAML and TOML as plain data: bounded in size and depth, no key twice, no alias that grows."""

import json
import sys
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from galirep.errors import GalirepError
from galirep.system.reading.files import parsing, read_bytes
from galirep.system.reading.limits import JSON_BYTES, JSON_DEPTH, SETTINGS_BYTES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_DOTS = 256


def parse_json(text: str | bytes, what: str, error: type[GalirepError]) -> Any:
    """Parse a JSON text; `what` begins the message of an error.

    Raises:
        GalirepError: of the type `error`: it is not JSON, has a key twice, or is too long or too deep.
    """
    JSON_BYTES.require(len(text), what, error)
    with parsing(f"{what} is not valid JSON", error):
        value = json.loads(text, object_pairs_hook=_unique)
    return _bounded(value, text, what, error)


def read_json(path: Path, error: type[GalirepError], what: str = "") -> Any:
    """Read a JSON file; `what` stands for its path in messages. Raises as `parse_json` and `read_bytes`."""
    what = what or str(path)
    return parse_json(read_bytes(path, what, error, JSON_BYTES), what, error)


def read_yaml(path: Path, error: type[GalirepError]) -> Any:
    """Read a YAML file with one document.

    Raises:
        GalirepError: of the type `error`: it cannot be read, is not YAML, has a key twice, refers to a list or mapping
            by an alias, or is too large or too deep.
    """
    content = read_bytes(path, str(path), error, SETTINGS_BYTES)
    with parsing(f"{path} is not valid YAML", error):
        text = content.decode("utf-8")
        value = parse_yaml(text)
    return _bounded(value, text, str(path), error)


def parse_yaml(text: str) -> Any:
    """Parse a YAML text; what is wrong raises whatever PyYAML raises (see `parsing`)."""
    return yaml.load(text, _Loader)


def read_toml(path: Path, error: type[GalirepError], what: str = "") -> dict[str, Any]:
    """Read a TOML file; `what` stands for its path where it cannot be read.

    Raises:
        GalirepError: of the type `error`: it cannot be read, is not TOML, or is too large or too deep.
    """
    content = read_bytes(path, what or str(path), error, SETTINGS_BYTES)
    with parsing(f"{path} is not valid TOML", error):
        text = content.decode("utf-8")
        # the parser keeps each beginning of a dotted key: its memory grows with the square of their number
        if any(part.count(".") > _MAX_DOTS for line in text.splitlines() for part in line.split(",")):
            raise ValueError(f"a line has more than {_MAX_DOTS} dots between two commas")
        value: dict[str, Any] = tomllib.loads(text)
    _bounded(value, text, str(path), error)
    return value


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated[:100]!r} occurs twice")
    return found


class _Loader(yaml.SafeLoader):
    """YAML's safe types, where an alias stands for a single value: lists of lists of aliases grow without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.peek_event() if self.check_event(yaml.AliasEvent) else None  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        if alias is not None and not isinstance(node, yaml.ScalarNode):
            problem = f"the alias *{alias.anchor} stands for a list or mapping: write it out"
            raise yaml.composer.ComposerError(None, None, problem, alias.start_mark)
        return node

    def fetch_flow_collection_start(self, token: Any) -> None:
        # the scanner's time grows with the square of the depth
        if self.flow_level >= JSON_DEPTH.value:
            raise yaml.scanner.ScannerError(None, None, "it is nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(token)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated[:100]!r} occurs twice")
        return super().construct_mapping(node, deep)


def _bounded(value: Any, text: str | bytes, what: str, error: type[GalirepError]) -> Any:
    """Return a value that is not too deep for what walks through it later."""
    limit = JSON_DEPTH.value
    # each level takes a character, or in YAML and TOML a blank or a dot
    if len(text) <= limit:
        return value
    level, depth = [value], 0
    while level := [inner for item in level for inner in _children(item) if isinstance(inner, dict | list)]:
        depth += 1
        if depth >= limit:
            JSON_DEPTH.require(depth + 1, f"{what} is nested too deeply", error)
    return value


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()
