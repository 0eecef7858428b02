"""What a probe protocol is: its input, its output, and its numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galirep.errors import ConfigError, unknown
from galirep.probing.cross_validation import Classifier
from galirep.probing.labelled import Labelled


@dataclass(frozen=True)
class Task:
    """The input of a protocol: labelled features, its settings, the seed, and whether to show progress bars."""

    train: Labelled
    test: Labelled
    settings: Mapping[str, Any]
    seed: int
    progress: bool

    def error(self, predicted: NDArray[np.int64]) -> float:
        """Return the share of test rows whose prediction is not their label."""
        return float(np.mean(predicted != self.test.labels))


@dataclass(frozen=True)
class Outcome:
    """The output of a protocol; the fields are those of `ProbeResult` with the same names.

    `used` are settings that the rows did not allow and what was taken instead; `notes` say so.
    """

    errors: list[float]
    C: float | None = None
    converged: bool = True
    validation: list[dict[str, Any]] | None = None
    errors_by_k: dict[str, float | None] | None = None
    scaling: str | None = None
    notes: list[str] = field(default_factory=list)
    used: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """A way to measure features.

    `about` is one line for `galirep list protocols`. `settings` are all its numbers, each positive or a list of
    positive numbers; those named `*_fraction` are below 1, `folds` are 2 or more, and a list of words can be cut to
    some of them. `run` does the work. `classifier` is there where the protocol chooses by cross-validation, so that
    layers can be chosen in the same way.
    """

    about: str
    settings: Mapping[str, Any]
    run: Callable[[Task], Outcome]
    classifier: Classifier | None = None

    def merge_settings(self, name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return the protocol's settings updated with `overrides`; `name` is for error messages.

        Raises:
            ConfigError: an unknown setting, or a value of the wrong type or range.
        """
        for key, value in overrides.items():
            if key not in self.settings:
                raise ConfigError(unknown(f"setting of {name}", key, self.settings))
            default = self.settings[key]
            if (
                not _fits(value, default)
                or (key.endswith("_fraction") and value >= 1)
                or (key == "folds" and value < 2)
            ):
                example = default[-2:] if isinstance(default, list) else default
                raise ConfigError(
                    f"{key}={value!r} does not fit {name}: it is {_allowed(key, default)}, written like {key}={example}"
                )
        return {**self.settings, **overrides}


def _allowed(key: str, default: Any) -> str:
    """Say which values a setting may have."""
    first = default[0] if isinstance(default, list) else default
    if isinstance(first, str):
        return f"a list of one or more of {', '.join(default)}"
    number = "whole number" if isinstance(first, int) else "number"
    bounds = "2 or more" if key == "folds" else "above 0 and below 1" if key.endswith("_fraction") else "above 0"
    return f"a list of one or more {number}s {bounds}" if isinstance(default, list) else f"a {number}, {bounds}"


def _fits(value: Any, default: Any) -> bool:
    """Return whether `value` is a positive number, a list of such, or words of a list, like `default`."""
    first = default[0] if isinstance(default, list) else default
    if isinstance(first, str):
        return isinstance(value, list) and bool(value) and all(v in default for v in value)
    types = int if isinstance(first, int) else (int, float)
    numbers = value if isinstance(default, list) else [value]
    if not isinstance(numbers, list) or not numbers:
        return False
    return all(isinstance(v, types) and not isinstance(v, bool) and v > 0 for v in numbers)
