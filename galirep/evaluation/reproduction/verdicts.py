"""Verdicts on claims: by the interval of the paired difference over seeds, never by the means alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from galirep.evaluation.reproduction.study import Claim
from galirep.metrics.intervals import paired_interval

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclass(frozen=True)
class Comparison:
    """One row against another in one column: the mean of the differences (less is better) and half its 95% interval.

    `half_width` is None for a single pair, `pairs` counts the seeds that both have; a row without seeds (raw pixels) is
    paired with each seed of the other.
    """

    better: str
    than: str
    column: str
    pairs: int
    difference: float | None
    half_width: float | None
    verdict: str


@dataclass(frozen=True)
class Verdict:
    """A claim on one set: it holds where every comparison does, fails where one fails, else it is undecided."""

    text: str
    set: str
    verdict: str
    comparisons: tuple[Comparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "comparisons": [asdict(comparison) for comparison in self.comparisons]}


def decide(claim: Claim, set_name: str, results: Iterable[Mapping[str, Any]]) -> Verdict:
    """Decide a claim by the results of one set: mappings with `row`, `seed` and the columns."""
    results = list(results)
    comparisons = tuple(
        _compare(claim.better, other, column, results) for other in claim.than for column in claim.columns
    )
    return Verdict(claim.text, set_name, _overall([c.verdict for c in comparisons]), comparisons)


def _overall(verdicts: Sequence[str]) -> str:
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and all(verdict == HOLDS for verdict in verdicts) else UNDECIDED


def _compare(better: str, than: str, column: str, results: Sequence[Mapping[str, Any]]) -> Comparison:
    left, right = (_by_seed(name, column, results) for name in (better, than))
    seeds = _common(left, right)
    if not seeds:
        return Comparison(better, than, column, 0, None, None, UNDECIDED)
    interval = paired_interval([left[a] for a, _ in seeds], [right[b] for _, b in seeds])
    verdict = UNDECIDED
    if interval.half_width is not None and abs(interval.mean) > interval.half_width:
        verdict = HOLDS if interval.mean < 0 else FAILS
    return Comparison(better, than, column, len(seeds), interval.mean, interval.half_width, verdict)


def _by_seed(name: str, column: str, results: Sequence[Mapping[str, Any]]) -> dict[int | None, float]:
    return {r["seed"]: r[column] for r in results if r["row"] == name and r.get(column) is not None}


def _common(left: Mapping[int | None, float], right: Mapping[int | None, float]) -> list[tuple[int | None, int | None]]:
    """Return the pairs of seeds to compare; a row without seeds stands against every seed of the other."""
    if None in left or None in right:
        return [(a, b) for a in sorted(left, key=str) for b in sorted(right, key=str)]
    return [(seed, seed) for seed in sorted(set(left) & set(right), key=str)]
