"""Choose the layers that a probe reads, by cross-validation on labelled training rows, never on test rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from galirep.errors import ConfigError, DataError, unknown
from galirep.probing.cross_validation import Selection, make_folds, select
from galirep.probing.labelled import Labelled
from galirep.probing.protocols import PROTOCOLS
from galirep.probing.scaled_rows import SCALINGS, ScaledRows

MAX_LAYERS = 4
MAX_ROWS = 1000


@dataclass(frozen=True)
class LayerChoice:
    """The `layers` chosen, in the order given, and how.

    `error` is their cross-validation error, with `C` and `scaling`, over `n_rows` rows in `folds` folds; `path` has
    every set of layers that was tried, in order: `layers`, `error`, `C`, `scaling`. The error of the best of many is
    optimistic; it is for choosing, not for reporting.
    """

    layers: tuple[str, ...]
    error: float
    C: float
    scaling: str
    n_rows: int
    folds: int
    path: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {**asdict(self), "layers": list(self.layers)}


def choose_layers(
    layers: Mapping[str, ArrayLike],
    labels: ArrayLike,
    protocol: str = "linear-svm/v2",
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    max_layers: int = MAX_LAYERS,
    max_rows: int = MAX_ROWS,
    progress: bool = False,
) -> LayerChoice:
    """Choose among `layers`, name -> (N, D) features of the same labelled rows, by greedy forward selection.

    First all layers together and each alone are tried, then the best single one with each other, and so on while the
    cross-validation error of `protocol` falls, up to `max_layers`; all together are taken if nothing smaller is as
    good. The cost is bounded: about `max_rows` rows drawn by class (seed), every second C of the grid, and from the
    second layer on C within one step of that of the layers so far for all but the best addition, which is tried with
    every C. `labels` (N,) are any numbers or names.

    >>> choose_layers({"conv2": maps, "mu": codes}, labels).layers
    ('conv2',)

    Raises:
        ConfigError: a protocol that does not cross-validate, a bad setting, or a bound below 1.
        DataError: layers of other shapes than (N, D), NaN, or a class with a single row.
    """
    chosen = PROTOCOLS.get(protocol)
    if chosen is None:
        raise ConfigError(unknown("protocol", protocol, PROTOCOLS))
    if chosen.classifier is None:
        able = ", ".join(name for name, other in PROTOCOLS.items() if other.classifier)
        raise ConfigError(f"{protocol} does not choose by cross-validation, so it cannot choose layers: take {able}")
    if max_layers < 1 or max_rows < 1:
        raise ConfigError(f"max_layers {max_layers} and max_rows {max_rows} must be 1 or more")
    merged = chosen.merge_settings(protocol, settings or {})
    columns, codes = _check(layers, labels)
    rows = _draw(codes, max_rows, merged["folds"], seed)
    codes = codes[rows]
    folds = make_folds(codes, merged["folds"], seed, lambda label: str(np.unique(np.asarray(labels))[label]), "TRAIN")
    scaled = ScaledRows({name: features[rows] for name, features in columns.items()}, keep=True)
    classifier, grid, names = chosen.classifier, sorted(merged["grid"])[::2], list(columns)
    path: list[dict[str, Any]] = []
    bar = tqdm(desc="choosing layers", unit="set", disable=not progress)

    def attempt(members: Sequence[str], near: Selection | None) -> Selection:
        scalings = merged.get("scalings", SCALINGS[-1:])
        tried = grid if near is None else [C for C in grid if near.C / 11 < C < near.C * 11]
        found = select(classifier, scaled, members, codes, folds, scalings, tried)
        path.append({"layers": list(members), "error": found.error, "C": found.C, "scaling": found.scaling})
        bar.update()
        return found

    together = attempt(names, None)
    best, members = together, names
    if len(names) > 1:
        best, members = _search(names, attempt, max_layers)
        if together.error < best.error:
            best, members = together, names
    bar.close()
    ordered = tuple(name for name in names if name in members)
    return LayerChoice(ordered, best.error, best.C, best.scaling, len(rows), len(folds), path)


def choose_among(rows: Labelled, protocol: str, settings: Mapping[str, Any], seed: int, progress: bool) -> LayerChoice:
    """Choose among the layers of labelled rows, as `choose_layers` does.

    Raises:
        ConfigError, DataError: see `choose_layers`; also where there is a single layer.
    """
    if len(rows.layers) < 2:
        raise DataError(f"{rows.source} has one layer, {rows.layers[0][0]!r}: choosing layers needs two or more")
    layers = {name: rows.columns([name]).features for name, _ in rows.layers}
    names = np.array([rows.name(int(label)) for label in rows.labels])
    return choose_layers(layers, names, protocol, settings=settings, seed=seed, progress=progress)


def _search(
    names: Sequence[str], attempt: Callable[[Sequence[str], Selection | None], Selection], max_layers: int
) -> tuple[Selection, list[str]]:
    """Add the layer that lowers the error most, from none on, until none does; return the last selection and layers."""
    best: Selection | None = None
    members: list[str] = []
    while len(members) < min(max_layers, len(names)):
        found = {name: attempt([*members, name], best) for name in names if name not in members}
        name = min(found, key=lambda name: found[name].error)
        winner = found[name] if best is None else attempt([*members, name], None)
        if best is not None and winner.error >= best.error:
            break
        best, members = winner, [*members, name]
    assert best is not None
    return best, members


def _check(
    layers: Mapping[str, ArrayLike], labels: ArrayLike
) -> tuple[dict[str, NDArray[np.floating[Any]]], NDArray[np.int64]]:
    """Return the layers as arrays and the labels as numbers 0, 1, ..., or refuse them."""
    classes, codes = np.unique(np.asarray(labels), return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"labels of {len(classes)} class: choosing layers needs two or more classes")
    if not layers:
        raise DataError("no layers to choose among")
    columns = {name: np.asarray(features, np.float32) for name, features in layers.items()}
    for name, features in columns.items():
        if features.ndim != 2 or len(features) != len(codes):
            raise DataError(f"layer {name!r} must be ({len(codes)}, D) for {len(codes)} labels, not {features.shape}")
        if not np.isfinite(features).all():
            raise DataError(f"layer {name!r} contains NaN or infinity")
    return columns, codes


def _draw(codes: NDArray[np.int64], count: int, least: int, seed: int) -> NDArray[np.int64]:
    """Draw about `count` rows, of each class its share, but `least` where it has so many."""
    if len(codes) <= count:
        return np.arange(len(codes))
    random = np.random.default_rng(seed)
    drawn = []
    for members in (np.flatnonzero(codes == code) for code in np.unique(codes)):
        share = max(round(count * len(members) / len(codes)), min(least, len(members)))
        drawn.append(random.choice(members, share, replace=False))
    return np.sort(np.concatenate(drawn))
