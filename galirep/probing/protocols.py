"""Probe protocols: what is fitted to frozen features, and how. Each is frozen: a change of numbers or of method is a new version."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from galirep.errors import ConfigError, DataError, unknown
from galirep.metrics.neighbors import TEMPERATURE, K, vote_errors
from galirep.probing.labelled import Labelled
from galirep.probing.linear_svm import fit, fit_path


@dataclass(frozen=True)
class Task:
    """What a protocol is given."""

    train: Labelled
    test: Labelled
    settings: Mapping[str, Any]
    seed: int
    progress: bool

    def error(self, predicted: NDArray[np.int64]) -> float:
        """The share of test rows that are not given their label."""
        return float(np.mean(predicted != self.test.labels))


@dataclass(frozen=True)
class Outcome:
    """What a protocol gives: the test error of each draw, C where it has one, and what else it measured."""

    errors: list[float]
    C: float | None = None
    converged: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """A way to measure: `settings` are all its numbers; a result made with others does not carry its version."""

    about: str
    settings: Mapping[str, Any]
    run: Callable[[Task], Outcome]

    def with_settings(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """All settings, those given in place of the protocol's own.

        Raises:
            ConfigError: no such setting, or a value of another kind.
        """
        for key, value in given.items():
            if key not in self.settings:
                raise ConfigError(unknown(f"setting of {name}", key, self.settings))
            own = self.settings[key]
            kinds = int if isinstance(own[0] if isinstance(own, list) else own, int) else (int, float)
            values = value if isinstance(own, list) else [value]
            fits = (
                isinstance(values, list)
                and values
                and all(isinstance(v, kinds) and not isinstance(v, bool) and v > 0 for v in values)
            )
            if not fits or (key.endswith("_fraction") and value >= 1):
                like = own[-2:] if isinstance(own, list) else own
                raise ConfigError(f"{key}={value!r} does not fit {name}: it is written like {key}={like}")
        return {**self.settings, **given}


def _linear_svm(task: Task) -> Outcome:
    train = task.train
    rows, held = train.split(task.settings["validation_fraction"], task.seed)
    scaler = StandardScaler().fit(train.features[rows])
    inner, outer = scaler.transform(train.features[rows]), scaler.transform(train.features[held])
    validation: list[dict[str, float]] = []
    converged = True
    for model in fit_path(inner, train.labels[rows], sorted(task.settings["grid"])):
        validation.append({"C": model.C, "error": float(np.mean(model.predict(outer) != train.labels[held]))})
        converged = converged and model.converged
        best = min(validation, key=lambda step: step["error"])  # the smallest C of those with the smallest error
        if all(step["error"] > best["error"] for step in validation[-2:]):
            break  # two steps past the best: what is left of the grid are the slow fits of large C
    scaler = StandardScaler().fit(train.features)
    model = fit(scaler.transform(train.features), train.labels, best["C"])
    errors = [task.error(model.predict(scaler.transform(task.test.features)))]
    return Outcome(errors, best["C"], converged and model.converged, {"validation": validation})


def _ali_l2svm(task: Task) -> Outcome:
    numbers, features, labels = task.settings, task.train.features, task.train.labels
    random = np.random.default_rng(task.seed)
    held, pool = np.split(random.permutation(len(labels)), [numbers["held_out"]])
    classes = np.unique(labels)
    for label in classes:
        if (found := int(np.sum(labels[pool] == label))) < numbers["labels_per_class"]:
            raise DataError(
                f"{task.train.source}: of {len(labels)} rows, {numbers['held_out']} are held out to choose C; class "
                f"{task.train.name(int(label))!r} has {found} of the others, and {numbers['labels_per_class']} a class are drawn: "
                "give more rows, or set held_out or labels_per_class"
            )

    def draw(rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        chosen = [
            random.choice(rows[labels[rows] == label], numbers["labels_per_class"], replace=False) for label in classes
        ]
        found = np.concatenate(chosen)
        return features[found], labels[found]

    grid = sorted(numbers["grid"])
    wrong = np.zeros((numbers["selection_draws"], len(grid)))
    converged = True
    for of_draw in tqdm(wrong, "choosing C", unit="draw", disable=not task.progress):
        for column, model in enumerate(fit_path(*draw(pool), grid)):
            of_draw[column] = np.mean(model.predict(features[held]) != labels[held])
            converged = converged and model.converged
    means = wrong.mean(axis=0)
    C = grid[int(np.argmin(means))]
    errors = []
    for _ in tqdm(range(numbers["draws"]), "draws", disable=not task.progress):
        model = fit(*draw(np.arange(len(labels))), C)
        errors.append(task.error(model.predict(task.test.features)))
        converged = converged and model.converged
    return Outcome(
        errors, C, converged, {"validation": [{"C": c, "error": float(e)} for c, e in zip(grid, means, strict=True)]}
    )


def _knn(task: Task) -> Outcome:
    headline, neighbours = task.settings["headline_k"], task.settings["k"]
    if headline not in neighbours:
        raise ConfigError(f"headline_k={headline} is none of k={neighbours}")
    if headline > len(task.train.labels):
        raise DataError(
            f"{task.train.source} has {len(task.train.labels)} rows, the vote is of the nearest {headline}: set k, headline_k"
        )
    possible = [k for k in neighbours if k <= len(task.train.labels)]
    train, test = (task.train.features, task.train.labels), (task.test.features, task.test.labels)
    errors = vote_errors(train, test, possible, task.settings["temperature"], progress=task.progress)
    return Outcome([errors[headline]], extra={"errors_by_k": {str(k): errors.get(k) for k in neighbours}})


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "linear-svm/v1": Protocol(
            "linear SVM on standardised features, C chosen on a fifth of the training rows",
            {"grid": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0], "validation_fraction": 0.2},
            _linear_svm,
        ),
        "ali-l2svm/v1": Protocol(
            "linear SVM on 100 unscaled labelled rows a class, 100 draws, as in Dumoulin et al. 2017",
            {
                "labels_per_class": 100,
                "held_out": 10_000,
                "selection_draws": 10,
                "draws": 100,
                "grid": np.exp(np.linspace(-20, 20, 50)).tolist(),
            },
            _ali_l2svm,
        ),
        "knn/v1": Protocol(
            "vote of the 20 nearest by cosine, weighted exp(similarity / 0.07), as in Wu et al. 2018",
            {"k": [1, 5, 20, 200], "headline_k": K, "temperature": TEMPERATURE},
            _knn,
        ),
    }
)
"""Protocol name -> protocol. docs/probing.md states each in full."""
