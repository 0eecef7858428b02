"""Nearest-neighbour classification: a vote by cosine similarity."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

K, TEMPERATURE = 20, 0.07  # of the vote, where nothing else is asked for (Wu et al. 2018; protocol knn/v1)
_BLOCK = 256  # rows whose neighbours are looked for at once

LabelledFeatures = tuple[NDArray[np.float32], NDArray[np.int64]]  # features (N, d) and labels (N,)


def vote_errors(
    gallery: LabelledFeatures,
    queries: LabelledFeatures,
    ks: Sequence[int],
    temperature: float,
    *,
    progress: bool = False,
) -> dict[int, float]:
    """The share of queries whose label loses the vote of the k nearest gallery rows, for each k of at most as many as there are rows.

    Votes weigh exp(cosine similarity / temperature) (Wu et al. 2018).
    """
    classes, codes = np.unique(gallery[1], return_inverse=True)
    units, most = _unit(gallery[0]).T, max(ks)
    wrong = dict.fromkeys(ks, 0)
    starts: Iterable[int] = range(0, len(queries[1]), _BLOCK)
    if progress:
        # training evaluates without a bar, and then needs no tqdm
        from tqdm import tqdm

        starts = tqdm(starts, "nearest", unit="block")
    for start in starts:
        truth = queries[1][start : start + _BLOCK]
        similarity = _unit(queries[0][start : start + _BLOCK]) @ units  # (B, N)
        nearest = np.sort(np.argpartition(-similarity, most - 1, axis=1)[:, :most], axis=1)
        order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        weight = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
        for k in ks:
            votes = np.zeros((len(truth), len(classes)))
            np.add.at(votes, (np.arange(len(truth))[:, None], codes[nearest[:, :k]]), weight[:, :k])
            wrong[k] += int(np.sum(classes[votes.argmax(axis=1)] != truth))
    return {k: count / len(queries[1]) for k, count in wrong.items()}


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(features, axis=1, keepdims=True).astype(np.float32)
    unit: NDArray[np.float32] = features / np.where(length > 0, length, np.float32(1))
    return unit
