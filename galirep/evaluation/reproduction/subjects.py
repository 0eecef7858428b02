"""What a row of a study is when it is made: functions of images and latents, trained or fitted here if need be."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from galirep.data.memory import Images
from galirep.data.tensors import ImageFunction
from galirep.errors import ConfigError
from galirep.evaluation import baselines
from galirep.evaluation.reproduction.budget import spend
from galirep.evaluation.reproduction.study import ImageSet, Row, settings_on
from galirep.features.gali import GaliEncoder
from galirep.features.protocol import FeatureExtractor, describe
from galirep.features.registry import load_extractor
from galirep.game.variants import get_variant
from galirep.networks.families import family
from galirep.networks.parts import Encoder, Shapes
from galirep.networks.saved import load_autoencoder
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.loop import train_classifier
from galirep.training.config import TrainConfig
from galirep.training.loop import train
from galirep.training.plan import resolve

_QUIET = {"sample_every": 0, "log_every": 500, "evaluate_every": 2000, "checkpoint_every": 1000}


@dataclass(frozen=True)
class Subject:
    """Functions of images (B, C, S, S) in [-1, 1] and latents (B, latent); None where a row has no such function.

    `features` are what a probe reads, `rebuild` gives reconstructions, `inpaint` the same of erased images, `encode`
    mu. `facts` are recorded with the result: updates, CPU minutes, layers, hashes. `run` is the run directory of a row
    of kind train.
    """

    facts: Mapping[str, Any]
    latent: int | None = None
    features: ImageFunction | None = None
    rebuild: ImageFunction | None = None
    inpaint: ImageFunction | None = None
    encode: ImageFunction | None = None
    generate: ImageFunction | None = None
    run: Path | None = None


@dataclass(frozen=True)
class Place:
    """Where a row is made: the set, its training images, the folder of its run, M, and the runs of other rows."""

    image_set: ImageSet
    images: Images
    folder: Path
    knowledge: Path | None = None
    others: Callable[[str], Path] = Path  # name of a row -> its run directory, at the same seed


def make(row: Row, seed: int, place: Place) -> Subject:
    """Train or fit a row; what is trained already is taken from its folder."""
    return _MAKERS[row.kind](row, seed, place)


def train_config(row: Row, seed: int, place: Place, **more: Any) -> TrainConfig:
    """Return the settings of a row of kind train: those of the set under those of the row."""
    image_set = place.image_set
    common = {"data": place.images.spec, "image_size": image_set.image_size, "steps": None, "epochs": None}
    settings = {**common, **_QUIET, **settings_on(row, image_set), "seed": seed}
    if "steps" in more:
        settings |= {"epochs": None}
    settings |= more
    if settings.get("adapter") == "knowledge":
        settings["adapter"] = f"classifier:{place.knowledge}"
    return TrainConfig.from_dict(settings)


def _train(row: Row, seed: int, place: Place) -> Subject:
    def run(out: Path, steps: int, *, resume: bool = False, **more: Any) -> None:
        config = train_config(row, seed, place, steps=steps, **more)
        train(config, place.images, out=out, resume=resume, overwrite=not resume)

    def trial(out: Path, steps: int) -> None:
        run(out, steps, holdout=0, evaluate_every=0)

    facts = spend(place.image_set, place.folder, trial, run, lambda: _updates(row, seed, place))
    return of_run(place.folder / "run", facts)


def _updates(row: Row, seed: int, place: Place) -> int:
    """Return the updates that the epochs of a row come to."""
    config = train_config(row, seed, place)
    if config.epochs is None:
        config = replace(config, epochs=place.image_set.epochs)
    return resolve(config, get_variant(config.variant), place.images).steps


def of_run(run: Path, facts: Mapping[str, Any]) -> Subject:
    """Return the subject that a finished run is."""
    extractor = load_extractor(f"run:{run}")
    encoder, generator, header = load_autoencoder(run)
    masked = encoder
    if "masked" in header.get("statistics", []):
        masked, _, _ = load_autoencoder(run, statistics="masked")
    facts = {**facts, "layers": _layers(extractor), "sha256": header["sha256"], "step": header["step"]}
    return Subject(
        facts,
        encoder.latent,
        extractor,
        lambda x: generator(encoder(x)[0]),
        lambda x: generator(masked(x)[0]),
        lambda x: encoder(x)[0],
        generator,
        run,
    )


def _views(row: Row, seed: int, place: Place) -> Subject:
    settings = {"image_size": place.image_set.image_size, **row.settings, "seed": seed, "data": place.images.spec}

    def run(out: Path, steps: int, *, resume: bool = False) -> None:
        config = ClassifierConfig.from_dict({**settings, "steps": steps, "epochs": None})
        train_classifier(config, out=out, resume=resume, overwrite=not resume)

    epochs = place.image_set.epochs or 1.0
    batch = ClassifierConfig.from_dict(settings).batch_size
    facts = spend(place.image_set, place.folder, run, run, lambda: math.ceil(epochs * len(place.images) / batch))
    extractor = load_extractor(f"classifier:{place.folder / 'run'}")
    return Subject({**facts, "layers": _layers(extractor)}, features=extractor)


def _networks(row: Row, place: Place) -> str:
    settings = {**place.image_set.settings, **row.settings}
    return str(settings.get("networks", "compact"))


def _untrained(row: Row, seed: int, place: Place) -> Subject:
    _, channels, size, _ = place.images.pixels.shape
    config = train_config(Row(row.name), seed, place)
    latent = config.latent_dim or family(_networks(row, place), size)[1].latent
    spec = (
        f"random:{family(_networks(row, place), size)[0]},size={size},channels={channels},width={config.width},"
        f"latent={latent},seed={seed}"
    )
    extractor = load_extractor(spec, layers=row.settings.get("layers"))
    return Subject({"layers": _layers(extractor)}, features=extractor)


def _pixels(row: Row, seed: int, place: Place) -> Subject:  # noqa: ARG001
    return Subject({}, features=baselines.raw_pixels().extract)


def _mean_image(row: Row, seed: int, place: Place) -> Subject:  # noqa: ARG001
    mean = baselines.mean_image(place.images.pixels).rebuild
    return Subject({}, rebuild=mean, inpaint=mean)


def _pca(row: Row, seed: int, place: Place) -> Subject:  # noqa: ARG001
    components = row.settings.get("components") or train_config(Row(row.name), 0, place).latent_dim or 64
    pca = baselines.fit_pca(place.images.pixels, components)
    return Subject({"components": components}, features=pca.extract, rebuild=pca.rebuild)


def _autoencoder(row: Row, seed: int, place: Place) -> Subject:
    image_set = place.image_set
    trained = baselines.train_autoencoder(
        place.images.pixels, _networks(row, place), minutes=image_set.minutes, updates=image_set.updates, seed=seed
    )
    encoder, generator = trained.encoder, trained.generator
    features = _default_features(encoder, place)
    return Subject(
        {"updates": trained.updates, "cpu_minutes": image_set.minutes, "layers": _layers(features)},
        features=features,
        rebuild=lambda x: generator(encoder(x)[0]),
        inpaint=lambda x: generator(encoder(x)[0]),
    )


def _inverter(row: Row, seed: int, place: Place) -> Subject:
    assert row.of is not None
    _, generator, header = load_autoencoder(place.others(row.of))
    image_set, shapes = place.image_set, Shapes(**header["shapes"])
    trained = baselines.train_inverter(
        generator,
        shapes.latent,
        place.images.pixels.shape[1:],
        header["networks"],
        width=shapes.width,
        minutes=image_set.minutes,
        updates=image_set.updates,
        seed=seed,
    )
    encoder = trained.encoder
    features = _default_features(encoder, place)
    return Subject(
        {"updates": trained.updates, "cpu_minutes": image_set.minutes, "layers": _layers(features)},
        encoder.latent,
        features,
        lambda x: generator(encoder(x)[0]),
        lambda x: generator(encoder(x)[0]),
        lambda x: encoder(x)[0],
        generator,
    )


def _layers(extractor: FeatureExtractor) -> list[str]:
    return list(dict(describe(extractor).layers))


def _default_features(encoder: Encoder, place: Place) -> GaliEncoder:
    _, channels, size, _ = place.images.pixels.shape
    return GaliEncoder(encoder, Shapes(size=size, channels=channels, latent=encoder.latent), name="E")


def _knowledge(row: Row, seed: int, place: Place) -> Subject:  # noqa: ARG001
    if place.knowledge is None:
        raise ConfigError(f"row {row.name!r} is M itself, and the set {place.image_set.name!r} gives no knowledge")
    extractor = load_extractor(f"classifier:{place.knowledge}")
    return Subject({"layers": _layers(extractor)}, features=extractor)


_MAKERS: Mapping[str, Callable[[Row, int, Place], Subject]] = {
    "train": _train,
    "views": _views,
    "untrained": _untrained,
    "pixels": _pixels,
    "mean-image": _mean_image,
    "pca": _pca,
    "autoencoder": _autoencoder,
    "inverter": _inverter,
    "knowledge": _knowledge,
}
