"""Validate settings, load data, build the session. Nothing is written to disk."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from galirep.data.batches import Batches
from galirep.data.handed.datasets import chosen_data, open_images
from galirep.data.memory import Images, load_images, native_side
from galirep.data.report import announce
from galirep.data.sources import ImageSource
from galirep.data.tensors import ImageFunction
from galirep.errors import ConfigError, DataError, GalirepError
from galirep.features.protocol import FeatureExtractor
from galirep.game.variant import Variant
from galirep.game.variants import get_variant
from galirep.networks.families import family
from galirep.networks.parts import Shapes
from galirep.runs.directory import RunDirectory
from galirep.runs.initial_weights import load_initial_weights
from galirep.system.devices import autocast_of, device_of
from galirep.system.layer_names import split_names
from galirep.training.config import TrainConfig
from galirep.training.held_out import HeldOut, split_rows
from galirep.training.knowledge import Knowledge, build_body, load_knowledge
from galirep.training.plan import RunPlan, estimate_update, require_fit, resolve
from galirep.training.session import Session

_log = logging.getLogger("galirep.training")


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to begin: its session at step 0, the images to evaluate on, and what run.json records."""

    plan: RunPlan
    session: Session
    held_out: HeldOut | None
    facts: dict[str, Any]


def prepare(
    config: TrainConfig,
    data: Images | ImageSource | Any,
    adapter: ImageFunction | None,
    *,
    download: bool,
    variant: Variant | None = None,
    body: FeatureExtractor | None = None,
    resumed: RunDirectory | None = None,
    trust_encoder: bool = False,
) -> Prepared:
    """Make ready what `galirep.training.loop.train` is given; `resumed` is the run that goes on.

    `variant` stands for the one that the settings name.

    Raises:
        GalirepError: a setting, the data or the adapter does not fit.
    """
    stored = None if resumed is None else resumed.trained_info()
    variant, device, source_of_m = _check_settings(config, variant or _variant(config, stored), adapter, body)
    images = chosen_data(config.data, data) if isinstance(data, Images) else _load(config, data, download)
    plan = resolve(config, variant, images)
    if "grey" in config.view_names and images.pixels.shape[1] == 1:
        _log.warning("the view grey changes nothing: the images are grey")
    rows, held_out_rows = split_rows(len(images), plan.holdout)
    batches = Batches(images.tensor(), config.batch_size, config.seed, device, rows)
    held_out = None
    if plan.evaluate_every:
        held_out = HeldOut(images, held_out_rows, rows, batches, split_names(config.evaluate_layers))
    _check_criterion(config, images, held_out)

    knowledge = Knowledge()
    if source_of_m is not None:
        layers = None if config.adapter_layers is None else split_names(config.adapter_layers)
        knowledge = load_knowledge(
            source_of_m, images, rows, batches, layers=layers, download=download, trust_encoder=trust_encoder
        )
    plan = plan.with_features(knowledge.dim)
    recorded = None if stored is None or resumed is None else stored.get("body")
    body_of_e = build_body(
        config,
        batches.images(torch.arange(2)),
        given=body,
        stored=None if recorded is None or resumed is None else (recorded, resumed.export),
        download=download,
        trust_encoder=trust_encoder,
    )
    start = None
    # a run that has a checkpoint needs the source of its first weights no more
    if config.init_from is not None and not (resumed is not None and resumed.last.exists()):
        start = load_initial_weights(config.init_from)
    session = Session(plan, batches, knowledge, body_of_e, start)
    if held_out is not None:
        # raises for layers that the networks lack
        held_out.reader(session.average.nets["E"], session.game.discriminator.image_trunk)
    data_facts = {
        "spec": images.spec,
        "split": images.split,
        "fingerprint": images.fingerprint,
        "images": len(rows),
        "held_out": len(held_out_rows),
        "errors": images.errors,
        "report": None if images.report is None else images.report.to_dict(),
    }
    facts = {
        "data": data_facts,
        "variant": variant.to_dict(),
        "statistics": list(variant.statistics),
        "adapter": knowledge.description,
        "body": None if body_of_e is None else dict(body_of_e.record),
        "init_from": session.initial,
    }
    return Prepared(plan, session, held_out, facts)


def _check_settings(
    config: TrainConfig, variant: Variant, adapter: ImageFunction | None, body: FeatureExtractor | None
) -> tuple[Variant, torch.device, str | ImageFunction | None]:
    """Return the variant, the device and what M(.) is built from, once what needs no image is found to fit."""
    device = device_of(config.device)
    # a precision that the device cannot do is refused before any image is decoded
    autocast_of(device, config.precision)
    source_of_m = _source_of_m(config, variant, adapter)
    require_fit(config, variant)
    if config.body is None and body is None and (config.body_layers is not None or config.body_lr):
        raise ConfigError("body_layers and body_lr are of a body: name one, e.g. --body timm:resnet18@weights.pth")
    return variant, device, source_of_m


