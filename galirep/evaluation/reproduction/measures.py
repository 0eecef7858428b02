"""The columns of a table: values of `galirep evaluate` and of probes with few labels, on the test images of a set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from galirep.data.memory import Images
from galirep.data.tensors import ImageFunction
from galirep.errors import DataError
from galirep.evaluation.evaluator import Evaluator
from galirep.evaluation.few_labels import FewLabelResult, attribute_labels, best_few_label_error, compute_features
from galirep.evaluation.images import EvaluationData
from galirep.evaluation.measures.registry import missing_functions
from galirep.evaluation.reproduction.made import Made
from galirep.evaluation.reproduction.study import ImageSet
from galirep.metrics.arrays import Ints

Measured = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column: what it is, in one line, how many digits it is printed with, and how it is measured.

    `measure` returns the value under the column's own name, None where a row has none, and details beside. Less is
    better in all columns but the gradient norm, which only tells.
    """

    about: str
    digits: int
    measure: Callable[[Made, "Yardstick"], Measured]


class Yardstick:
    """The test images of a set with their labels, and what rows are measured with; loaded once for all rows."""

    def __init__(
        self,
        image_set: ImageSet,
        train: Images,
        test: Images,
        *,
        judge: Path | None,
        labels: Path | None,
        test_labels: Path | None,
    ) -> None:
        self.image_set, self.train, self.test = image_set, train, test
        self._files = (labels, test_labels)
        spec = None if judge is None else f"classifier:{judge}"
        self._evaluator = partial(Evaluator, EvaluationData(test, None, train=train), extractor=spec)
        self._measured: tuple[Made | None, dict[str, dict[str, Any]]] = (None, {})

    def metric(self, made: Made, name: str) -> dict[str, Any] | None:
        """Return the JSON object of a metric of `galirep evaluate`, None where the row cannot have it."""
        if missing_functions(made.subject, name):
            return None
        # two columns may be of one metric
        if self._measured[0] is not made:
            self._measured = (made, {})
        known = self._measured[1]
        if name not in known:
            (result,) = self._by_metric(name).measure([made.subject])
            known[name] = result.metrics[name]
        return known[name]

    def _by_metric(self, name: str) -> Evaluator:
        if name not in self._evaluators:
            self._evaluators[name] = self._evaluator(metrics=[name])
        return self._evaluators[name]

    @cached_property
    def _evaluators(self) -> dict[str, Evaluator]:
        return {}

    @cached_property
    def targets(self) -> Mapping[str, tuple[Ints, Ints]]:
        """Labels of the training and the test images: of the classes, or of each attribute by name.

        Raises:
            DataError: the images have neither classes nor a CSV file of attributes.
        """
        train_file, test_file = self._files
        if train_file is not None and test_file is not None:
            train, test = attribute_labels(train_file, self.train.ids), attribute_labels(test_file, self.test.ids)
            return {name: (labels, test[name]) for name, labels in train.items()}
        if self.train.labels is None or self.test.labels is None:
            raise DataError(f"the set {self.image_set.name!r} has no labels to probe")
        return {"class": (self.train.labels, self.test.labels)}

    def probe(self, features: ImageFunction, protocol: str) -> dict[str, FewLabelResult]:
        """Return, for each target, the errors of a protocol on few labels."""
        image_set, test = self.image_set, compute_features(features, self.test.pixels)
        return {
            target: best_few_label_error(
                lambda rows: compute_features(features, self.train.pixels[rows]),
                train_labels,
                (test, test_labels),
                image_set.probe_labels,
                image_set.probe_draws,
                protocols=[protocol],
            )
            for target, (train_labels, test_labels) in self.targets.items()
        }


def _of_metric(column: str, metric: str, value: Callable[[Mapping[str, Any]], float]) -> Callable[..., Measured]:
    def measure(made: Made, yardstick: Yardstick) -> Measured:
        entry = yardstick.metric(made, metric)
        return {column: None if entry is None else value(entry)}

    return measure


