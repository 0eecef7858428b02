"""Probes: how well a simple classifier tells the classes apart in frozen features."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from galirep.errors import ConfigError, unknown
from galirep.probing.labelled import Source, open_pair
from galirep.probing.protocols import PROTOCOLS, Task

TEST_FRACTION = 0.2
"""The share of TRAIN that is kept as TEST where none is given."""


def probe(
    train: Source,
    test: Source | None = None,
    *,
    protocol: str = "linear-svm/v1",
    layers: Sequence[str] | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Fit a probe on the rows of `train` and report its error on those of `test`.

    A source is the path of an embedding file, `Embeddings`, or a pair of arrays: (N, D) features and (N,) labels. Without `test`, a fifth
    of `train`, drawn by class, is kept for it. `layers` chooses columns by layer name. `settings` changes numbers of the protocol; the
    result is then named `linear-svm/custom`, not `linear-svm/v1`. Rows without a label are left out and counted in `notes`.

    >>> probe("train.h5", "test.h5", layers=["mu"])["error_mean"]
    0.0312

    Returns:
        A JSON object: protocol, settings, seed, train, test, encoder, layers, n_train, n_test, n_classes, n_features, C, error_mean,
        error_std (over the draws; None for a single one), error_stderr (of error_mean, from the number of test rows), errors (one a draw),
        baseline_error, baseline, converged, notes, seconds; also validation or errors_by_k where the protocol has them. Errors are shares
        of the test rows, 0 to 1.

    Raises:
        ConfigError: unknown protocol, setting or value.
        DataError: no labels, one class, NaN, encoders that differ, or fewer rows than the protocol needs.
    """
    started = time.perf_counter()
    if protocol not in PROTOCOLS:
        raise ConfigError(unknown("protocol", protocol, PROTOCOLS))
    rules = PROTOCOLS[protocol]
    numbers = rules.with_settings(protocol, settings or {})
    fitted, judged, notes = open_pair(train, test, layers)
    judged_name = judged.source if judged else f"{TEST_FRACTION:.0%} of {fitted.source}, drawn by class"
    if judged is None:
        rows, kept = fitted.split(TEST_FRACTION, seed)
        fitted, judged = fitted.take(rows), fitted.take(kept)
    outcome = rules.run(Task(fitted, judged, numbers, seed, progress))
    if not outcome.converged:
        notes.append("a fit did not converge within its iterations: its error may be a little off")
    mean = float(np.mean(outcome.errors))
    classes, counts = np.unique(fitted.labels, return_counts=True)
    commonest = int(classes[np.argmax(counts)])
    baseline = float(np.mean(judged.labels != commonest))
    return {
        "protocol": protocol if numbers == rules.settings else f"{protocol.partition('/')[0]}/custom",
        "settings": numbers,
        "seed": seed,
        "train": fitted.source,
        "test": judged_name,
        "encoder": fitted.meta.encoder if fitted.meta else None,
        "layers": [name for name, _ in fitted.layers],
        "n_train": len(fitted.labels),
        "n_test": len(judged.labels),
        "n_classes": len(classes),
        "n_features": fitted.features.shape[1],
        "C": outcome.C,
        "error_mean": mean,
        "error_std": float(np.std(outcome.errors, ddof=1)) if len(outcome.errors) > 1 else None,
        "error_stderr": float(np.sqrt(mean * (1 - mean) / len(judged.labels))),
        "errors": outcome.errors,
        "baseline_error": baseline,
        "baseline": f"always answering {fitted.name(commonest)!r}, the commonest class of TRAIN: error {100 * baseline:.2f} %",
        "converged": outcome.converged,
        **outcome.extra,
        "notes": notes,
        "seconds": time.perf_counter() - started,
    }
