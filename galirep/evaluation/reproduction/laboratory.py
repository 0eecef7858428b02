"""Making results in one process: the images and yardsticks of each set, and the folders that rows are made in."""

import contextlib
import datetime
import platform
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from galirep.data.catalog import open_data
from galirep.data.memory import Images, load_images
from galirep.errors import ConfigError, InUseError
from galirep.evaluation.reproduction.making import Place, make
from galirep.evaluation.reproduction.measures import COLUMNS, Yardstick
from galirep.evaluation.reproduction.store import Options, Work, identity, load_result, measured, result_path
from galirep.evaluation.reproduction.study import ImageSet, Study
from galirep.runs.directory import RunDirectory
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.loop import train_classifier
from galirep.system.files import write_json
from galirep.system.outputs.holding import hold
from galirep.version import __version__


class Laboratory:
    """What makes results in one process; images and yardsticks of a set are loaded once."""

    def __init__(self, study: Study, options: Options) -> None:
        self.study, self.options = study, options
        self._benches: dict[str, Bench] = {}

    def result(self, work: Work) -> dict[str, Any] | None:
        """Make one result and write its file; None if another process is at it."""
        bench = self._benches.setdefault(work.image_set.name, Bench(work.image_set, self.options))
        folder = bench.folder(work)
        path = result_path(work, self.options)
        with _claimed(folder, path, force=self.options.force_unlock) as free:
            if not free:
                return None
            # another process may have made it meanwhile
            if (done := load_result(self.study, work, self.options)) is not None:
                return done
            seed = work.seed or 0
            rows = {row.name: Work(work.image_set, row, seed) for row in self.study.rows}
            place = Place(
                work.image_set,
                bench.images,
                folder,
                bench.knowledge if work.image_set.knowledge else None,
                lambda name: self._run_of(rows[name], bench),
                self.options.trust_encoder,
                self.options.force_unlock,
            )
            made = make(work.row, seed, place)
            values = measured(path)
            for column in self.study.columns:
                if column not in values:
                    values |= COLUMNS[column].measure(made, bench.yardstick)
            result = {
                "set": work.image_set.name,
                "row": work.row.name,
                "seed": work.seed,
                **made.facts,
                **values,
                "identity": identity(self.study, work),
                "provenance": {**bench.facts, **_environment()},
            }
            write_json(path, result)
            return result

    def _run_of(self, work: Work, bench: "Bench") -> Path:
        """Return the run of a row that another one stands on, once it is finished: make it, or wait for who does.

        Raises:
            ConfigError: another process did not finish it.
        """
        if load_result(self.study, work, self.options) is None and self.result(work) is None:
            with hold(bench.folder(work), force=self.options.force_unlock, parents=True, wait=True):
                pass
            if load_result(self.study, work, self.options) is None:
                raise ConfigError(f"{work.image_set.name} {work.name}, which others stand on, was not finished")
        return bench.folder(work) / "run"


def _environment() -> dict[str, Any]:
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    versions = {"galirep": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"date": today, "machine": platform.machine(), **versions}


class Bench:
    """The images of a set, and what they are measured with."""

    def __init__(self, image_set: ImageSet, options: Options) -> None:
        self.image_set, self.options = image_set, options

    def folder(self, work: Work) -> Path:
        """Return the folder that a row is trained in."""
        return self.options.workdir / self.image_set.name / work.name

    def _load(self, split: str | None) -> Images:
        image_set = self.image_set
        return load_images(open_data(self.options.data[image_set.data], split), image_set.image_size)

    @cached_property
    def images(self) -> Images:
        """The training images."""
        return self._load(self.image_set.split)

    @cached_property
    def test(self) -> Images:
        """The test images."""
        return self._load(self.image_set.test_split)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What is recorded of the data."""
        test = self.test
        return {
            "train": {"images": len(self.images), "fingerprint": self.images.fingerprint},
            "test": {"split": self.image_set.test_split, "images": len(test), "fingerprint": test.fingerprint},
        }

    @cached_property
    def knowledge(self) -> Path:
        """The run of the classifier that serves as M."""
        return self._classifier("knowledge", self.image_set.knowledge)

    @cached_property
    def yardstick(self) -> Yardstick:
        """What subjects are measured with; the judge is trained where the set names one."""
        image_set, data = self.image_set, self.options.data
        judge = self._classifier("judge", image_set.judge) if image_set.judge else None
        files = [None if key is None else Path(data[key]) for key in (image_set.labels, image_set.test_labels)]
        return Yardstick(image_set, self.images, self.test, judge=judge, labels=files[0], test_labels=files[1])

    def _classifier(self, name: str, settings: Mapping[str, Any]) -> Path:
        """Train a classifier on the set, or take the one that is there."""
        image_set, data = self.image_set, self.options.data
        run = self.options.workdir / image_set.name / name / "run"
        common = {"data": data[image_set.data], "split": image_set.split, "image_size": image_set.image_size}
        labels = {} if image_set.labels is None else {"labels": data[image_set.labels]}
        with hold(run.parent, force=self.options.force_unlock, parents=True, wait=True):
            config = ClassifierConfig.from_dict({**common, **labels, **settings})
            if (run.parent / "done").exists():
                self._require_same(run, settings)
            else:
                train_classifier(config, out=run, resume=run.exists(), force_unlock=self.options.force_unlock)
                (run.parent / "done").touch()
        return run

    def _require_same(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Check that a finished classifier was trained on the images of the set with these settings.

        Raises:
            ConfigError: it was not.
        """
        directory = RunDirectory(run)
        before, images = directory.settings(), directory.info().get("data", {}).get("fingerprint")
        wrong = [f"{key} {before.get(key)}, not {value}" for key, value in settings.items() if before.get(key) != value]
        if images not in (None, self.images.fingerprint):
            wrong.append(f"images {images[:12]}, not {self.images.fingerprint[:12]}")
        if wrong:
            raise ConfigError(f"{run} was trained with {'; '.join(wrong)}: give another --out, or delete {run.parent}")


@contextlib.contextmanager
def _claimed(*outputs: Path, force: bool) -> Iterator[bool]:
    """Lock outputs; yield False if another process works on them.

    Raises:
        InUseError: one may, and cannot be looked at from here.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(*outputs, force=force, parents=True))
        except InUseError as err:
            if not err.alive:
                raise
            yield False
        else:
            yield True
