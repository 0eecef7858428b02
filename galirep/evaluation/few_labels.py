"""Probes with few labels: features of images in memory, labels, and the error of linear-svm/v1 over random choices."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from galirep.data.tensors import ImageFunction, image_blocks
from galirep.errors import ConfigError, DataError
from galirep.metrics.arrays import F32, Ints
from galirep.probing.probe import probe
from galirep.supervised.targets import attribute_targets


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
    features_of: Callable[[Ints], F32], labels: Ints, test: tuple[F32, Ints], count: int, draws: int
) -> float:
    """Return the mean test error of linear-svm/v1 fitted on `count` random training images, over `draws` choices.

    `features_of` returns the features (count, D) of the chosen training rows, so that only those are computed; `labels`
    (N,) are those of all training images; `test` is features (M, D) and labels (M,). Choice i is seeded with i.

    Raises:
        ConfigError: `count` or `draws` is below 1.
        DataError: there are fewer than `count` training images; see also `probe`.
    """
    if count < 1 or draws < 1:
        raise ConfigError(f"count {count} and draws {draws} must be 1 or more")
    if count > len(labels):
        raise DataError(f"cannot choose {count} labelled images of {len(labels)}: choose fewer labels")
    errors = []
    for draw in range(draws):
        rows = np.random.default_rng(draw).permutation(len(labels))[:count]
        errors.append(probe((features_of(rows), labels[rows]), test).error_mean)
    return float(np.mean(errors))
