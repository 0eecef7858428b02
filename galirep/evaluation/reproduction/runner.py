"""Making a study: what is missing is trained and measured, by one process or several; results become tables."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from galirep.errors import ConfigError, unknown
from galirep.evaluation.reproduction.budget import forecast
from galirep.evaluation.reproduction.catalog import load_study
from galirep.evaluation.reproduction.laboratory import Laboratory
from galirep.evaluation.reproduction.measures import COLUMNS
from galirep.evaluation.reproduction.report import report, results_on, verdicts_of
from galirep.evaluation.reproduction.requirements import (
    require_data,
    require_known,
    require_one_data,
    require_possible,
    require_runs,
)
from galirep.evaluation.reproduction.store import Options, Work, load_result, result_path, work_of
from galirep.evaluation.reproduction.study import Study, settings_on
from galirep.evaluation.reproduction.verdicts import Verdict
from galirep.features.registry import require_no_code
from galirep.training.config import TrainConfig

_log = logging.getLogger("galirep.evaluation")


@dataclass(frozen=True)
class Reproduction:
    """A study and its results; `text` has its tables and verdicts as Markdown, or what a dry run says."""

    study: Study
    results: tuple[Mapping[str, Any], ...]
    text: str

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict of each claim on each set."""
        return [verdict for s in self.study.sets for verdict in verdicts_of(self.study, s, results_on(s, self.results))]

    def to_dict(self) -> dict[str, Any]:
        """Return the results and verdicts as plain data."""
        verdicts = [verdict.to_dict() for verdict in self.verdicts]
        return {"study": self.study.name, "results": [dict(r) for r in self.results], "verdicts": verdicts}


def reproduce(
    study: str | Path | Study,
    *,
    out: str | Path,
    data: Mapping[str, str] | None = None,
    scale: str | Path | None = None,
    results: str | Path | None = None,
    jobs: int = 1,
    dry_run: bool = False,
    trust_encoder: bool = False,
    force_unlock: bool = False,
    say: Callable[[str], object] = _log.info,
    **limits: Any,
) -> Reproduction:
    """Make what is missing of a study, by name or TOML file, and return all its results with verdicts.

    `data` are key -> SPEC (or the path of a CSV file of attributes) for the keys that the sets of the study or of
    `scale` name (none is needed to print what is stored); runs are in `out`, results in `results` (default:
    OUT/results). Rows are made by `jobs` processes, each on one thread if there are several; other calls with the same
    folders may share the work. A result that is stored is not made again; one that lacks a column of the study is
    measured for it alone. `limits` are those of `restricted`. With `dry_run` nothing is made: the text says what would
    be. `say` is given a line for each result.

    Raises:
        PluginError: the study names code, without `trust_encoder`.
        ConfigError: the study does not fit together, has no sets, a key of its data is not given, a stored result
            was made otherwise (other settings, another budget), or results of a set are of different images.
        InUseError: a process of another host has the lock of a result (see `galirep.train`, also for `force_unlock`).
    """
    stored = Path(out) / "results" if results is None else Path(results)
    options = Options(dict(data or {}), Path(out), stored, trust_encoder, force_unlock)
    whole = study if isinstance(study, Study) else load_study(study, scale)
    whole.check(COLUMNS)
    chosen = restricted(whole, **limits)
    chosen.check_sets()
    _require_no_code(chosen, options)
    if not chosen.sets:
        raise ConfigError(f"the table {whole.name!r} has no sets: name a scale, e.g. --scale cpu or a FILE.toml")
    require_possible(whole)
    require_known(whole, options)
    work = work_of(chosen)
    missing = [item for item in work if load_result(chosen, item, options) is None]
    _stored(chosen, work, options)
    require_runs(chosen, missing, options)
    require_data(whole, missing, options, all_given=not dry_run)
    if dry_run:
        return Reproduction(chosen, (), forecast(chosen, missing, options, say))
    _make(chosen, missing, options, jobs, say)
    made = _stored(chosen, work, options)
    return Reproduction(chosen, made, report(chosen, made))


def _stored(study: Study, work: Sequence[Work], options: Options) -> tuple[Mapping[str, Any], ...]:
    """Return the results that are stored, all of a set of the same images."""
    results = [(result_path(item, options), load_result(study, item, options)) for item in work]
    stored = [(path, result) for path, result in results if result is not None]
    require_one_data(stored)
    return tuple(result for _, result in stored)


def _make(study: Study, missing: Sequence[Work], options: Options, jobs: int, say: Callable[[str], object]) -> None:
    """Make results, in order; rows that another process works on are left to it."""
    if jobs == 1 or len(missing) < 2:
        laboratory = Laboratory(study, options)
        for item in missing:
            _announce(item, laboratory.result(item), say)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (study, options)) as pool:
        for item, result in zip(missing, pool.map(_work, missing), strict=True):
            _announce(item, result, say)


def _require_no_code(study: Study, options: Options) -> None:
    """Check that no row trains with code that the file of the study names, unless the options trust it."""
    for image_set in study.sets:
        for row in study.rows_on(image_set):
            settings = settings_on(row, image_set)
            # {NAME} stands for the run of a row
            specs = [spec for name in TrainConfig.extractors if isinstance(spec := settings.get(name), str)]
            for spec in specs:
                if not spec.startswith("{"):
                    require_no_code(spec, trust_encoder=options.trust_encoder)


def _announce(work: Work, result: Mapping[str, Any] | None, say: Callable[[str], object]) -> None:
    if result is None:
        say(f"{work.image_set.name} {work.name}: another process is at it")
        return
    numbers = ", ".join(f"{key} {value:.4g}" for key, value in result.items() if key in COLUMNS and value is not None)
    say(f"{work.image_set.name} {work.name}: {numbers or 'it has none of the columns'}")


_laboratory: "Laboratory | None" = None


def _start_worker(study: Study, options: Options) -> None:
    global _laboratory
    torch.set_num_threads(1)
    _laboratory = Laboratory(study, options)


def _work(work: Work) -> dict[str, Any] | None:
    assert _laboratory is not None
    return _laboratory.result(work)


def restricted(
    study: Study,
    *,
    rows: Sequence[str] = (),
    sets: Sequence[str] = (),
    seeds: Sequence[int] = (),
    minutes: float | None = None,
    updates: int | None = None,
) -> Study:
    """Return a study with some of its rows and sets alone, other seeds or another budget for every set."""
    for what, names, known in (
        ("row", rows, [row.name for row in study.rows]),
        ("set", sets, [s.name for s in study.sets]),
    ):
        for name in names:
            if name not in known:
                raise ConfigError(unknown(what, name, known))
    kept = tuple(row for row in study.rows if not rows or row.name in rows)
    for row in kept:
        if row.of is not None and row.of not in [other.name for other in kept]:
            raise ConfigError(f"row {row.name!r} inverts the generator of {row.of!r}: name that row too")
    changes: dict[str, Any] = {}
    if seeds:
        changes["seeds"] = tuple(seeds)
    if minutes is not None or updates is not None:
        changes |= {"minutes": minutes, "updates": updates, "epochs": None}
    left = {row.name for row in kept}
    claims = tuple(c for c in study.claims if left.issuperset((c.better, *c.than)))
    chosen = tuple(replace(s, **changes) for s in study.sets if not sets or s.name in sets)
    return replace(study, rows=kept, claims=claims, sets=chosen)
