"""`load_run`: a run in Python: its settings, its metrics as a table, its pictures, its encoder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galirep.errors import CheckpointError, unknown
from galirep.features.sklearn_transformer import ImageTransformer, load_encoder
from galirep.runs.directory import RunDirectory

_PICTURE = re.compile(r"(.+)-(\d+)\.png")


@dataclass(frozen=True)
class OpenedRun:
    """A run as it stood when it was opened.

    Attributes:
        path: the run directory.
        kind: `train`, or `train-classifier`.
        config: the settings, by name.
        info: run.json: status, data, variant, versions, devices, warnings.
        metrics: the rows of metrics.jsonl.
        best: step and measures of the best evaluation on held-out images; None where there is none.
    """

    path: Path
    kind: str
    config: Mapping[str, Any]
    info: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    best: Mapping[str, Any] | None

    @property
    def step(self) -> int:
        """The update of the last checkpoint (of a classifier, the last row's)."""
        last = self.metrics[-1]["step"] if self.metrics else 0
        return int(self.info.get("step", last))

    def table(self) -> dict[str, list[Any]]:
        """Return the numbers of the metrics as columns of equal length, None where a row lacks one.

        What is nested has names with dots: `evaluation.pixel_mse`, `gradient_norms.G`. `pandas.DataFrame(run.table())`
        makes a data frame of it.
        """
        rows = [dict(_flat(row)) for row in self.metrics]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: [row.get(name) for row in rows] for name in names}

    def pictures(self) -> dict[str, dict[int, Path]]:
        """Return the pictures saved on the way: kind (`prior`, `reconstruction`) -> step -> PNG file."""
        found: dict[str, dict[int, Path]] = {}
        for file in sorted((self.path / "samples").glob("*.png")):
            if match := _PICTURE.fullmatch(file.name):
                found.setdefault(match[1], {})[int(match[2])] = file
        return found

    def encoder(self, which: str = "last", **options: Any) -> ImageTransformer:
        """Load the encoder (`last` or `best`), as `galirep.load_encoder` does; `options` are its.

        Raises:
            CheckpointError: there is none yet, or `which` is neither.
        """
        if which not in ("last", "best"):
            raise CheckpointError(unknown("networks", which, ("last", "best")))
        if self.kind == "train-classifier":
            # its one export is that of its best epoch already
            return load_encoder(f"classifier:{self.path}", **options)
        return load_encoder(f"run:{self.path}@{which}", **options)


def load_run(run: str | Path) -> OpenedRun:
    """Open a run of `galirep train` or `galirep train-classifier`, also one in progress.

    >>> run = galirep.load_run("runs/mnist")          # doctest: +SKIP
    >>> run.table()["evaluation.pixel_mse"][-1]       # doctest: +SKIP
    0.0121

    Raises:
        CheckpointError: the folder is no run, or its files are damaged.
        ConfigError: `run` is no path.
    """
    directory = RunDirectory(run)
    config, info = directory.settings(), directory.info()
    kind = "train-classifier" if info.get("kind") == "classifier" else "train"
    return OpenedRun(directory.path, kind, config, info, directory.metrics(), info.get("best"))


def _flat(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of a row by name; lists (D's matrix, warnings) are left out."""
    values: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            values += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            values.append((prefix + name, value))
    return values
