"""Verdicts come from the interval of the paired difference, and claims of several rows hold only if each part does."""

from typing import Any

import pytest

from galirep.evaluation.reproduction.study import Claim
from galirep.evaluation.reproduction.verdicts import FAILS, HOLDS, UNDECIDED, decide


def results(row: str, values: dict[int | None, float | None], column: str = "pixel_mse") -> list[dict[str, Any]]:
    return [{"row": row, "seed": seed, column: value} for seed, value in values.items()]


CLAIM = Claim("a beats b", "a", ("b",), ("pixel_mse",))


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        # the means differ by far less than the rows vary, but every pair agrees
        ([1.0, 2.0, 3.0], [1.1, 2.11, 3.12], HOLDS),
        ([1.1, 2.11, 3.12], [1.0, 2.0, 3.0], FAILS),
        ([1.0, 2.0, 3.0], [1.1, 1.9, 3.4], UNDECIDED),
        ([1.0], [2.0], UNDECIDED),
    ],
)
def test_verdict_of_pairs(a: list[float], b: list[float], verdict: str) -> None:
    made = decide(CLAIM, "s", [*results("a", dict(enumerate(a))), *results("b", dict(enumerate(b)))])
    assert made.verdict == verdict


def test_the_interval_is_that_of_student() -> None:
    a, b = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.1, 1: 2.2, 2: 3.3}
    (comparison,) = decide(CLAIM, "s", [*results("a", a), *results("b", b)]).comparisons
    # mean -0.2, s = 0.1, t(0.975, 2) = 4.3027, so 4.3027 * 0.1 / sqrt(3)
    assert comparison.difference == pytest.approx(-0.2)
    assert comparison.half_width == pytest.approx(0.24841, abs=1e-5)
    assert comparison.pairs == 3


def test_only_seeds_that_both_have_are_paired() -> None:
    made = decide(CLAIM, "s", [*results("a", {0: 1.0, 1: 2.0, 7: 9.0}), *results("b", {0: 2.0, 1: 3.1, 8: 0.0})])
    assert made.comparisons[0].pairs == 2


def test_a_row_without_seeds_stands_against_each_seed() -> None:
    made = decide(CLAIM, "s", [*results("a", {0: 1.0, 1: 1.1, 2: 0.9}), *results("b", {None: 2.0})])
    assert made.verdict == HOLDS
    assert made.comparisons[0].pairs == 3


def test_a_claim_of_several_rows_fails_with_one_and_holds_with_all() -> None:
    claim = Claim("a is best", "a", ("b", "c"), ("pixel_mse",))
    a = results("a", {0: 1.0, 1: 2.0, 2: 3.0})
    better, worse = {0: 0.5, 1: 1.52, 2: 2.49}, {0: 1.5, 1: 2.52, 2: 3.49}
    assert decide(claim, "s", [*a, *results("b", worse), *results("c", worse)]).verdict == HOLDS
    assert decide(claim, "s", [*a, *results("b", worse), *results("c", better)]).verdict == FAILS
    # not measured: undecided, not false
    assert decide(claim, "s", [*a, *results("b", worse)]).verdict == UNDECIDED
    assert decide(claim, "s", [*a, *results("b", worse), *results("c", {0: None})]).verdict == UNDECIDED
