"""What several benchmarks measure on images in memory: reconstruction, Fréchet distance, probes with few labels, intervals."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

import galirep
from galirep.supervised.targets import attribute_targets

Apply = Callable[[Tensor], Tensor]
BLOCK = 250


def unit(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, C, S, S) uint8 -> float32 in [-1, 1]."""
    return torch.from_numpy(pixels).float() / 127.5 - 1


def blocks(pixels: NDArray[np.uint8]) -> Iterator[Tensor]:
    for start in range(0, len(pixels), BLOCK):
        yield unit(pixels[start : start + BLOCK])


@torch.inference_mode()
def features(extract: Apply, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, dim) of any function of images in [-1, 1]."""
    out: NDArray[np.float32] = torch.cat([extract(x).flatten(1) for x in blocks(pixels)]).numpy()
    return out


@torch.inference_mode()
def pixel_mse(rebuild: Apply, pixels: NDArray[np.uint8]) -> float:
    """Mean over images, pixels and channels, images in [0, 1]."""
    return sum(float((x - rebuild(x)).square().sum()) / 4 for x in blocks(pixels)) / pixels.size


def frechet_distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) of two sets of features (Heusel et al. 2017, Eq. 6)."""
    c_a, c_b = (np.cov(x.astype(np.float64), rowvar=False) for x in (a, b))
    values, vectors = np.linalg.eigh(c_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ c_b @ root), 0)).sum()
    difference = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    return float(difference @ difference + np.trace(c_a) + np.trace(c_b) - 2 * cross)


def attributes(file: Path, ids: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The binary attributes of a CSV file as for train-classifier, for probes: name -> (N,) of 0 and 1, in the order of `ids`."""
    targets = attribute_targets(file, ids)
    return dict(zip(targets.names, targets.values.numpy().astype(np.int64).T, strict=True))


def few_label_error(
    train: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    labels: NDArray[np.int64],
    test: tuple[NDArray[np.float32], NDArray[np.int64]],
    count: int,
    draws: int,
) -> float:
    """Mean error of linear-svm/v1 over `draws` random choices of `count` labelled training images; `train` gives features of rows."""
    errors = []
    for draw in range(draws):
        rows = np.random.default_rng(draw).permutation(len(labels))[:count]
        errors.append(galirep.probe((train(rows), labels[rows]), test)["error_mean"])
    return float(np.mean(errors))


def interval(values: list[float], digits: int = 4) -> str:
    """The mean of some runs and half the width of its 95% confidence interval (Student's t)."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"