def _mean(entry: Mapping[str, Any]) -> float:
    return float(entry["mean"])


def _probe(column: str, protocol: str) -> Callable[..., Measured]:
    """Return a probe with few labels: the mean over the targets of a set, each of them beside it."""

    def measure(made: Made, yardstick: Yardstick) -> Measured:
        if made.features is None:
            return {column: None}
        results = yardstick.probe(made.features, protocol)
        each = {f"{column}:{target}": result.error for target, result in results.items()} if len(results) > 1 else {}
        return {column: float(np.mean([result.error for result in results.values()])), **each}

    return measure


def _chosen(column: str, protocol: str) -> Callable[..., Measured]:
    """Return a probe on the set of layers that cross-validation on the labels of each draw prefers."""

    def measure(made: Made, yardstick: Yardstick) -> Measured:
        if not made.layer_sets:
            return {column: None}
        results = {name: yardstick.probe(features, protocol) for name, features in made.layer_sets.items()}
        details: Measured = {}
        means = []
        for target in yardstick.targets:
            validation = np.array([results[name][target].validation_errors for name in results])
            errors = np.array([results[name][target].errors for name in results])
            chosen = validation.argmin(0)
            details[f"{column}:{target}"] = float(errors[chosen, np.arange(len(chosen))].mean())
            details[f"{column}:{target}:sets"] = [list(results)[i] for i in chosen]
            means.append(details[f"{column}:{target}"])
        # what each set would have given, for the choice of a default
        by_set = {name: [result.error for result in found.values()] for name, found in results.items()}
        details |= {f"{column}:{name}": float(np.mean(errors)) for name, errors in by_set.items()}
        return {column: float(np.mean(means)), **details}

    return measure


def _gradient_norm(made: Made, _: Yardstick) -> Measured:
    """Take the median norm of G's gradient over the second half of training: near 0 where the objective saturates."""
    norms = made.gradient_norms
    return {"gradient_norm": float(np.median(norms[len(norms) // 2 :])) if norms else None}


def _metric_column(name: str, about: str, digits: int, metric: str, value: Any = _mean) -> tuple[str, Column]:
    return name, Column(about, digits, _of_metric(name, metric, value))


COLUMNS: Mapping[str, Column] = dict(
    [
        _metric_column("pixel_mse", "mean squared error of G(mu(x)), images in [0, 1]", 4, "pixel-mse"),
        _metric_column("feature_mse", "the same in the judge's features, over their variance", 3, "feature-mse"),
        _metric_column("frechet", "Fréchet distance of samples in the judge's features", 2, "fid"),
        _metric_column("inpainting_mse", "mean squared error inside a box, by G(mu(M(x)))", 4, "inpainting"),
        _metric_column(
            *("inpainting_feature_mse", "of the inpainted image, in the judge's features", 3, "inpainting"),
            lambda entry: float(entry["feature_mse"]["mean"]),
        ),
        _metric_column(
            *("latent_mse", "mean squared error of mu(G(z)) against z (1: the prior's variance)", 3, "posterior"),
            lambda entry: float(entry["latent_cycle"]["mean"]),
        ),
        ("gradient_norm", Column("norm of G's gradient, median over the second half", 4, _gradient_norm)),
        ("svm_v1", Column("test error of linear-svm/v1", 4, _probe("svm_v1", "linear-svm/v1"))),
        ("svm", Column("test error of linear-svm/v2", 4, _probe("svm", "linear-svm/v2"))),
        ("logistic", Column("test error of logistic/v1", 4, _probe("logistic", "logistic/v1"))),
        (
            "svm_chosen",
            Column("linear-svm/v2, layers chosen on training labels", 4, _chosen("svm_chosen", "linear-svm/v2")),
        ),
        (
            "logistic_chosen",
            Column("logistic/v1, layers chosen on training labels", 4, _chosen("logistic_chosen", "logistic/v1")),
        ),
    ]
)
"""Column name -> column."""
