"""Confidence intervals against the tables of Student's t, and bad input."""

import math

import pytest

from galirep.errors import DataError
from galirep.metrics.intervals import Interval, format_interval, mean_interval, paired_interval

# two-sided 95% quantiles of Student's t, from the tables
T = {1: 12.7062, 2: 4.3027, 4: 2.7764}


@pytest.mark.parametrize("values", [[1.0, 2.5], [1, 2, 4], [0.1, 0.4, 0.2, 0.2, 0.9]])
def test_half_width_is_t_times_the_standard_error(values):
    n, mean = len(values), sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(mean)
    assert interval.half_width == pytest.approx(T[n - 1] * deviation / math.sqrt(n), rel=1e-4)


def test_a_single_value_has_no_interval():
    assert mean_interval([3.0]) == Interval(3.0, None)


def test_equal_values_have_width_zero():
    assert mean_interval([2.0, 2.0, 2.0]) == Interval(2.0, 0.0)


def test_pairs_are_compared_by_their_differences():
    a, b = [1.0, 2.0, 6.0], [0.5, 1.0, 6.5]
    assert paired_interval(a, b) == mean_interval([0.5, 1.0, -0.5])
    # what the pairs share cancels out
    assert paired_interval([10.1, 20.1], [10, 20]).half_width == pytest.approx(0, abs=1e-9)


def test_text():
    assert format_interval(Interval(0.12345, 0.00567)) == "0.1235 ± 0.0057"
    assert format_interval(Interval(29621.0, 0.0), 0) == "29621 ± 0"
    assert format_interval(Interval(1.0, None), 2) == "1.00"


@pytest.mark.parametrize(
    ("values", "text"), [([], "one or more values"), ([1.0, math.nan], "finite values"), ([math.inf], "finite values")]
)
def test_bad_values(values, text):
    with pytest.raises(DataError, match=text):
        mean_interval(values)


def test_pairs_need_equal_lengths():
    with pytest.raises(DataError, match="not 2 and 1"):
        paired_interval([1.0, 2.0], [1.0])
