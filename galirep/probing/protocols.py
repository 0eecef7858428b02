"""Probe protocols: which classifier is fitted to frozen features, and with which numbers.

A protocol is a function from a `Task` to an `Outcome` and an entry in `PROTOCOLS`; nothing else lists protocols by
name. Each is frozen: a change of method or of a number is a new version under a new name.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from galirep.errors import ConfigError, DataError
from galirep.metrics.neighbors import TEMPERATURE, K, vote_errors
from galirep.probing.cross_validation import LOGISTIC, SVM, Classifier, make_folds, select
from galirep.probing.labelled import Labelled, RareClassError
from galirep.probing.linear_svm import fit, fit_path
from galirep.probing.protocol import Outcome, Protocol, Task
from galirep.probing.scaled_rows import SCALINGS, ScaledRows, Scaling


def _linear_svm(task: Task) -> Outcome:
    train = task.train
    rest, held_out = train.split(task.settings["validation_fraction"], task.seed)
    scaler = StandardScaler().fit(train.features[rest])
    fit_features, validation_features = (
        scaler.transform(train.features[rest]),
        scaler.transform(train.features[held_out]),
    )
    validation: list[dict[str, float]] = []
    converged = True
    for model in fit_path(fit_features, train.labels[rest], sorted(task.settings["grid"])):
        error = float(np.mean(model.predict(validation_features) != train.labels[held_out]))
        validation.append({"C": model.C, "error": error})
        converged = converged and model.converged
        # the smallest C of those with the smallest error
        best = min(validation, key=lambda step: step["error"])
        # two steps past the best: what is left of the grid are the slow fits of large C
        if all(step["error"] > best["error"] for step in validation[-2:]):
            break
    scaler = StandardScaler().fit(train.features)
    model = fit(scaler.transform(train.features), train.labels, best["C"])
    errors = [task.error(model.predict(scaler.transform(task.test.features)))]
    return Outcome(errors, best["C"], converged and model.converged, validation=validation)


def _cross_validated(task: Task, classifier: Classifier) -> Outcome:
    train, wanted = task.train, task.settings["folds"]
    folds = make_folds(train.labels, wanted, task.seed, train.name, train.source)
    rows = ScaledRows({"all": train.features})
    # a protocol without a choice of scalings leaves the columns as they are, all in one unit
    scalings = task.settings.get("scalings", ["one"])
    chosen = select(classifier, rows, ["all"], train.labels, folds, scalings, task.settings["grid"])
    scaling = Scaling.fit(train.features, chosen.scaling)
    model = classifier.fit(scaling.apply(train.features), train.labels, chosen.C)
    validation = chosen.steps
    if "scalings" not in task.settings:
        validation = [{"C": step["C"], "error": step["error"]} for step in validation]
    used, notes = {}, chosen.notes
    if len(folds) < wanted:
        used["folds"] = len(folds)
        notes = [f"{len(folds)} folds instead of {wanted}: the rarest class has {len(folds)} training rows", *notes]
    return Outcome(
        [task.error(model.predict(scaling.apply(task.test.features)))],
        chosen.C,
        chosen.converged and model.converged,
        validation=validation,
        scaling=chosen.scaling if "scalings" in task.settings else None,
        notes=notes,
        used=used,
    )


def _ali_l2svm(task: Task) -> Outcome:
    train, settings = task.train, task.settings
    random = np.random.default_rng(task.seed)
    all_rows = np.arange(len(train.labels))
    held_out, pool = np.split(random.permutation(len(train.labels)), [settings["held_out"]])
    _require_rows_per_class(train, pool, settings["held_out"], settings["labels_per_class"])
    grid = sorted(settings["grid"])
    selection_errors = np.zeros((settings["selection_draws"], len(grid)))
    converged = True
    for draw_errors in tqdm(selection_errors, "choosing C", unit="draw", disable=not task.progress):
        drawn = _draw_per_class(train, pool, settings["labels_per_class"], random)
        for column, model in enumerate(fit_path(drawn.features, drawn.labels, grid)):
            draw_errors[column] = np.mean(model.predict(train.features[held_out]) != train.labels[held_out])
            converged = converged and model.converged
    mean_errors = selection_errors.mean(axis=0)
    C = grid[int(np.argmin(mean_errors))]
    errors = []
    for _ in tqdm(range(settings["draws"]), "draws", disable=not task.progress):
        drawn = _draw_per_class(train, all_rows, settings["labels_per_class"], random)
        model = fit(drawn.features, drawn.labels, C)
        errors.append(task.error(model.predict(task.test.features)))
        converged = converged and model.converged
    validation = [{"C": c, "error": float(error)} for c, error in zip(grid, mean_errors, strict=True)]
    return Outcome(errors, C, converged, validation=validation)


def _require_rows_per_class(train: Labelled, pool: NDArray[np.int64], held_out: int, count: int) -> None:
    for label in np.unique(train.labels):
        available = int(np.sum(train.labels[pool] == label))
        if available < count:
            raise RareClassError(
                f"{train.source}: of {len(train.labels)} rows, {held_out} are held out to choose C; class "
                f"{train.name(int(label))!r} has {available} of the others, and {count} a class are drawn: "
                f"give more rows, or set held_out or labels_per_class"
            )


def _draw_per_class(train: Labelled, rows: NDArray[np.int64], count: int, random: np.random.Generator) -> Labelled:
    """Draw `count` of `rows` of each class without replacement."""
    drawn = [
        random.choice(rows[train.labels[rows] == label], count, replace=False) for label in np.unique(train.labels)
    ]
    return train.take(np.concatenate(drawn))


def _knn(task: Task) -> Outcome:
    headline, ks = task.settings["headline_k"], task.settings["k"]
    train, test = (task.train.features, task.train.labels), (task.test.features, task.test.labels)
    n_rows = len(task.train.labels)
    if headline not in ks:
        raise ConfigError(f"headline_k={headline} is not one of k={ks}")
    if headline > n_rows:
        raise DataError(
            f"{task.train.source} has {n_rows} rows, fewer than the {headline} neighbours that vote: "
            "set a smaller k and headline_k"
        )
    possible = [k for k in ks if k <= n_rows]
    errors = vote_errors(train, test, possible, task.settings["temperature"], progress=task.progress)
    return Outcome([errors[headline]], errors_by_k={str(k): errors.get(k) for k in ks})


def _log_grid(first: int, last: int) -> list[float]:
    """Return 10^first to 10^last, two values a decade."""
    return [float(f"{10 ** (half / 2):.3g}") for half in range(2 * first, 2 * last + 1)]


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "linear-svm/v1": Protocol(
            "linear SVM on standardised features, C chosen on a fifth of the training rows",
            {"grid": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0], "validation_fraction": 0.2},
            _linear_svm,
        ),
        "linear-svm/v2": Protocol(
            "linear SVM with a free intercept, scaling and C chosen by five-fold cross-validation on the training rows",
            {"grid": _log_grid(-3, 5), "folds": 5, "scalings": list(SCALINGS)},
            lambda task: _cross_validated(task, SVM),
            SVM,
        ),
        "logistic/v1": Protocol(
            "logistic regression on unscaled features, C chosen by five-fold cross-validation, as for CLIP and DINO",
            {"grid": _log_grid(-2, 6), "folds": 5},
            lambda task: _cross_validated(task, LOGISTIC),
            LOGISTIC,
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
