"""The errors galirep raises on purpose. Each message is one line that quotes what was written and says what would be right."""

import difflib
from collections.abc import Iterable


class GalirepError(Exception):
    """Base of every error that galirep raises on purpose; the command line prints it as one line and exits with 1."""


class SpecError(GalirepError, ValueError):
    """A variant or expression that cannot be trained."""


class ConfigError(GalirepError, ValueError):
    """A setting, option or output path that does not fit."""


class DataError(GalirepError):
    """Images, labels or an embedding file that cannot be used."""


class CheckpointError(GalirepError):
    """A checkpoint or run directory that is missing, corrupt, foreign or of another configuration."""


class PluginError(GalirepError):
    """A feature extractor that is unknown, cannot be built, or is no extractor."""


def unknown(what: str, got: str, known: Iterable[str]) -> str:
    """One line for a name that is not known, with the nearest known one: `unknown variant 'gali4': did you mean 'gali-4'? known: ...`."""
    names = sorted(known)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {got!r}: {hint}known: {', '.join(names)}"


def format_list(items: Iterable[object], most: int = 5, separator: str = ", ") -> str:
    """The first of many in one line: `a, b and 3 more`."""
    every = list(items)
    return separator.join(map(str, every[:most])) + (f" and {len(every) - most} more" if len(every) > most else "")
