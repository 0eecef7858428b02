"""Small embedding files whose classes are clusters, their cosine similarities, and small picture folders."""

import numpy as np
from PIL import Image

import galirep
from galirep.embeddings.schema import StoreMeta
from galirep.embeddings.writer import EmbeddingWriter

NAMES = ("ant", "bee", "cat", "dog")


def clusters(n, dim=16, seed=0):
    r = np.random.default_rng(seed)
    labels = r.integers(0, len(NAMES), n)
    return (np.random.default_rng(99).normal(size=(len(NAMES), dim))[labels] + r.normal(size=(n, dim))).astype(
        np.float32
    ), labels


def write_embeddings(path, features, labels=None, *, names=NAMES, ids=None, layers=None, **meta):
    ids = ids or [f"{path.stem}/{i:04d}.png" for i in range(len(features))]
    fields = {
        "encoder": "toy",
        "layers": layers or (("h", features.shape[1] - 4), ("mu", 4)),
        "fingerprint": path.stem,
        **meta,
    }
    writer = EmbeddingWriter.create(path, StoreMeta(n_expected=len(features), label_names=names, **fields), ids, labels)
    writer.append(np.asarray(features, np.float32))
    return writer.finish()


def cosines_of(path, other=None):
    with galirep.load_embeddings(path) as a, galirep.load_embeddings(other or path) as b:
        x, y = (np.asarray(e.features, dtype=np.float64) for e in (a, b))
        return (
            x / np.linalg.norm(x, axis=1, keepdims=True) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T,
            a.labels,
            b.labels,
        )


def draw_pictures(folder, n, seed, classes=3):
    """Write n noisy pictures of similar colours within a class; some neighbours are still of another class."""
    r = np.random.default_rng(seed)
    colours = np.array([[200, 60, 60], [60, 180, 90], [70, 90, 210], [200, 180, 60]])
    for i in range(n):
        path = folder / f"class{i % classes}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(colours[i % classes] + r.normal(0, 60, 3) + r.normal(0, 30, (24, 24, 3)), 0, 255).astype(
            np.uint8
        )
        Image.fromarray(pixels).save(path)
