"""The exceptions that galirep raises on purpose, and helpers for their messages.

Each message is one line that quotes what was written and says what would be right.
"""

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


class InUseError(GalirepError):
    """An output that another process writes, or may write; `alive`: that process is known to run."""

    def __init__(self, message: str, *, alive: bool = False) -> None:
        super().__init__(message)
        self.alive = alive


class PluginError(GalirepError):
    """A feature extractor that is unknown, cannot be built, or does not follow the extractor protocol."""


def unknown(what: str, got: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the most similar known one.

    >>> unknown("variant", "gali4", ["ali", "gali-4"])
    "unknown variant 'gali4': did you mean 'gali-4'? known: ali, gali-4"
    """
    names = sorted(known)
    hint = similar(got, names)
    return f"unknown {what} {got!r}{f'{hint} ' if hint else ': '}known: {', '.join(names) or 'none'}"


def similar(got: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'X'?` for the most similar known name; empty if there is none."""
    names = difflib.get_close_matches(got, sorted(known), n=1, cutoff=0.6)
    return f": did you mean {names[0]!r}?" if names else ""


def format_list(items: Iterable[object], limit: int = 5, separator: str = ", ") -> str:
    """Join the first `limit` items in one line and count the others: `a, b and 3 more`."""
    texts = list(map(str, items))
    omitted = len(texts) - limit
    return separator.join(texts[:limit]) + (f" and {omitted} more" if omitted > 0 else "")


def plural(count: int, noun: str) -> str:
    """Return `1 image`, `2 images`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
