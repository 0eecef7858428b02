"""Probes with few labels: features of images in memory, labels, and the test error over random choices of images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from galirep.data.tensors import ImageFunction, image_blocks
from galirep.errors import ConfigError, DataError
from galirep.metrics.arrays import F32, Ints
from galirep.probing.layer_choice import choose_layers
from galirep.probing.probe import fit_probe
from galirep.supervised.targets import attribute_targets

Layers: TypeAlias = F32 | Mapping[str, F32]
"""Features (N, D), or those of several layers by name."""

FAIR_PROTOCOLS = ("linear-svm/v2", "logistic/v1")
"""The protocols that any row of a table may use: both choose their numbers by cross-validation on training labels."""


@dataclass(frozen=True)
class FewLabelResult:
    """The test `error` with few labels, and what was chosen for each draw without looking at test labels.

    `errors`, `protocols`, `layers` (None where there was nothing to choose) and `validation_errors`, the
    cross-validation error of the choice, are lists over the draws. `error` is the mean of `errors`.
    """

    error: float
    errors: list[float]
    protocols: list[str]
    layers: list[list[str] | None]
    validation_errors: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@torch.inference_mode()
def compute_features(extract: ImageFunction, pixels: NDArray[np.uint8], device: torch.device | None = None) -> F32:
    """Return the features (N, dim) float32 of images (N, C, S, S) uint8; outputs of more dimensions are flattened.

    `extract` is any function of images in [-1, 1]; `device` is where it runs (default: the CPU).
    """
    features: F32 = torch.cat([extract(x).flatten(1).cpu() for x in image_blocks(pixels, device=device)]).numpy()
    return features


def attribute_labels(file: Path, ids: Sequence[str]) -> dict[str, Ints]:
    """Read binary attributes from a CSV file as `galirep train-classifier` does: name -> (N,) of 0 and 1, as `ids`.

    Raises:
        DataError: see `attribute_targets`.
    """
    targets = attribute_targets(file, ids)
    return dict(zip(targets.names, targets.values.numpy().astype(np.int64).T, strict=True))


def few_label_error(
    features_of: Callable[[Ints], F32],
    labels: Ints,
    test: tuple[F32, Ints],
    count: int,
    draws: int,
    protocol: str = "linear-svm/v1",
) -> float:
    """Return the mean test error of a protocol fitted on `count` random training images, over `draws` choices.

    `features_of` returns the features (count, D) of the chosen training rows, so that only those are computed; `labels`
    (N,) are those of all training images; `test` is features (M, D) and labels (M,). Choice i is seeded with i.

    Raises:
        ConfigError: `count` or `draws` is below 1, or the protocol is unknown.
        DataError: there are fewer than `count` training images; see also `probe`.
    """
    choices = _draw(labels, count, draws)
    errors = [fit_probe((features_of(rows), labels[rows]), test, protocol=protocol).error_mean for rows in choices]
    return float(np.mean(errors))


def best_few_label_error(
    features_of: Callable[[Ints], Layers],
    labels: Ints,
    test: tuple[Layers, Ints],
    count: int,
    draws: int,
    protocols: Sequence[str] = FAIR_PROTOCOLS,
    layer_choice: bool = False,
) -> FewLabelResult:
    """Return the test error of the best of several protocols, chosen for each draw by cross-validation.

    The arguments are those of `few_label_error`, and so are the choices of images; features may be layers by name,
    which are all used or, with `layer_choice`, chosen for each protocol (`choose_layers`). The protocol with the
    smallest cross-validation error on the draw's own labels is taken, the first of equals. Test labels serve no choice,
    so that a baseline gets the protocol that suits it without seeing more than the row it is compared with.

    Raises:
        ConfigError: see `few_label_error`; also a protocol that does not cross-validate, or layers to choose among
            that are not given by name.
        DataError: see `few_label_error`.
    """
    outcomes = []
    for rows in _draw(labels, count, draws):
        train, test_features = features_of(rows), test[0]
        tried = []
        for protocol in protocols:
            chosen = None
            if layer_choice:
                if not isinstance(train, Mapping):
                    raise ConfigError("layer_choice needs the features of each layer by name, not one array")
                chosen = list(choose_layers(train, labels[rows], protocol).layers)
            fitted = (_join(train, chosen), labels[rows])
            result = fit_probe(fitted, (_join(test_features, chosen), test[1]), protocol=protocol)
            if result.validation is None:
                raise ConfigError(f"{protocol} has no error on training labels to be chosen by")
            tried.append((min(step["error"] for step in result.validation), result.error_mean, protocol, chosen))
        outcomes.append(min(tried, key=lambda outcome: outcome[0]))
    validation_errors, errors, names, layers = map(list, zip(*outcomes, strict=True))
    return FewLabelResult(float(np.mean(errors)), errors, names, layers, validation_errors)


def _draw(labels: Ints, count: int, draws: int) -> list[Ints]:
    """Return the rows of each choice of `count` training images."""
    if count < 1 or draws < 1:
        raise ConfigError(f"count {count} and draws {draws} must be 1 or more")
    if count > len(labels):
        raise DataError(f"cannot choose {count} labelled images of {len(labels)}: choose fewer labels")
    return [np.random.default_rng(draw).permutation(len(labels))[:count] for draw in range(draws)]


def _join(features: Layers, names: Sequence[str] | None) -> F32:
    """Return the columns of these layers, or of all, side by side."""
    if not isinstance(features, Mapping):
        return features
    return np.concatenate([features[name] for name in (features if names is None else names)], axis=1)
