"""Small sound files of every format, made by galirep itself, for soaks to damage, kill and fill disks with."""

import csv
import os
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 8
TRAIN = {
    "networks": "compact",
    "width": 4,
    "latent_dim": 4,
    "image_size": SIZE,
    "channels": 1,
    "batch_size": 8,
    "log_every": 1,
    "sample_every": 0,
    "holdout": 8,
    "num_workers": 0,
    "device": "cpu",
}
CLASSIFY = {"net": "compact", "image_size": SIZE, "channels": 1, "batch_size": 8, "device": "cpu", "width": 4}
STUDY = """name = "mine"
columns = ["pixel_mse"]
rows = [{ name = "a", settings = { width = 4 } }, { name = "b", kind = "mean-image" }]
sets = [{ name = "digits", data = "digits", image_size = 8, updates = 2, seeds = [0] }]
claims = [{ text = "a is better", better = "a", than = ["b"], columns = ["pixel_mse"] }]
"""
VARIANT = """name = "mine"
classes = [["x", "E(x)"], ["G(z)", "z"], ["y", "E(y)"]]
penalties = [["l2", "x", "G(E(x))", 1.0]]
where = { y = "G(E(x))" }
"""


def pictures(folder: Path, count: int = 24, classes: int = 2, first: int = 0) -> Path:
    """Write small grey PNG files in class folders."""
    draw = np.random.default_rng(first)
    for i in range(count):
        path = folder / f"class{i % classes}" / f"{first + i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)).save(path)
    return folder


def make_samples(folder: Path) -> Path:
    """Make one of each: images, run, classifier, embeddings, index, export of both kinds, arrays, tables.

    They name each other by relative paths, so that a copy of the folder stands for itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        _make_data()
        _make_results()
    finally:
        os.chdir(before)
    return folder


def _make_data() -> None:
    images = pictures(Path("images"))
    with tarfile.open("images.tar", "w") as tar:
        tar.add(images, "images")
    with Path("list.csv").open("w", newline="") as file:
        rows = [(str(p), p.parent.name) for p in sorted(images.rglob("*.png"))]
        csv.writer(file).writerows([("path", "label"), *rows])
    draw = np.random.default_rng(1)
    pixels, labels = draw.integers(0, 256, (20, SIZE, SIZE), dtype=np.uint8), np.arange(20) % 2
    np.savez("plain.npz", images=pixels, labels=labels)
    np.savez_compressed("packed.npz", images=pixels.astype(np.float32) / 255, labels=labels)
    Path("study.toml").write_text(STUDY)
    Path("variant.toml").write_text(VARIANT)


def _make_results() -> None:
    import galirep
    from galirep.supervised.config import ClassifierConfig
    from galirep.training.config import TrainConfig

    galirep.train(TrainConfig.from_dict({**TRAIN, "data": "images", "steps": 2}), out="run")
    galirep.train_classifier(ClassifierConfig.from_dict({**CLASSIFY, "data": "images", "epochs": 1}), out="classifier")
    galirep.embed("run", "images", "a.h5", num_workers=0, device="cpu")
    pictures(Path("more"), first=100)
    galirep.embed("run", "more", "b.h5", num_workers=0, device="cpu")
    if find_spec("faiss"):
        galirep.build_index("a.h5", "a.faiss")
    if find_spec("pyarrow"):
        galirep.export_embeddings("a.h5", "tables")
    galirep.evaluate("run", "images", metrics=["pixel-mse"], out="evaluation.json", num_workers=0)
