"""The results of a study: what there is to make, and what is stored, one JSON file a row and seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from galirep.errors import ConfigError, DataError, format_list
from galirep.evaluation.reproduction.measures import COLUMNS
from galirep.evaluation.reproduction.study import ImageSet, Row, Study, reference, settings_on
from galirep.system.reading.documents import read_json
from galirep.system.reading.records import Count, check

# of a set: what does not change the result of a row
_BUDGETS = ("minutes", "updates", "epochs")
_NOT_OF_A_RESULT = ("name", "seeds", "rows", "row_settings", "paper", "images")


@dataclass(frozen=True)
class Work:
    """One result to make: a row on a set with a seed; `seed` is None for a row that has none."""

    image_set: ImageSet
    row: Row
    seed: int | None

    @property
    def name(self) -> str:
        """A name for files: ROW or ROW-SEED."""
        return self.row.name if self.seed is None else f"{self.row.name}-{self.seed}"


@dataclass(frozen=True)
class Options:
    """Where a study finds its images and leaves its runs and results.

    `data` are key -> SPEC or path for the keys that its sets name; `workdir` holds runs, `results` one JSON file for
    each row and seed. `keep_runs` False deletes nothing yet: runs are what a later column is measured on. With
    `trust_encoder` the file of a study may name code as M(.) or as the body of E; `force_unlock` is as
    in `galirep.train`.
    """

    data: Mapping[str, str]
    workdir: Path
    results: Path
    trust_encoder: bool = False
    force_unlock: bool = False


def work_of(study: Study) -> list[Work]:
    """List the results of a study: sets in order, seeds before rows, so that early results compare all rows."""
    work = []
    for image_set in study.sets:
        rows = study.rows_on(image_set)
        work += [Work(image_set, row, None) for row in rows if not row.seeded and row.kind != "untrained"]
        for seed in image_set.seeds:
            ordered = in_order(rows, image_set)
            work += [Work(image_set, row, seed) for row in ordered if row.seeded or row.kind == "untrained"]
    return work


def needed_rows(row: Row, image_set: ImageSet) -> list[str]:
    """Return the names of the rows whose runs a row needs on a set."""
    names = [row.of, *map(reference, settings_on(row, image_set).values())]
    return list(dict.fromkeys(name for name in names if name is not None and name != "knowledge"))


def in_order(rows: Sequence[Row], image_set: ImageSet) -> list[Row]:
    """Return the rows of a set in their order, but each after those whose runs it needs.

    Raises:
        ConfigError: some need each other's.
    """
    ordered: list[Row] = []
    left, names = list(rows), {row.name for row in rows}
    while left:
        placed = {row.name for row in ordered}
        ready = next((row for row in left if names.intersection(needed_rows(row, image_set)) <= placed), None)
        if ready is None:
            raise ConfigError(f"rows {', '.join(repr(row.name) for row in left)} need each other's runs in a circle")
        left.remove(ready)
        ordered.append(ready)
    return ordered


def identity(study: Study, work: Work) -> dict[str, Any]:
    """Return what a result depends on, but for the data: two results of the same identity are the same."""
    left_out = (*_NOT_OF_A_RESULT, *(() if work.row.seeded else _BUDGETS))
    image_set = {key: value for key, value in asdict(work.image_set).items() if key not in left_out}
    settings = settings_on(work.row, work.image_set)
    row: dict[str, Any] = {"kind": work.row.kind, "settings": settings, "of": work.row.of}
    for other in study.rows:
        if other.name == work.row.of:
            row["inverted"] = settings_on(other, work.image_set)
    made: dict[str, Any] = json.loads(json.dumps({"set": image_set, **row, "seed": work.seed}))
    return made


def result_path(work: Work, options: Options) -> Path:
    """Return the JSON file of a result."""
    return options.results / work.image_set.name / f"{work.name}.json"


def load_result(study: Study, work: Work, options: Options) -> dict[str, Any] | None:
    """Read a stored result; None where there is none or it lacks a column of the study.

    Raises:
        ConfigError: it was made by other settings or another budget.
        DataError: it cannot be read.
    """
    path = result_path(work, options)
    result = read_stored(path)
    if result is None:
        return None
    differing = _differences(result["identity"], identity(study, work))
    if differing:
        raise ConfigError(
            f"{path} was made with {format_list(differing)}: give another --out and --results folder, or delete the "
            "file and the run"
        )
    return result if all(column in result for column in study.columns) else None


def read_stored(path: Path) -> dict[str, Any] | None:
    """Read the file of a result, of whatever identity; None where there is none.

    Raises:
        DataError: it is not one.
    """
    return _read(path) if path.exists() else None


def _differences(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List what differs, as `name was, not is`, by the innermost names."""
    texts = []
    for key in sorted({*made, *wanted}):
        was, now = made.get(key), wanted.get(key)
        if was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            texts += _differences(was, now)
        else:
            texts.append(f"{key} {'none' if was is None else was}, not {'none' if now is None else now}")
    return texts


class _Provenance(TypedDict):
    date: str


class _Result(TypedDict):
    set: str
    row: str
    seed: int | None
    identity: dict[str, Any]
    provenance: _Provenance


class _Updates(TypedDict, total=False):
    updates: Count | None


def _read(path: Path) -> dict[str, Any]:
    """Read a stored result; its columns are numbers or null.

    Raises:
        DataError: it is not one.
    """
    where = f"{path} is not a result of a study"
    result: dict[str, Any] = check(read_json(path, DataError, f"{where}: it"), _Result, where, DataError)
    check(result, _Updates, where, DataError)
    for name in COLUMNS:
        check(result.get(name), float | None, f"{where}: {name}", DataError)
    return result


def measured(path: Path) -> dict[str, Any]:
    """Return the columns, and their details, that a stored result has."""
    stored = read_stored(path) or {}
    return {key: value for key, value in stored.items() if key.partition(":")[0] in COLUMNS}
