"""k-NN classification: a vote of the nearest rows, weighted by cosine similarity (Wu et al. 2018)."""

from collections.abc import Iterable, Sequence

import numpy as np

from galirep.metrics.arrays import F32, Ints

# the defaults of the vote (Wu et al. 2018; protocol knn/v1)
K = 20
TEMPERATURE = 0.07
_BLOCK = 256  # queries that are compared with the gallery at once

LabelledFeatures = tuple[F32, Ints]
"""Features (N, d) and labels (N,)."""


def vote_errors(
    gallery: LabelledFeatures,
    queries: LabelledFeatures,
    ks: Sequence[int],
    temperature: float,
    *,
    progress: bool = False,
) -> dict[int, float]:
    """Return the error of the k-NN vote for each k, as a share of the queries.

    Each of the k nearest gallery rows votes for its class with weight exp(cosine similarity / temperature) (Wu et al.
    2018, section 3.4). No k may exceed the number of gallery rows.
    """
    gallery_features, gallery_labels = gallery
    query_features, query_labels = queries
    classes, codes = np.unique(gallery_labels, return_inverse=True)
    gallery_unit = _normalize(gallery_features).T
    k_max = max(ks)
    wrong = dict.fromkeys(ks, 0)
    starts: Iterable[int] = range(0, len(query_labels), _BLOCK)
    if progress:
        # training evaluates without a bar, and then needs no tqdm
        from tqdm import tqdm

        starts = tqdm(starts, "nearest", unit="block")
    for start in starts:
        truth = query_labels[start : start + _BLOCK]
        similarity = _normalize(query_features[start : start + _BLOCK]) @ gallery_unit  # (B, N)
        # ascending rows first, then a stable sort: of equally near rows the one with the lower number comes first
        nearest = np.sort(np.argpartition(-similarity, k_max - 1, axis=1)[:, :k_max], axis=1)
        order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        weight = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
        for k in ks:
            votes = np.zeros((len(truth), len(classes)))
            np.add.at(votes, (np.arange(len(truth))[:, None], codes[nearest[:, :k]]), weight[:, :k])
            wrong[k] += int(np.sum(classes[votes.argmax(axis=1)] != truth))
    return {k: count / len(query_labels) for k, count in wrong.items()}


def _normalize(features: F32) -> F32:
    """Scale rows to length 1; rows of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True).astype(np.float32)
    unit: F32 = features / np.where(length > 0, length, np.float32(1))
    return unit
