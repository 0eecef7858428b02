"""How each kind of row is made: trained within its budget, fitted, or taken from its folder if it is there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from galirep.data.memory import Images
from galirep.errors import ConfigError
from galirep.evaluation import baselines
from galirep.evaluation.reproduction.budget import spend
from galirep.evaluation.reproduction.made import Made, layer_sets
from galirep.evaluation.reproduction.study import ImageSet, Row, reference, settings_on
from galirep.evaluation.subjects import Subject, baseline_subject, load_subject, network_subject
from galirep.features.gali import GaliEncoder
from galirep.features.protocol import FeatureExtractor, describe
from galirep.features.registry import load_extractor
from galirep.game.variants import get_variant
from galirep.networks.families import family
from galirep.networks.parts import Encoder, Shapes
from galirep.networks.saved import load_autoencoder
from galirep.runs.directory import RunDirectory
from galirep.runs.metrics import MetricsRow
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.loop import train_classifier
from galirep.training.config import TrainConfig
from galirep.training.loop import train
from galirep.training.plan import resolve

_QUIET = {"sample_every": 0, "log_every": 500, "evaluate_every": 2000, "checkpoint_every": 1000}
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    """Where a row is made: the set, its training images, the folder of its run, M, and the runs of other rows."""

    image_set: ImageSet
    images: Images
    folder: Path
    knowledge: Path | None = None
    others: Callable[[str], Path] = Path  # name of a row -> its run directory, at the same seed
    trust_encoder: bool = False
    force_unlock: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """The side of the images, pixels, and their channels."""
        _, channels, size, _ = self.images.pixels.shape
        return size, channels

    def resolve(self, text: str) -> str:
        """Return a setting with `{NAME}` of a row replaced by its run, `{knowledge}` by the run of M."""
        name = reference(text)
        if name is None:
            return text
        prefix = text.removesuffix(f"{{{name}}}")
        run = self.knowledge if name == "knowledge" else self.others(name)
        if run is None:
            raise ConfigError(f"{text!r}: the set {self.image_set.name!r} gives no knowledge")
        return f"{prefix}{run}"


def make(row: Row, seed: int, place: Place) -> Made:
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
    texts = {key: place.resolve(value) for key, value in settings.items() if isinstance(value, str)}
    return TrainConfig.from_dict({**settings, **texts})


def _train(row: Row, seed: int, place: Place) -> Made:
    def run(out: Path, steps: int, *, resume: bool = False, **more: Any) -> None:
        config = train_config(row, seed, place, steps=steps, **more)
        unlock = place.force_unlock
        train(config, place.images, out=out, resume=resume, overwrite=not resume, force_unlock=unlock)

    def trial(out: Path, steps: int) -> None:
        run(out, steps, holdout=0, evaluate_every=0)

    facts = spend(place.image_set, place.folder, trial, run, lambda: _updates(row, seed, place))
    run_directory = RunDirectory(place.folder / "run")
    subject = load_subject(run_directory.path, _CPU, trust_encoder=place.trust_encoder)
    rows = [MetricsRow.from_dict(row) for row in run_directory.metrics()]
    extractor = load_extractor(f"run:{run_directory.path}", trust_encoder=place.trust_encoder)
    norms = [row.gradient_norms["G"] for row in rows]
    return _made(subject, extractor, {**facts, **subject.facts}, norms)


def _updates(row: Row, seed: int, place: Place) -> int:
    """Return the updates that the epochs of a row come to."""
    config = train_config(row, seed, place)
    if config.epochs is None:
        config = replace(config, epochs=place.image_set.epochs)
    return resolve(config, get_variant(config.variant), place.images).steps


def _made(subject: Subject, extractor: FeatureExtractor, facts: Mapping[str, Any], norms: Sequence[float] = ()) -> Made:
    """Return a row whose features are those of an extractor."""
    layers = list(dict(describe(extractor).layers))
    return Made(subject, extractor, layer_sets(extractor), norms, {**facts, "layers": layers})


def _views(row: Row, seed: int, place: Place) -> Made:
    settings = {"image_size": place.image_set.image_size, **settings_on(row, place.image_set), "seed": seed}
    settings |= {"data": place.images.spec, "split": place.image_set.split}

    def run(out: Path, steps: int, *, resume: bool = False) -> None:
        config = ClassifierConfig.from_dict({**settings, "steps": steps, "epochs": None})
        train_classifier(config, out=out, resume=resume, overwrite=not resume, force_unlock=place.force_unlock)

    epochs = place.image_set.epochs or 1.0
    batch = ClassifierConfig.from_dict(settings).batch_size
    facts = spend(place.image_set, place.folder, run, run, lambda: math.ceil(epochs * len(place.images) / batch))
    subject = load_subject(f"classifier:{place.folder / 'run'}", _CPU)
    return _made(subject, load_extractor(f"classifier:{place.folder / 'run'}"), facts)


def _shapes(row: Row, place: Place) -> tuple[str, Shapes]:
    """Return the network family and the sizes that a GALI run of these settings would have on the set."""
    size, channels = place.shape
    config = train_config(Row(row.name, settings=row.settings), 0, place)
    networks, chosen = family(config.networks, size)
    return networks, Shapes(size, channels, config.latent_dim or chosen.latent, config.width, norm=config.norm)


def _untrained(row: Row, seed: int, place: Place) -> Made:
    networks, shapes = _shapes(row, place)
    sizes = f"size={shapes.size},channels={shapes.channels},width={shapes.width},latent={shapes.latent}"
    extractor = load_extractor(f"random:{networks},{sizes},norm={shapes.norm},seed={seed}")
    subject = Subject(row.name, "baseline", shapes.size, shapes.channels, extract=extractor)
    return _made(subject, extractor, {})


def _fitted(name: str, baseline: baselines.Baseline, place: Place, **facts: Any) -> Made:
    sets = {} if baseline.extract is None else {"own": baseline.extract}
    return Made(baseline_subject(name, baseline, *place.shape), baseline.extract, sets, (), facts)


def _pixels(row: Row, seed: int, place: Place) -> Made:  # noqa: ARG001
    return _fitted(row.name, baselines.raw_pixels(), place)


def _mean_image(row: Row, seed: int, place: Place) -> Made:  # noqa: ARG001
    return _fitted(row.name, baselines.mean_image(place.images.pixels), place)


def _pca(row: Row, seed: int, place: Place) -> Made:  # noqa: ARG001
    components = row.settings.get("components") or _shapes(row, place)[1].latent
    return _fitted(row.name, baselines.fit_pca(place.images.pixels, components), place, components=components)


def _autoencoder(row: Row, seed: int, place: Place) -> Made:
    image_set, (networks, shapes) = place.image_set, _shapes(row, place)
    trained = baselines.train_autoencoder(
        place.images.pixels,
        networks,
        width=shapes.width,
        latent=shapes.latent,
        minutes=image_set.minutes,
        updates=image_set.updates,
        seed=seed,
    )
    return _networks(row, trained, shapes)


def _inverter(row: Row, seed: int, place: Place) -> Made:
    assert row.of is not None
    _, generator, header = load_autoencoder(place.others(row.of))
    image_set, shapes = place.image_set, Shapes(**header["shapes"])
    trained = baselines.train_inverter(
        generator,
        shapes,
        header["networks"],
        minutes=image_set.minutes,
        updates=image_set.updates,
        seed=seed,
    )
    return _networks(row, trained, shapes)


def _networks(row: Row, trained: baselines.Autoencoder, shapes: Shapes) -> Made:
    encoder: Encoder = trained.encoder
    extractor = GaliEncoder(encoder, shapes, name=row.name)
    subject = network_subject(row.name, encoder, trained.generator, shapes, extractor=extractor)
    return _made(subject, extractor, {"updates": trained.updates})


def _knowledge(row: Row, seed: int, place: Place) -> Made:  # noqa: ARG001
    if place.knowledge is None:
        raise ConfigError(f"row {row.name!r} is M itself, and the set {place.image_set.name!r} gives no knowledge")
    spec = f"classifier:{place.knowledge}"
    return _made(load_subject(spec, _CPU), load_extractor(spec), {})


_MAKERS: Mapping[str, Callable[[Row, int, Place], Made]] = {
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
