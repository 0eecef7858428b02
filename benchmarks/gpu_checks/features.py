"""Group `features`: embeddings on the device are the CPU's and depend on no neighbour; exact search is exact."""

import importlib.util
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from galirep.data.arrays import ArraySource
from galirep.data.sources import ImageSource
from galirep.features.extraction import extract
from galirep.features.gali import build_random
from galirep.features.network import NetworkExtractor
from galirep.features.protocol import FeatureExtractor
from galirep.features.raw_pixels import build as build_pixels
from galirep.search.distances import METRICS, prepare_vectors
from galirep.search.nearest import FaissScan, Scan, Search, TorchScan
from gpu_checks.harness.check import Check, Figure, Setup, Skip, require
from gpu_checks.subjects import images, torchscript_m

COSINE_TOLERANCE = 1e-5
"""Largest 1 - cosine of a feature on the device and on the CPU. Float32 rounding turns a vector by some 1e-7 a layer, a
cosine by its square; a TF32 convolution would turn it by about 1e-3 a layer, which gives 1e-5 after ten."""
MATES_TOLERANCE = 0.0
"""Largest difference, relative to the largest feature, that the other images of a batch make: none, for each row is
computed alone and by the same kernels."""
SIZE_TOLERANCE = 1e-4
"""The same for the size of a batch, by which libraries choose their kernels, and with them the order of sums."""
DISTANCE_TOLERANCE = 1e-5
"""Largest relative difference of a distance from numpy's in float64."""

Build = Callable[[Setup], FeatureExtractor]
Features = NDArray[np.float32]


def _compact(setup: Setup) -> FeatureExtractor:
    return build_random(f"compact,size=16,width={4 if setup.quick else 32}")


def _svhn32(setup: Setup) -> FeatureExtractor:  # noqa: ARG001
    return build_random("svhn32")


def _pixels(setup: Setup) -> FeatureExtractor:  # noqa: ARG001
    return build_pixels("8")


def _torchscript(setup: Setup) -> FeatureExtractor:  # noqa: ARG001
    return torchscript_m(3)


def _timm(setup: Setup) -> FeatureExtractor:
    if importlib.util.find_spec("timm") is None:
        raise Skip("timm not installed")
    import timm

    name, size = ("resnet18", 64) if setup.quick else ("vit_small_patch16_224", 224)
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0)
    return NetworkExtractor(network, name=name, image_size=size)


def _source(n: int, size: int) -> ImageSource:
    return ArraySource("synthetic", images(n, size).pixels)


def _size_of(extractor: FeatureExtractor) -> int:
    return getattr(extractor, "image_size", None) or 32


def _features(extractor: FeatureExtractor, source: ImageSource, device: str, batch_size: int = 64) -> Features:
    return extract(extractor, source, batch_size=batch_size, num_workers=0, device=device)[0]


def against_cpu(setup: Setup, build: Build) -> Figure:
    """Compare the features of images on both devices by their cosine."""
    extractor = build(setup)
    source = _source(16 if setup.quick else 96, _size_of(extractor))
    there = _features(extractor, source, "cpu").astype(np.float64)
    here = _features(extractor, source, str(setup.device)).astype(np.float64)
    norms = np.linalg.norm(there, axis=1) * np.linalg.norm(here, axis=1)
    worst = float(np.max(1 - (there * here).sum(1) / np.maximum(norms, 1e-30)))
    text = f"{len(source)} images, {there.shape[1]} features, 1 - cosine at most {worst:.1e}"
    return require(worst <= COSINE_TOLERANCE, text, {"one_minus_cosine": worst})


def independent(setup: Setup, build: Build) -> Figure:
    """Embed the same images among others, and in batches of other sizes."""
    extractor, device = build(setup), str(setup.device)
    size = _size_of(extractor)
    batch = 8 if setup.quick else 64
    mine, others = images(batch, size).pixels, images(batch, size, seed=1).pixels
    half = batch // 2
    mixed = np.concatenate([mine[:half], others[half:]])

    def embedded(pixels: NDArray[np.uint8], batch_size: int) -> Features:
        return _features(extractor, ArraySource("synthetic", pixels), device, batch_size)

    plain = embedded(mine, batch)
    largest = float(np.abs(plain).max())
    mates = float(np.abs(embedded(mixed, batch)[:half] - plain[:half]).max()) / largest
    sizes = max(float(np.abs(embedded(mine, b) - plain).max()) / largest for b in (1, 7))
    text = f"other mates {mates:.0e} (at most {MATES_TOLERANCE:g})"
    text += f", batches of 1 and 7 {sizes:.0e} (at most {SIZE_TOLERANCE:g})"
    return require(mates <= MATES_TOLERANCE and sizes <= SIZE_TOLERANCE, text, {"mates": mates, "sizes": sizes})