def _variant(config: TrainConfig, stored: Mapping[str, Any] | None) -> Variant:
    """Return the variant to train; a resumed run goes on with its own where the TOML file it came from was deleted."""
    if stored is not None and config.variant.endswith(".toml") and not Path(config.variant).exists():
        return Variant.from_dict(stored["variant"])
    return get_variant(config.variant)


def _source_of_m(config: TrainConfig, variant: Variant, adapter: ImageFunction | None) -> str | ImageFunction | None:
    """Return what M(.) is built from, a spec or a function; None for a variant without M(.).

    Raises:
        ConfigError: the variant uses M(.) and none is given, or the other way round.
    """
    source = config.adapter if adapter is None else adapter
    if variant.needs_features and source is None:
        raise ConfigError(
            f"the variant {variant.name!r} uses M(.): name a feature extractor, "
            "e.g. --adapter timm:resnet18@weights.pth or classifier:DIR"
        )
    if source is not None and not variant.needs_features:
        raise ConfigError(
            f"the variant {variant.name!r} does not use M(.), so it takes no adapter: "
            "leave --adapter out, or take gali-pt"
        )
    if config.adapter_layers is not None and not isinstance(source, str):
        what = "there is none" if source is None else "this one is a function"
        raise ConfigError(
            f"adapter_layers {config.adapter_layers} chooses layers of an adapter that is named, and {what}: "
            "leave it out"
        )
    return source


def _check_criterion(config: TrainConfig, images: Images, held_out: HeldOut | None) -> None:
    """Raise if the best checkpoint is to be chosen by labels that are not there."""
    if config.best_by != "knn_error" or (held_out is not None and held_out.labelled):
        return
    lack = f"{images.spec} has none" if held_out else "no images are evaluated on"
    raise ConfigError(f"best_by knn_error needs labels of held-out images, but {lack}: choose pixel_mse")


def describe_memory(config: TrainConfig, resumed: RunDirectory | None = None, *, download: bool = False) -> str:
    """Say in one line what memory an update takes (`estimate_update`), or why that is not known.

    The data set is opened, and one of its images is read for the size and the channels that are not set. Nothing is
    downloaded: with `download`, what `train` would download is not known yet.

    Raises:
        GalirepError: `train` would refuse the settings, the variant or the data set without decoding an image.
    """
    stored = None if resumed is None else resumed.trained_info()
    variant, _, _ = _check_settings(config, _variant(config, stored), None, None)
    if config.image_size is not None:
        family(config.networks, config.image_size)
    if config.init_from is not None and not (resumed is not None and resumed.last.exists()):
        load_initial_weights(config.init_from)
    try:
        source = _open(config, download=False)
    except DataError as err:
        if not download:
            raise
        return f"memory of an update: not known before the download, since {err}"
    try:
        size = config.image_size or native_side(source)
        channels = config.channels or (1 if source.read(0).shape[2] == 1 else 3)
        latent = config.latent_dim or family(config.networks, size)[1].latent
        # how many features M(.) has is not known before it is loaded; they take little
        shapes = Shapes(size, channels, latent, config.width, int(variant.needs_features), config.norm)
        body = build_body(config, torch.linspace(-1, 1, 2 * channels * size**2).reshape(2, channels, size, size))
        mebibytes = estimate_update(config, variant, shapes, body).memory / 2**20
    except GalirepError as err:
        return f"memory of an update: not known, since {err}"
    without = ", M(.)" if variant.needs_features else ""
    return (
        f"memory of an update: about {mebibytes:,.0f} MiB at {channels} x {size} x {size} in fp32, "
        f"without the {len(source)} images of the set{without}"
    )


def _open(config: TrainConfig, data: Any = None, *, download: bool) -> ImageSource:
    return open_images(
        chosen_data(config.data, data), config.split, splits=config.splits, root=config.data_root, download=download
    )


def _load(config: TrainConfig, data: Any, download: bool) -> Images:
    source = _open(config, data, download=download)
    size = config.image_size or native_side(source)
    # a size that no network takes is refused before any image is decoded
    family(config.networks, size)
    on_error: Literal["fail", "skip"] = "skip" if config.on_error == "skip" else "fail"
    images = load_images(
        source,
        size,
        config.channels,
        num_workers=config.num_workers,
        on_error=on_error,
        max_upscale=config.max_upscale,
    )
    if images.report is not None:
        announce(images.report)
    return images
