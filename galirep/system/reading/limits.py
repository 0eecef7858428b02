"""How much a file may ask for: each limit has a default, an environment variable that sets it, and its own message."""

import os
from dataclasses import dataclass

from galirep.errors import ConfigError, GalirepError


@dataclass(frozen=True)
class Limit:
    """The largest amount of something that a file may have; `unit` names it in messages."""

    variable: str
    default: int
    unit: str
    about: str

    @property
    def value(self) -> int:
        """The limit that holds: that of the environment variable, or the default.

        Raises:
            ConfigError: the variable is not a whole number of at least 1.
        """
        text = os.environ.get(self.variable, "").strip()
        if not text:
            return self.default
        if not text.isdecimal() or len(text) > 18 or int(text) < 1:
            raise ConfigError(
                f"{self.variable} is {text[:40]!r}: it must be a number of {self.unit}, as {self.default}"
            )
        return int(text)

    def require(self, amount: int, what: str, error: type[GalirepError]) -> None:
        """Raise `error` if `amount` is over the limit; `what` begins the message."""
        if amount > (limit := self.value):
            raise error(
                f"{what}: {amount:,} {self.unit} are over the limit of {limit:,}: set {self.variable} to read it"
            )


MIB, GIB = 1 << 20, 1 << 30
SETTINGS_BYTES = Limit("GALIREP_MAX_SETTINGS_BYTES", MIB // 4, "bytes", "a YAML or TOML file")
JSON_BYTES = Limit("GALIREP_MAX_JSON_BYTES", 64 * MIB, "bytes", "a JSON file, a header, a line of metrics")
JSON_DEPTH = Limit("GALIREP_MAX_DEPTH", 64, "levels", "lists and objects within each other, in JSON, YAML and TOML")
INFLATED_BYTES = Limit(
    "GALIREP_MAX_INFLATED_BYTES",
    GIB,
    "bytes",
    "what is unpacked of a compressed npz or parquet file, where that is over 100 times its size",
)
MISSING_CELLS = Limit("GALIREP_MAX_MISSING_CELLS", 10_000_000, "cells", "that the short rows of a CSV file leave out")
LIMITS = (SETTINGS_BYTES, JSON_BYTES, JSON_DEPTH, INFLATED_BYTES, MISSING_CELLS)
_RATIO = 100


def require_inflated(inflated: int, packed: int, what: str, error: type[GalirepError]) -> None:
    """Raise `error` if what is packed in `packed` bytes declares far more, over the limit."""
    if inflated > _RATIO * packed:
        INFLATED_BYTES.require(inflated, f"{what} unpacks to far more than its {packed:,} bytes", error)