def _judge_search(setup: Setup, scan_of: Callable[[Features, str], Scan]) -> Figure:
    """Search with every metric and compare each rank with numpy: another row is let pass where it is just as near."""
    n, dim, k = (500, 32, 10) if setup.quick else (20_000, 256, 10)
    draw = np.random.default_rng(0)
    rows, queries = (draw.normal(size=(m, dim)).astype(np.float32) for m in (n, 64))
    # a tie: of two equal rows the lower comes first
    rows[n // 2] = queries[0] = rows[3]
    values = {}
    for metric in METRICS:
        gallery, asked = (prepare_vectors(v, metric, str, "the gallery") for v in (rows, queries))
        distances, found = Search(scan_of(gallery, metric), metric, n, gallery)(asked, k)
        every = _by_numpy(gallery, asked, metric)
        nearest = np.sort(every, axis=1)[:, :k]
        scale = max(1.0, float(np.abs(nearest).max()))
        chosen = np.take_along_axis(every, found, axis=1)
        values[metric] = {
            "other_rows": int((np.abs(chosen - nearest) > DISTANCE_TOLERANCE * scale).sum()),
            "distance": float(np.abs(distances - chosen).max()) / scale,
            # under ip a longer row may be nearer than the query's equal
            "tie_by_row": metric == "ip" or found[0, :2].tolist() == [3, n // 2],
        }
    bad = [v for v in values.values() if v["other_rows"] or v["distance"] > DISTANCE_TOLERANCE or not v["tie_by_row"]]
    text = ", ".join(f"{m}: {v['other_rows']} other rows, distances {v['distance']:.0e}" for m, v in values.items())
    return require(not bad, f"{k} of {n} rows; {text}", values)


def _by_numpy(rows: Features, queries: Features, metric: str) -> NDArray[np.float64]:
    """Return the distances of every query to every row in float64."""
    a, b = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        # differences, not products: the distance of equal rows is 0
        return np.stack([np.linalg.norm(b - query, axis=1) for query in a])
    return (1.0 if metric == "cosine" else 0.0) - a @ b.T


def torch_search(setup: Setup) -> Figure:
    """Compare torch's exact search on the device with numpy."""
    return _judge_search(setup, lambda rows, metric: TorchScan(rows, metric, str(setup.device)))


def faiss_search(setup: Setup) -> Figure:
    """Compare faiss's flat index on the device with numpy."""
    if importlib.util.find_spec("faiss") is None:
        raise Skip("faiss not installed")
    from galirep.search.faiss_library import faiss_metric, gpu_count, load_faiss

    faiss = load_faiss()
    if setup.on_card and not gpu_count():
        raise Skip("this faiss is for CPUs: faiss-gpu not installed")

    def scan(rows: Features, metric: str) -> Scan:
        index = faiss.IndexFlat(rows.shape[1], faiss_metric(metric))
        index.add(rows)
        return FaissScan(index, metric, str(setup.device))

    return _judge_search(setup, scan)


_EXTRACTORS: dict[str, Build] = {
    "compact": _compact,
    "svhn32": _svhn32,
    "pixels": _pixels,
    "TorchScript": _torchscript,
    "timm": _timm,
}
CHECKS = [
    *(Check(f"embed as on the CPU, {name}", partial(against_cpu, build=build)) for name, build in _EXTRACTORS.items()),
    *(
        Check(f"independent of its batch, {name}", partial(independent, build=build))
        for name, build in _EXTRACTORS.items()
    ),
    Check("torch's exact search against numpy", torch_search),
    Check("faiss on the device against numpy", faiss_search),
]
