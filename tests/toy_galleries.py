"""Small embedding files with classes that lie in clusters, and what is true of them by a full sort."""

import numpy as np

import galirep
from galirep.store import EmbeddingWriter, StoreMeta

NAMES = ("ant", "bee", "cat", "dog")


def clusters(n, dim=16, seed=0):
    r = np.random.default_rng(seed)
    labels = r.integers(0, len(NAMES), n)
    return (np.random.default_rng(99).normal(size=(len(NAMES), dim))[labels] + r.normal(size=(n, dim))).astype(np.float32), labels


def write_embeddings(path, features, labels=None, *, names=NAMES, ids=None, layers=None, **meta):
    ids = ids or [f"{path.stem}/{i:04d}.png" for i in range(len(features))]
    fields = {"encoder": "toy", "layers": layers or (("h", features.shape[1] - 4), ("mu", 4)), "fingerprint": path.stem, **meta}
    writer = EmbeddingWriter.create(path, StoreMeta(n_expected=len(features), label_names=names, **fields), ids, labels)
    writer.append(features)
    return writer.finish()


def cosines_of(path, other=None):
    with galirep.load_embeddings(path) as a, galirep.load_embeddings(other or path) as b:
        x, y = (np.asarray(e.features, dtype=np.float64) for e in (a, b))
        return x / np.linalg.norm(x, axis=1, keepdims=True) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T, a.labels, b.labels
