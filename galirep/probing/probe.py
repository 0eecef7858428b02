"""Probe frozen features: fit a simple classifier by a fixed protocol and report its test error."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from galirep.errors import ConfigError, DataError, unknown
from galirep.probing.labelled import RareClassError, Source, load_pair, note_equal_rows
from galirep.probing.layer_choice import choose_among
from galirep.probing.protocol import Task
from galirep.probing.protocols import PROTOCOLS
from galirep.probing.result import ProbeResult

DEFAULT_PROTOCOL = "linear-svm/v2"
_LEAVE_OUT_RARE = "--min-per-class N (min_per_class=N) leaves out the classes with fewer than N training rows"
TEST_FRACTION = 0.2
"""The share of TRAIN that is held out as TEST if none is given."""


def probe(
    train: Source,
    test: Source | None = None,
    *,
    protocol: str = DEFAULT_PROTOCOL,
    layers: Sequence[str] | None = None,
    choose_layers: bool = False,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    min_per_class: int | None = None,
    progress: bool = False,
) -> ProbeResult:
    """Fit a probe on the rows of `train` and report its error on those of `test`.

    A source is the path of an embedding file, `Embeddings`, or a pair of arrays: (N, D) features and (N,) labels.
    Without `test`, a fifth of `train`, drawn by class, is held out for it. `layers` chooses columns by layer name; with
    `choose_layers`, those of them (or of all) that the protocol's own cross-validation on the training rows finds best
    (see `galirep.probing.layer_choice`).
    `settings` changes numbers of the protocol; the result is then named `linear-svm/custom`, not `linear-svm/v2`.
    Rows without a label are left out and counted in `notes`, and so are, with `min_per_class`, the classes that have
    fewer rows in `train` (before a part of it is held out).

    >>> probe("train.h5", "test.h5", layers=["mu"]).error_mean
    0.0312

    Raises:
        ConfigError: unknown protocol, setting or value, or `min_per_class` below 1.
        DataError: no labels, one class, NaN, different encoders, or fewer rows than the protocol needs.
    """
    try:
        return fit_probe(
            train,
            test,
            protocol=protocol,
            layers=layers,
            choose_layers=choose_layers,
            seed=seed,
            settings=settings,
            min_per_class=min_per_class,
            progress=progress,
        )
    except RareClassError as err:
        raise DataError(f"{err}; {_LEAVE_OUT_RARE}") from None


def fit_probe(
    train: Source,
    test: Source | None = None,
    *,
    protocol: str = DEFAULT_PROTOCOL,
    layers: Sequence[str] | None = None,
    choose_layers: bool = False,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    min_per_class: int | None = None,
    progress: bool = False,
) -> ProbeResult:
    """Do what `probe` does; its messages do not tell of `min_per_class`, which a caller may not offer.

    Raises:
        RareClassError: a class has fewer rows than the protocol needs; see also `probe`.
    """
    started = time.perf_counter()
    if seed < 0:
        raise ConfigError(f"seed {seed} must be 0 or more")
    if protocol not in PROTOCOLS:
        raise ConfigError(unknown("protocol", protocol, PROTOCOLS))
    chosen = PROTOCOLS[protocol]
    if min_per_class is not None and min_per_class < 1:
        raise ConfigError(f"min_per_class must be at least 1, not {min_per_class}")
    if choose_layers and layers is not None and len(layers) == 1:
        raise ConfigError(
            f"choosing layers needs two or more to choose among, and {layers[0]!r} alone is named: "
            "name others too, or leave --layers out to choose among all"
        )
    merged = chosen.merge_settings(protocol, settings or {})
    train_set, test_set, notes = load_pair(train, test, layers, min_per_class)
    if test_set is None:
        test_name = f"{TEST_FRACTION:.0%} of {train_set.source}, drawn by class"
        rest, held_out = train_set.split(TEST_FRACTION, seed)
        train_set, test_set = train_set.take(rest), train_set.take(held_out)
        notes += note_equal_rows(train_set, test_set, "the other rows", "the held-out part of TRAIN")
    else:
        test_name = test_set.source
    layer_choice = None
    if choose_layers:
        layer_choice = choose_among(train_set, protocol, merged, seed, progress)
        train_set, test_set = train_set.columns(layer_choice.layers), test_set.columns(layer_choice.layers)
    outcome = chosen.run(Task(train_set, test_set, merged, seed, progress))
    notes += outcome.notes
    sides = {"train": train_set.meta, "test": test_set.meta if test is not None else None}
    reports = {side: dict(meta.data_report) for side, meta in sides.items() if meta and meta.data_report}
    if not outcome.converged:
        notes.append("a fit did not converge within its iterations: its error may be a little off")
    mean = float(np.mean(outcome.errors))
    classes, counts = np.unique(train_set.labels, return_counts=True)
    most_frequent = int(classes[np.argmax(counts)])
    baseline = float(np.mean(test_set.labels != most_frequent))
    return ProbeResult(
        protocol=protocol if merged == chosen.settings else f"{protocol.partition('/')[0]}/custom",
        settings={**merged, **outcome.used},
        seed=seed,
        train=train_set.source,
        test=test_name,
        encoder=train_set.meta.encoder if train_set.meta else None,
        layers=[name for name, _ in train_set.layers],
        n_train=len(train_set.labels),
        n_test=len(test_set.labels),
        n_classes=len(classes),
        n_features=train_set.features.shape[1],
        C=outcome.C,
        error_mean=mean,
        error_std=float(np.std(outcome.errors, ddof=1)) if len(outcome.errors) > 1 else None,
        error_stderr=float(np.sqrt(mean * (1 - mean) / len(test_set.labels))),
        errors=outcome.errors,
        baseline_error=baseline,
        baseline=f"always answering {train_set.name(most_frequent)!r}, the commonest class of TRAIN: "
        f"error {100 * baseline:.2f} %",
        converged=outcome.converged,
        validation=outcome.validation,
        errors_by_k=outcome.errors_by_k,
        notes=notes,
        seconds=time.perf_counter() - started,
        min_per_class=min_per_class,
        data_report=reports or None,
        scaling=outcome.scaling,
        chosen_layers=layer_choice.to_dict() if layer_choice else None,
    )
