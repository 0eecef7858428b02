"""The largest image that is decoded, against files that unpack to more than memory holds."""

import os

from galirep.errors import ConfigError, DataError

VARIABLE = "GALIREP_MAX_PIXELS"
"""The environment variable that sets the limit; the option --max-pixels sets it for one command and its workers."""
DEFAULT = 178_956_970
"""Pixels of an image whose RGB values fill half a gibibyte, as in Pillow."""


def pixel_limit() -> int:
    """Return the largest number of pixels of an image: that of `GALIREP_MAX_PIXELS`, or the default.

    Raises:
        ConfigError: the variable is not a whole number of at least 1.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{VARIABLE} is {text!r}: it must be a number of pixels, such as {DEFAULT}")
    return int(text)


def require_pixels(width: int, height: int, limit: int) -> None:
    """Check the size of an image that is about to be decoded.

    Raises:
        DataError: it has more pixels than `limit`.
    """
    if width * height > limit:
        raise DataError(over_limit(f"{width}x{height} pixels ({width * height:,})", limit, width * height))


def over_limit(size: str, limit: int, needed: object) -> str:
    """Return the message for an image of a `size` over the limit, with what to pass for it."""
    return f"{size} are over the limit of {limit:,}: pass --max-pixels {needed}, or set {VARIABLE}"
