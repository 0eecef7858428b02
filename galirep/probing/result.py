"""The result of a probe."""

from dataclasses import dataclass, fields
from typing import Any

from galirep.system.results import ResultMapping

_OPTIONAL = ("validation", "errors_by_k", "min_per_class", "data_report", "scaling", "chosen_layers")


@dataclass(frozen=True)
class ProbeResult(ResultMapping):
    """What a probe measured; errors are shares of the test rows, 0 to 1.

    Attributes:
        protocol: name with version, or `NAME/custom` where a setting is not the protocol's own.
        settings: every number of the protocol that was used.
        seed: of the validation split and of every draw.
        train: the embedding file, or `TRAIN (arrays)`.
        test: likewise, or which part of TRAIN was held out.
        encoder: the encoder of the embedding file, None for arrays.
        layers: names of the layers whose columns were used.
        n_train: training rows, those without a label left out.
        n_test: test rows, likewise.
        n_classes: classes among the training rows.
        n_features: columns.
        C: the regularisation constant that was chosen, None where the protocol has none.
        error_mean: mean test error over the draws.
        error_std: standard deviation (n - 1) over the draws, None for a single fit.
        error_stderr: sqrt(e (1 - e) / n_test), the standard error of `error_mean` on that many test rows.
        errors: the test error of each draw.
        baseline_error: the error of always answering the most frequent class of TRAIN.
        baseline: the same as a sentence.
        converged: whether every fit converged.
        validation: the error of each C (and scaling) it was chosen among; None where the protocol chooses none.
        errors_by_k: k as text -> error, None for a k beyond the training rows; None where the protocol has no k.
        notes: remarks a reader needs, one sentence each.
        seconds: wall time.
        min_per_class: classes with fewer training rows were left out; None: no class was.
        data_report: what the embedding files say was read and left out of their images, by `train` and `test`
            (`DataReport.to_dict`); None for arrays and files of earlier versions.
        scaling: the scaling of features that was chosen; None where the protocol chooses none.
        chosen_layers: how `layers` were chosen (`LayerChoice.to_dict`); None where they were not.

    Reading it like a dict is kept for code written for version 0.1 (see `ResultMapping`).
    """

    protocol: str
    settings: dict[str, Any]
    seed: int
    train: str
    test: str
    encoder: str | None
    layers: list[str]
    n_train: int
    n_test: int
    n_classes: int
    n_features: int
    C: float | None
    error_mean: float
    error_std: float | None
    error_stderr: float
    errors: list[float]
    baseline_error: float
    baseline: str
    converged: bool
    validation: list[dict[str, Any]] | None
    errors_by_k: dict[str, float | None] | None
    notes: list[str]
    seconds: float
    min_per_class: int | None = None
    data_report: dict[str, Any] | None = None
    scaling: str | None = None
    chosen_layers: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object; the optional keys, such as `validation`, only where there is one."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None or name not in _OPTIONAL}
