"""The result of `evaluate`, and the file that keeps it: read again, compared, and filled up."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from galirep.data.memory import Images
from galirep.errors import ConfigError, format_list
from galirep.evaluation.images import note_unreadable
from galirep.evaluation.measures.registry import MEASURES
from galirep.system.files import require_free, require_suffix, write_json
from galirep.system.reading.documents import read_json
from galirep.system.reading.files import parsing
from galirep.system.reading.records import Count, check, quoted
from galirep.system.results import ResultMapping

_NOT_METRICS = ("run", "data", "warnings")
_DATA_KEYS = ("fingerprint", "split", "size", "channels")


@dataclass(frozen=True)
class EvaluationResult(ResultMapping):
    """What `evaluate` measured of one run.

    Attributes:
        run: what was evaluated: `path`, `kind`, and of a run its variant, step, seed and the hashes of its export.
        data: what it was evaluated on: spec, split, fingerprint, number, size and channels of the images.
        metrics: name -> JSON object: `mean`, `std`, `std_over`, `n`, what the metric adds, and what is needed to repeat
            it: `settings`, `versions`, `device`; `seconds` is the time that it took.
        warnings: what a reader must know, one sentence each.
    """

    run: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object: `run`, `data`, `warnings`, and a key for each metric."""
        return {"run": self.run, "data": self.data, "warnings": list(self.warnings), **self.metrics}

    def with_metric(self, metric: str, entry: dict[str, Any]) -> "EvaluationResult":
        """Return the result with one more metric."""
        return replace(self, metrics={**self.metrics, metric: entry})

    def with_counts(self, images: Images) -> "EvaluationResult":
        """Return the result with the numbers of images that were read and left out, and a warning of the latter."""
        warnings = (*self.warnings, *note_unreadable(images))
        counts = {"images": len(images), "errors": len(images.errors)}
        return replace(self, data={**self.data, **counts}, warnings=warnings)

    def in_order(self, metrics: Iterable[str]) -> "EvaluationResult":
        """Return the result with its metrics in this order, and with the warnings of all of them."""
        ordered = {name: self.metrics[name] for name in metrics if name in self.metrics}
        texts = [text for entry in ordered.values() for text in entry["warnings"]]
        return replace(self, metrics=ordered, warnings=tuple(dict.fromkeys((*self.warnings, *texts))))


class Record:
    """The file of --out: one result, or `{"runs": [result, ...]}`; without a path nothing is kept.

    Raises:
        ConfigError: the path cannot be written, or is a file that is no result.
    """

    def __init__(self, path: str | Path | None, overwrite: bool) -> None:
        self.path = None if path is None else Path(path)
        self.earlier: list[dict[str, Any]] = []
        if self.path is not None:
            require_free(self.path, overwrite=True)
            require_suffix(self.path, ".json")
            if self.path.exists() and not overwrite:
                self.earlier = _read(self.path)

    def find(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Return the earlier result of a run with this `Subject.identity`, or an empty one."""
        return next((row for row in self.earlier if _identity(row) == dict(identity)), {})

    def require_same(self, identities: Sequence[Mapping[str, Any]], data: Sequence[Mapping[str, Any]]) -> None:
        """Check that every run of the file is among those that are evaluated now, in any order, on the same data.

        Raises:
            ConfigError: the file has a run that is not, or is on other data.
        """
        now_evaluated = [dict(identity) for identity in identities]
        others = [row for row in self.earlier if _identity(row) not in now_evaluated]
        if others:
            listed = format_list(map(_in_words, others))
            raise ConfigError(
                f"{self.path} has the evaluation of {listed}, which is not what is evaluated now, or has changed "
                f"since: name {'all its runs' if len(self.earlier) > 1 else 'that run'}, in any order and with others, "
                "choose another --out or pass --overwrite"
            )
        for identity, now in zip(identities, data, strict=True):
            before = self.find(identity).get("data")
            differing = [key for key in _DATA_KEYS if before and before.get(key) != now[key]]
            if before and differing:
                key = differing[0]
                raise ConfigError(
                    f"{self.path} has an evaluation on other data ({key} {before.get(key)}, now {now[key]}): "
                    "choose another --out or pass --overwrite"
                )

    def kept(self, identity: Mapping[str, Any], metric: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the earlier object of a metric with these settings; None if it was not measured.

        Raises:
            ConfigError: it was measured with other settings.
        """
        entry: dict[str, Any] | None = self.find(identity).get(metric)
        if entry is None:
            return None
        before, now = entry["settings"], json.loads(json.dumps(settings))
        differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if differing:
            key = differing[0]
            raise ConfigError(
                f"{self.path} has {metric} with {key} {before.get(key)}, not {now.get(key)}: "
                "choose another --out or pass --overwrite"
            )
        return entry

    def write(self, results: Sequence[EvaluationResult]) -> None:
        """Write what is measured so far, and what the file had of the same runs; runs without a metric are left out."""
        if self.path is not None:
            values = [result.to_dict() for result in results if result.metrics]
            write_json(self.path, values[0] if len(values) == 1 else {"runs": values})


def read_metrics(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of a result as `to_dict` gives it."""
    return {key: value for key, value in row.items() if key not in _NOT_METRICS}


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    run: Mapping[str, Any] = row["run"]
    hashes = run.get("sha256")
    return {"kind": run["kind"], "sha256": hashes} if hashes else {"kind": run["kind"], "name": run["path"]}


def _in_words(row: Mapping[str, Any]) -> str:
    run: Mapping[str, Any] = row["run"]
    return f"{run['path']}, step {run['step']}" if "step" in run else str(run["path"])


class _RunFacts(TypedDict, total=False):
    sha256: str | dict[str, str] | None
    name: str


class _Run(_RunFacts):
    kind: str
    path: str


class _Data(TypedDict):
    fingerprint: str
    images: Count
    errors: Count


class _Row(TypedDict):
    run: _Run
    data: _Data


class _Entry(TypedDict):
    mean: float | None
    std: float | None
    settings: dict[str, Any]
    warnings: list[str]


def _read(path: Path) -> list[dict[str, Any]]:
    foreign = f"{path} exists and is not a result of galirep evaluate: choose another --out or pass --overwrite"
    content = read_json(path, ConfigError, f"{foreign}: it")
    rows = content.get("runs", [content]) if isinstance(content, dict) else content
    if isinstance(rows, list):
        # a run that an interrupted call had not come to, in files of earlier versions
        rows = [row for row in rows if not isinstance(row, dict) or read_metrics(row)]
    checked: list[dict[str, Any]] = check(rows, list[_Row], foreign, ConfigError)
    for row in checked:
        for name, entry in read_metrics(row).items():
            check(entry, _Entry, f"{foreign}: {quoted(name)}", ConfigError)
            if name in MEASURES:
                # what a metric adds is known to it alone: it must be able to say it
                with parsing(f"{foreign}: {name}", ConfigError):
                    MEASURES[name].line(entry)
    return checked
