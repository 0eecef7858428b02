"""Confidence intervals of a mean over runs (Student's t)."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t as student_t

from galirep.errors import DataError


class Interval(NamedTuple):
    """A 95% confidence interval, mean ± half_width; `half_width` is None for a single value."""

    mean: float
    half_width: float | None


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of n values and half the width of its 95% interval, t(0.975, n - 1) * s / sqrt(n).

    s is the standard deviation with n - 1. The interval assumes independent, normally distributed values.

    Raises:
        DataError: no values, or one is NaN or infinite.
    """
    if len(values) < 1:
        raise DataError("a mean needs one or more values, not none")
    if not all(map(math.isfinite, values)):
        raise DataError(f"a mean needs finite values, not {list(values)}")
    mean = float(statistics.mean(values))
    n = len(values)
    if n < 2:
        return Interval(mean, None)
    return Interval(mean, float(student_t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n))


def paired_interval(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Return the interval of the mean of a_i - b_i, for pairs that share a seed or a data set.

    Raises:
        DataError: different lengths, no values, or one is NaN or infinite.
    """
    if len(a) != len(b):
        raise DataError(f"paired differences need as many values on each side, not {len(a)} and {len(b)}")
    return mean_interval([x - y for x, y in zip(a, b, strict=True)])


def format_interval(interval: Interval, digits: int = 4) -> str:
    """Return `0.1234 ± 0.0056`, or the mean alone for a single value."""
    mean = f"{interval.mean:.{digits}f}"
    return mean if interval.half_width is None else f"{mean} ± {interval.half_width:.{digits}f}"
