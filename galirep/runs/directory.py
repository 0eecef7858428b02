"""The run directory: where each file of a training run lies, and how its logs grow."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml

from galirep.errors import CheckpointError, ConfigError
from galirep.system.files import atomic_write, write_json, write_text
from galirep.system.settings import read_config
from galirep.version import __version__


class RunDirectory:
    """The files of one run: config.yaml, run.json, train.log, metrics.jsonl, tb/, checkpoints/, samples/, export/, best/, summary.md."""

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
        """Whether a run was begun here."""
        return self.info_file.is_file() and self.config_file.is_file()

    def require(self, resume: bool, overwrite: bool) -> None:
        """Check that a run may begin, or go on, here; nothing is written.

        Raises:
            CheckpointError: `resume`, and there is no run.
            ConfigError: something is there already; `overwrite` replaces an earlier run, and nothing else.
        """
        if resume:
            if not self.exists:
                raise CheckpointError(f"{self.path} holds no run to resume: leave --resume out to begin one")
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            if not self.exists:
                raise ConfigError(f"{self.path} exists and is no run of galirep: choose another --out")
            if not overwrite:
                raise ConfigError(
                    f"{self.path} holds a run already: pass --resume to go on with it or --overwrite to replace it"
                )

    def create(self, settings: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """Make the directory anew with its config.yaml and run.json; what `require` let pass is replaced."""
        if self.path.exists():
            shutil.rmtree(self.path)
        for folder in (self.last.parent, self.samples, self.export):
            folder.mkdir(parents=True)
        self.write_config(settings)
        self.write_info(info)

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        write_text(self.config_file, yaml.safe_dump(dict(settings), sort_keys=False))

    def config(self) -> dict[str, Any]:
        """The settings of the run.

        Raises:
            CheckpointError: there is no run here.
        """
        if not self.exists:
            raise CheckpointError(f"{self.path} holds no run of galirep (config.yaml and run.json are missing)")
        return read_config(self.config_file)

    def info(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            CheckpointError: it is no JSON object.
        """
        try:
            info: dict[str, Any] = dict(json.loads(self.info_file.read_text(encoding="utf-8")))
        except ValueError:
            raise CheckpointError(
                f"{self.info_file} is no JSON object, so {self.path} is no run that can go on"
            ) from None
        return info

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
        """Keep last.pt as best.pt too, and have a folder for its export."""
        self.best_export.mkdir(exist_ok=True)
        _link(self.last, self.best)

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that a kill cut short is left out."""
        rows = []
        if self.metrics_file.exists():
            for line in self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    rows.append(json.loads(line))
        return rows

    def rewind(self, step: int) -> None:
        """Forget the metrics after `step`, which a resumed run writes anew."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        write_text(self.metrics_file, "".join(json.dumps(row) + "\n" for row in kept))

    @contextmanager
    def logger(self) -> Iterator[logging.Logger]:
        """A logger that appends to train.log and, for warnings, speaks on stderr."""
        logger = logging.Logger("galirep.run", logging.INFO)
        file, screen = logging.FileHandler(self.log_file, encoding="utf-8"), logging.StreamHandler()
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        screen.setFormatter(logging.Formatter("galirep: %(message)s"))
        screen.setLevel(logging.WARNING)
        logger.addHandler(file)
        logger.addHandler(screen)
        try:
            yield logger
        finally:
            file.close()


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what has it."""
    with atomic_write(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)


def new_info(**what: Any) -> dict[str, Any]:
    """What run.json says of a run that begins now."""
    return {
        "galirep": __version__,
        "torch": torch.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "argv": sys.argv,
        "started": now(),
        "status": "running",
        **what,
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
