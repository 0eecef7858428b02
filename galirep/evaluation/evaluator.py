"""How an evaluation goes: plan every metric of every subject, then measure, keeping what is finished."""

import dataclasses
import math
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from galirep.errors import ConfigError, DataError, GalirepError
from galirep.evaluation.images import EvaluationData
from galirep.evaluation.measures import fidelity
from galirep.evaluation.measures.registry import MEASURES, choose_metrics, missing_functions
from galirep.evaluation.measures.scene import Network, Options, Scene, Score, require_fitting
from galirep.evaluation.measures.values import Values, write_values
from galirep.evaluation.notes import note_shapes, note_training_images, require_used
from galirep.evaluation.result import EvaluationResult, Record, read_metrics
from galirep.evaluation.subjects import Subject, load_subject
from galirep.features.extraction import build_extractor
from galirep.features.protocol import FeatureExtractor, describe
from galirep.system.devices import device_name, device_of
from galirep.system.files import require_free, require_suffix
from galirep.version import __version__

_BY_DEFAULT = ("pixel-mse", "inpainting", "posterior")
_WITH_NETWORK = ("feature-mse",)
_OF_EXTRACTOR = ("feature-mse", "inpainting")
_WITH_SAMPLES = ("fid", "kid")
_COUNTS = ("images", "errors")


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A subject in its scene, with the settings of each metric, and what the file had of it."""

    scene: Scene
    settings: dict[str, dict[str, Any]]
    kept: dict[str, dict[str, Any]]
    counts: dict[str, int]
    warnings: tuple[str, ...]


class Evaluator:
    """Metrics on one data set; the arguments are those of `galirep.evaluate`."""

    def __init__(
        self,
        data: EvaluationData,
        *,
        metrics: str | Sequence[str] | None = None,
        extractor: str | FeatureExtractor | None = None,
        inception: str | Path | None = None,
        options: Options | None = None,
        device: str = "auto",
        download: bool = False,
        trust_encoder: bool = False,
        progress: bool = False,
    ) -> None:
        self.metrics = None if metrics is None else choose_metrics(metrics)
        self.options = options or Options()
        if self.options.samples is not None and self.options.samples < 1:
            raise ConfigError(f"--samples {self.options.samples} must be 1 or more")
        self.device, self.data, self.progress, self.download = device_of(device), data, progress, download
        self.trust_encoder = trust_encoder
        self._network = None
        if extractor is not None:
            self._network = Network(
                *build_extractor(extractor, download=download, device=self.device, trust_encoder=trust_encoder)
            )
        self._fidelity = self._network
        if inception is not None:
            network = fidelity.FidInception(inception).to(self.device).eval()
            self._fidelity = Network(network, describe(network, str(inception)))
        self._cache: dict[Any, Any] = {}

    def measure(
        self,
        runs: Sequence[str | Path | Subject],
        *,
        layers: Sequence[str] | None = None,
        out: str | Path | None = None,
        save_values: str | Path | None = None,
        overwrite: bool = False,
        given: Mapping[str, Any] | None = None,
    ) -> list[EvaluationResult]:
        """Measure the subjects in turn; nothing is measured before every metric of all of them is known to be possible.

        `given` are options that must serve one of the metrics (see `require_used`).

        Raises:
            GalirepError: see `galirep.evaluate`.
        """
        record = Record(out, overwrite)
        if save_values is not None:
            require_suffix(Path(save_values), ".h5", ".hdf5")
            require_free(Path(save_values), overwrite)
        subjects = [
            run
            if isinstance(run, Subject)
            else load_subject(run, self.device, layers=layers, download=self.download, trust_encoder=self.trust_encoder)
            for run in runs
        ]
        _require_distinct(subjects)
        require_used(given or {}, self.metrics or self._defaults(*subjects))
        scenes = [self._scene(subject, subjects) for subject in subjects]
        about = [_describe_data(scene) for scene in scenes]
        record.require_same([subject.identity for subject in subjects], about)
        shapes = note_shapes(scenes)
        plans = [self._plan(scene, record, shapes) for scene in scenes]
        results = [
            EvaluationResult(_describe_subject(plan.scene.subject), {**data, **plan.counts}, plan.kept, plan.warnings)
            for plan, data in zip(plans, about, strict=True)
        ]
        values: list[Values] = []
        for i, plan in enumerate(plans):
            arrays = {}
            todo = [
                metric
                for metric in plan.settings
                if metric not in plan.kept or (save_values is not None and MEASURES[metric].per_image)
            ]
            if todo:
                results[i] = results[i].with_counts(plan.scene.images)
            for metric in todo:
                started = time.perf_counter()
                score = MEASURES[metric].run(plan.scene)
                entry = self._entry(plan, metric, score, time.perf_counter() - started)
                arrays[metric] = score.values
                results[i] = results[i].with_metric(metric, entry)
                record.write(results)
            if save_values is not None:
                values.append(Values(plan.scene.subject.name, plan.scene.images.ids, arrays))
        results = [result.in_order(MEASURES) for result in results]
        record.write(results)
        if save_values is not None:
            write_values(Path(save_values), values, overwrite)
        return results

    def _scene(self, subject: Subject, subjects: Sequence[Subject]) -> Scene:
        shape = self.data.shape(subject, subjects)
        return Scene(
            subject,
            self.data.test,
            shape,
            lambda: self.data.load(shape),
            self.options,
            self.device,
            self._network,
            self._fidelity,
            lambda count: self.data.load_train(shape, count, self.options.seed),
            None,
            self.progress,
            self._cache,
            {},
        )

    def _plan(self, scene: Scene, record: Record, notes: Sequence[str]) -> _Plan:
        """Return the settings of each metric; those that were not asked for by name are left out if they cannot be."""
        subject, warnings = scene.subject, [*notes]
        wanted = self.metrics or self._defaults(subject)
        if {"fid", "kid", "probe"} & set(wanted):
            scene = dataclasses.replace(scene, train_about=self.data.train_about)
        settings: dict[str, dict[str, Any]] = {}
        # the network of each family of metrics that is wanted
        used = [scene.network] if set(_OF_EXTRACTOR) & set(wanted) else []
        used += [scene.fidelity] if set(_WITH_SAMPLES) & set(wanted) else []
        for network in filter(None, used):
            require_fitting(network, scene.shape, self.device)
        for metric in wanted:
            try:
                if reason := missing_functions(subject, metric):
                    raise ConfigError(reason)
                settings[metric] = MEASURES[metric].plan(scene)
            except GalirepError as err:
                if self.metrics:
                    raise
                warnings.append(f"{metric} is left out: {err}")
        if not settings:
            raise ConfigError(f"{subject.name}: no metric can be had of it: {'; '.join(warnings)}")
        earlier = record.find(subject.identity)
        kept, counts = read_metrics(earlier), {key: earlier["data"][key] for key in _COUNTS} if earlier else {}
        for metric in settings:
            record.kept(subject.identity, metric, settings[metric])
        return _Plan(scene, settings, kept, counts, (*warnings, *note_training_images(scene)))

    def _defaults(self, *subjects: Subject) -> tuple[str, ...]:
        wanted = ["probe"] if any(subject.kind == "extractor" for subject in subjects) else []
        if all(subject.kind == "extractor" for subject in subjects):
            return tuple(wanted)
        wanted += _BY_DEFAULT
        wanted += _WITH_NETWORK if self._network else ()
        wanted += _WITH_SAMPLES if self._fidelity else ()
        return tuple(name for name in MEASURES if name in wanted)

    def _entry(self, plan: _Plan, metric: str, score: Score, seconds: float) -> dict[str, Any]:
        """Return the JSON object of a metric."""
        if not math.isfinite(score.mean):
            raise DataError(
                f"{metric} of {plan.scene.subject.name} is {score.mean}: its images or features are not finite"
            )
        return {
            "mean": score.mean,
            "std": score.std,
            "std_over": score.spread or None,
            "n": score.n,
            **score.details,
            "warnings": list(score.warnings),
            "settings": plan.settings[metric],
            "versions": _versions(metric),
            "device": device_name(self.device),
            "seconds": round(seconds, 2),
        }


def _versions(metric: str) -> dict[str, str]:
    versions = {"galirep": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {**versions, "torch-fidelity": fidelity.library().__version__} if metric in _WITH_SAMPLES else versions


def _require_distinct(subjects: Sequence[Subject]) -> None:
    names = [subject.name for subject in subjects]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{repeated} is named twice: name each run once")
    if not names:
        raise ConfigError("no run to evaluate: name a run directory")


def _describe_subject(subject: Subject) -> dict[str, Any]:
    return {"path": subject.name, "kind": subject.kind, **subject.facts}


def _describe_data(scene: Scene) -> dict[str, Any]:
    source, (size, channels) = scene.source, scene.shape
    return {
        "spec": source.spec,
        "split": source.split,
        "fingerprint": source.fingerprint,
        "size": size,
        "channels": channels,
    }
