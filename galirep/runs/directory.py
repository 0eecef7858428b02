"""The run directory: where each file of a training run lies, and how its logs grow."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from galirep.errors import CheckpointError, ConfigError
from galirep.runs.records import RunInfo, Step, TrainedInfo
from galirep.system.files import atomic_write, write_json, write_text
from galirep.system.printable import printable
from galirep.system.reading.documents import parse_json, read_json
from galirep.system.reading.files import require_regular
from galirep.system.reading.records import check
from galirep.system.settings import read_settings


class RunDirectory:
    """The files of one run.

    config.yaml, run.json, train.log, metrics.jsonl, tb/, checkpoints/, samples/, export/, best/, summary.md.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.info_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.log_file = self.path / "train.log"
        self.last = self.path / "checkpoints" / "last.pt"
        self.samples = self.path / "samples"
        self.summary_file = self.path / "summary.md"
        self.export = self.path / "export"
        self.best = self.last.with_name("best.pt")
        self.best_export = self.path / "best"

    @property
    def exists(self) -> bool:
        """True if a run was begun here."""
        return self.info_file.is_file() and self.config_file.is_file()

    def require(self, resume: bool, overwrite: bool) -> None:
        """Check that a run may begin, or be resumed, here; nothing is written.

        Raises:
            CheckpointError: `resume`, and the run does not exist.
            ConfigError: the path exists (`overwrite` replaces an earlier run, and nothing else), or both are given.
        """
        if resume and overwrite:
            raise ConfigError("--resume goes on with the run, --overwrite begins it again: choose one")
        if resume:
            if not self.exists:
                raise CheckpointError(
                    f"{self.path} is not a run, so it cannot be resumed: leave --resume out to begin one"
                )
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            if not self.exists:
                raise ConfigError(f"{self.path} exists and is not a run of galirep: choose another --out")
            if not overwrite:
                raise ConfigError(
                    f"{self.path} is a run already: pass --resume to go on with it or --overwrite to replace it"
                )

    def create(self, settings: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """Create the directory with its config.yaml and run.json; what `require` let pass is replaced."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.last.parent.mkdir(parents=True)
        self.write_settings(settings)
        self.write_info(info)

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace config.yaml."""
        write_text(self.config_file, yaml.safe_dump(dict(settings), sort_keys=False))

    def settings(self) -> dict[str, Any]:
        """Read the run's settings from config.yaml.

        Raises:
            CheckpointError: the run does not exist.
        """
        if not self.exists:
            raise CheckpointError(f"{self.path} is not a run of galirep (config.yaml and run.json are missing)")
        return read_settings(self.config_file)

    def info(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            CheckpointError: it is not a JSON object, or a value is not of the type that `RunInfo` says.
        """
        value = read_json(self.info_file, CheckpointError)
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.info_file} is not a JSON object, so {self.path} cannot be resumed")
        info: dict[str, Any] = check(value, RunInfo, str(self.info_file), CheckpointError, "is damaged")
        return info

    def trained_info(self) -> dict[str, Any]:
        """Read run.json of a run of `galirep train` that goes on.

        Raises:
            CheckpointError: as `info`; or it lacks something that such a run needs.
        """
        info: dict[str, Any] = check(self.info(), TrainedInfo, str(self.info_file), CheckpointError, "is damaged")
        return info

    def require_command(self, command: str) -> None:
        """Raise CheckpointError unless the run was made by `command`: train or train-classifier."""
        made_by = "train-classifier" if self.info().get("kind") == "classifier" else "train"
        if made_by != command:
            raise CheckpointError(f"{self.path} is a run of galirep {made_by}, not of galirep {command}")

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace run.json."""
        write_json(self.info_file, info)

    def keep_last(self, count: int, step: int) -> None:
        """Keep last.pt under the name of its step too, and only the newest `count` of these."""
        if count:
            _link(self.last, self.last.with_name(f"step-{step:08d}.pt"))
        for old in sorted(self.last.parent.glob("step-*.pt"))[: -count or None]:
            old.unlink()

    def keep_best(self) -> None:
        """Keep last.pt as best.pt too."""
        _link(self.last, self.best)

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a last line that a kill cut short is left out.

        Raises:
            CheckpointError: another line is no JSON object with a step.
        """
        rows: list[dict[str, Any]] = []
        if self.metrics_file.exists():
            require_regular(self.metrics_file, str(self.metrics_file), CheckpointError)
            with self.metrics_file.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        where = f"{self.metrics_file}, line {number}"
                        rows.append(check(parse_json(line, where, CheckpointError), Step, where, CheckpointError))
        return rows

    def rewind(self, step: int) -> None:
        """Remove the metrics after `step`, which a resumed run writes again."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        write_text(self.metrics_file, "".join(json.dumps(row) + "\n" for row in kept))

    @contextmanager
    def logger(self) -> Iterator[logging.Logger]:
        """Open the logger `galirep.runs`: it appends to train.log, and passes on what the user's loggers ask for."""
        logger, file, parent = (
            logging.getLogger("galirep.runs"),
            logging.FileHandler(self.log_file, encoding="utf-8"),
            _Parent(),
        )
        file.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
        # INFO is for train.log; the level that the user chose decides what goes further up
        before = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False
        for handler in (file, parent):
            logger.addHandler(handler)
        try:
            yield logger
        finally:
            for handler in (file, parent):
                logger.removeHandler(handler)
            file.close()
            logger.setLevel(before[0])
            logger.propagate = before[1]


class _OneLine(logging.Formatter):
    """A formatter that escapes what names of files or classes would do to a terminal, or to the lines of a log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the formatted record on one line."""
        return printable(super().formatMessage(record))


class _Parent(logging.Handler):
    """Hand records to the logger `galirep`, and so to the user's handlers, if its level lets them pass."""

    def emit(self, record: logging.LogRecord) -> None:
        parent = logging.getLogger("galirep")
        if parent.isEnabledFor(record.levelno):
            parent.handle(record)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what has that name."""
    with atomic_write(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            # a file system without hard links
            shutil.copyfile(source, temporary)
