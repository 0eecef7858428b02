"""`fid` and `kid`: samples of the prior against real images, in the features of a network."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from galirep.data.tensors import ImageFunction
from galirep.errors import ConfigError, DataError
from galirep.evaluation.images import note_unreadable
from galirep.evaluation.measures import fidelity
from galirep.evaluation.measures.scene import Measure, Network, Pixels, Scene, Score, features_of, train_key
from galirep.metrics.arrays import F32

_DEFAULT_SAMPLES = 10_000
_FEW = 10  # images below which nothing is compared
Distance = Callable[[F32, F32], tuple[float, float | None]]


def _fid(scene: Scene) -> Score:
    return _compare(scene, "fid", lambda a, b: (fidelity.frechet(a, b), None))


def _kid(scene: Scene) -> Score:
    return _compare(scene, "kid", lambda a, b: fidelity.kernel_distance(a, b, scene.options.seed))


def _compare(scene: Scene, metric: str, distance: Distance) -> Score:
    network = _network(scene, metric)
    # images that cannot be read are known now
    n = min(sample_count(scene), len(scene.images))
    real, generated = _reference(scene, network, n), _samples(scene, network, n)
    mean, std = distance(generated, real)
    if "precision" not in scene.own:
        scene.own["precision"] = fidelity.precision_recall(generated, real)
    details = {
        "label": _label(metric, network, n),
        "floor": _floor(scene, metric, network, n, distance),
        **scene.own["precision"],
        "neighbors": fidelity.NEIGHBORS,
        "extractor": network.record(),
    }
    warnings = note_unreadable(scene.train(n), "training")
    return Score(mean, std, "" if std is None else f"{fidelity.KID_SUBSETS} subsets", n, details, warnings=warnings)


def _reference(scene: Scene, network: Network, n: int) -> F32:
    key = ("reference", network.about.spec, n, scene.shape)
    if key not in scene.cache:
        scene.cache[key] = _real(scene, network, scene.images.pixels[drawn_rows(scene, n)], "reference")
    features: F32 = scene.cache[key]
    return features


def _real(scene: Scene, network: Network, pixels: Pixels, what: str) -> F32:
    return features_of(network.extract, scene.blocks(what, pixels), f"the {what} images")


def _samples(scene: Scene, network: Network, n: int) -> F32:
    generate: ImageFunction = scene.need("generate")
    if "samples" not in scene.own:
        images = (fidelity.as_written(generate(z)) for z in scene.latents(n, "samples"))
        scene.own["samples"] = features_of(network.extract, images, f"samples of {scene.subject.name}")
    features: F32 = scene.own["samples"]
    return features


def _floor(scene: Scene, metric: str, network: Network, n: int, distance: Distance) -> dict[str, Any]:
    """Return the distance of real images from real ones: what a perfect generator would have, about.

    It is of as many training images as there are samples, against the reference; without these, of the two halves of
    the reference, which with half the images has the larger bias.
    """
    key = ("floor", metric, network.about.spec, n, scene.shape, scene.options.seed)
    if key in scene.cache:
        return dict(scene.cache[key])
    real, train = _reference(scene, network, n), scene.train(n)
    if train is not None and len(train) >= n:
        sides = _real(scene, network, train.pixels, "training"), real
        text = f"{n} training images ({train.spec}, split {train.split}) against the reference"
    else:
        order = np.random.default_rng(scene.options.seed).permutation(n)
        sides = real[order[: n // 2]], real[order[n // 2 : n // 2 * 2]]
        text = f"two halves of the reference, {n // 2} images each"
    rows = len(sides[0])
    floor: dict[str, Any] = {"mean": None, "std": None, "n": rows, "of": text}
    if metric == "fid" and rows <= network.about.dim:
        floor["of"] = f"{text}: too few for {network.about.dim} features"
    else:
        floor["mean"], floor["std"] = distance(*sides)
    scene.cache[key] = floor
    return dict(floor)


def sample_count(scene: Scene) -> int:
    """Return how many samples are compared with as many real images.

    Raises:
        ConfigError: --samples is above the number of images.
    """
    images, samples = len(scene.source), scene.options.samples
    if samples is not None and samples > images:
        raise ConfigError(
            f"--samples {samples}: the data has {images} images, and both sides have the same number: "
            f"pass {images} or fewer"
        )
    return min(images, _DEFAULT_SAMPLES) if samples is None else samples


def drawn_rows(scene: Scene, n: int) -> Any:
    """Return the n rows of the images that are the reference, ascending; the seed decides."""
    return np.sort(np.random.default_rng(scene.options.seed).permutation(len(scene.images))[:n])


def _network(scene: Scene, metric: str) -> Network:
    if scene.fidelity is None:
        raise ConfigError(
            f"{metric} needs a feature network: give FID's Inception with --inception FILE, where FILE is "
            f"{fidelity.WEIGHTS}; or any network with --extractor"
        )
    return scene.fidelity


def _plan(scene: Scene, metric: str) -> dict[str, Any]:
    network, n = _network(scene, metric), sample_count(scene)
    fidelity.library()
    if n < _FEW:
        raise DataError(f"{metric} needs {_FEW} or more images, not {n}: choose a larger split or more --samples")
    settings: dict[str, Any] = {
        "seed": scene.options.seed,
        "samples": n,
        "library": fidelity.library_name(),
        "extractor": network.key(),
        "floor_train": train_key(scene),
    }
    if metric == "kid":
        return {**settings, "subsets": fidelity.KID_SUBSETS, "subset_size": fidelity.kid_subset_size(n)}
    if n <= network.about.dim:
        raise DataError(
            f"fid of {n} images in {network.about.dim} features of {network.about.spec}: the covariance has no full "
            f"rank, take more than {network.about.dim} images, a network with fewer features, or kid"
        )
    return settings


def _label(metric: str, network: Network, n: int) -> str:
    about, preprocessing = network.about, network.about.preprocessing
    resize = f"{preprocessing.get('resize', 'none')}, {preprocessing.get('size') or 'native'}"
    name = {"fid": "Fréchet distance", "kid": "kernel distance"}[metric]
    weights = about.sha256[:8] or about.tag or "no hash"
    return f"{name} in {about.name} ({weights}), n {n}, resize {resize}, {fidelity.library_name()}"


def _line(entry: Mapping[str, Any], digits: int) -> str:
    floor = entry["floor"]["mean"]
    std = "" if entry["std"] is None else f" ± {entry['std']:.{digits}f}"
    real = "none" if floor is None else f"{floor:.{digits}f}"
    return (
        f"{entry['mean']:.{digits}f}{std}  (real against real {real}: {entry['floor']['of']}; "
        f"precision {entry['precision']:.3f}, recall {entry['recall']:.3f}; {entry['label']})"
    )


FID = Measure(
    "Fréchet distance of samples from real images, by torch-fidelity",
    ("generate",),
    lambda scene: _plan(scene, "fid"),
    _fid,
    lambda entry: _line(entry, 2),
)
KID = Measure(
    "kernel distance of samples from real images, by torch-fidelity",
    ("generate",),
    lambda scene: _plan(scene, "kid"),
    _kid,
    lambda entry: _line(entry, 5),
)
