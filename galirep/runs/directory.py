"""The run directory: where each file of a training run lies, and how its logs grow."""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from galirep.errors import CheckpointError, ConfigError
from galirep.runs.records import RunInfo, Step, TrainedInfo
from galirep.system.files import atomic_write, sync, write_json, write_text
from galirep.system.outputs.folders import take_place
from galirep.system.outputs.locks import output_path
from galirep.system.outputs.temporary import is_temporary, restore_folder, temporary_name
from galirep.system.reading.documents import parse_json, read_json
from galirep.system.reading.files import require_regular
from galirep.system.reading.records import check, quoted
from galirep.system.settings import read_settings

_log = logging.getLogger("galirep.runs")
# what every config.yaml of a run has, and few others
_SETTINGS = {"data", "seed", "batch_size"}


class RunDirectory:
    """The files of one run.

    config.yaml, run.json, train.log, metrics.jsonl, tb/, checkpoints/, samples/, export/, best/, summary.md. They are
    in `folder`: that is `path`, or while a run that replaces another has no checkpoint yet a hidden folder beside it.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"run directory {quoted(path)}: it must be a path")
        self.path = Path(path)
        self._place_in(self.path)

    def _place_in(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.yaml"
        self.info_file = folder / "run.json"
        self.metrics_file = folder / "metrics.jsonl"
        self.log_file = folder / "train.log"
        self.last = folder / "checkpoints" / "last.pt"
        self.samples = folder / "samples"
        self.summary_file = folder / "summary.md"
        self.export = folder / "export"
        self.best = self.last.with_name("best.pt")
        self.best_export = folder / "best"

    @property
    def exists(self) -> bool:
        """True if a run was begun here."""
        return self.info_file.is_file() and self.config_file.is_file()

    @property
    def unstarted(self) -> bool:
        """True if a run was begun here and ended before its first checkpoint, so that there is nothing to keep of it.

        Versions before 0.2 left such folders without a run.json, too.
        """
        if not self.last.parent.is_dir() or self.last.exists():
            return False
        own: tuple[Path, ...] = ()
        if self.exists:
            own = (self.config_file, self.info_file, self.log_file, self.metrics_file)
        elif self.config_file.is_file() and read_settings(self.config_file).keys() >= _SETTINGS:
            own = (self.config_file,)
        files = (path for path in self.folder.rglob("*") if not path.is_dir() and not is_temporary(path.name))
        return all(path in own or (self.exists and path.parent == self.folder / "tb") for path in files)

    @property
    def absent(self) -> bool:
        """True if there is nothing or an empty folder, as a run leaves that is ended in its first moments."""
        return not os.path.lexists(self.path) or (self.path.is_dir() and not any(self.path.iterdir()))

    def require(self, resume: bool, overwrite: bool) -> None:
        """Check that a run may begin, or be resumed, here; nothing is written.

        A run that ended before its first checkpoint (`unstarted`, `absent`) may do both.

        Raises:
            CheckpointError: `resume`, and what is there is no run.
            ConfigError: the path exists (`overwrite` replaces an earlier run, and nothing else), or both are given.
        """
        if resume and overwrite:
            raise ConfigError("--resume goes on with the run, --overwrite begins it again: choose one")
        restore_folder(output_path(self.path))
        if self.unstarted or self.absent:
            return
        if resume:
            if not self.exists:
                raise CheckpointError(
                    f"{self.path} is not a run, so it cannot be resumed: leave --resume out to begin one"
                )
        elif self.path.exists() and not self.exists:
            raise ConfigError(f"{self.path} exists and is not a run of galirep: choose another --out")
        elif self.path.exists() and not overwrite:
            raise ConfigError(
                f"{self.path} is a run already: pass --resume to go on with it or --overwrite to replace it"
            )

    def to_resume(self, resume: bool) -> bool:
        """Return whether a run that `require` let pass goes on: with `resume`, unless it has no checkpoint yet."""
        if resume and self.absent:
            _log.warning("%s does not exist yet, or is empty: the run starts from the beginning", self.path)
            return False
        if resume and self.unstarted:
            _log.warning("%s has no checkpoint yet: the run starts again", self.path)
            return False
        return resume

    def create(self, settings: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """Begin a run with its config.yaml and run.json; what `require` let pass is replaced, by `settle`."""
        path = output_path(self.path)
        self._place_in(temporary_name(path, "new."))
        self.last.parent.mkdir(parents=True)
        self.write_settings(settings)
        self.write_info(info)
        if not path.exists() or not any(path.iterdir()):
            self.settle()

    def settle(self) -> None:
        """Put a run that was begun at its path; what was there before is removed after that. Call it once it is saved.

        Raises:
            ConfigError: the folder cannot be replaced, see `take_place`.
        """
        if self.folder != self.path:
            take_place(self.folder, self.path)
            self._place_in(self.path)

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace config.yaml."""
        write_text(self.config_file, yaml.safe_dump(dict(settings), sort_keys=False))

    def settings(self) -> dict[str, Any]:
        """Read the run's settings from config.yaml.

        Raises:
            CheckpointError: the run does not exist.
        """
        if not self.exists and not (self.unstarted and self.config_file.is_file()):
            raise CheckpointError(
                networks_instead_of_run(self.path)
                or f"{self.path} is not a run of galirep (config.yaml and run.json are missing)"
            )
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
        if self.unstarted or self.absent:
            return
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

    def sync_metrics(self) -> None:
        """Wait until metrics.jsonl, if there is one, is on the disk."""
        if self.metrics_file.exists():
            sync(self.metrics_file)

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
        self.write_metrics([row for row in self.metrics() if row["step"] <= step])

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace metrics.jsonl."""
        write_text(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows))


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what has that name."""
    with atomic_write(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            # a file system without hard links
            shutil.copyfile(source, temporary)


def networks_instead_of_run(path: Path) -> str:
    """Return what to say of RUN@best or RUN@last where the run itself is wanted; empty of another path."""
    name, _, which = str(path).rpartition("@")
    if which not in ("last", "best") or path.exists() or not name or not RunDirectory(name).exists:
        return ""
    return f"{path} names networks, which encoders, evaluate, pictures and export take: here the run is wanted, {name}"
