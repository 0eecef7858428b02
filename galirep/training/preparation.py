"""What a run needs before its first step: everything that can be wrong is found here, before anything is written."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from galirep.data.batches import Batches
from galirep.data.catalog import open_data
from galirep.data.memory import Images, load_images
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError, DataError
from galirep.game.variant import Variant
from galirep.game.variants import get_variant
from galirep.networks.families import family
from galirep.networks.parts import Shapes
from galirep.runs.directory import new_info
from galirep.system.devices import autocast_of, device_of
from galirep.training.config import TrainConfig
from galirep.training.held_out import HeldOut, default_count, split_rows
from galirep.training.knowledge import Knowledge, load_knowledge
from galirep.training.session import Session


@dataclass(frozen=True)
class Prepared:
    """The complete settings, a session at step 0, the images to evaluate on (None: no evaluation), and run.json's content."""

    config: TrainConfig
    session: Session
    held_out: HeldOut | None
    info: dict[str, Any]


def prepare(
    config: TrainConfig,
    data: Images | ImageSource | None,
    adapter: Callable[[Tensor], Tensor] | None,
    download: bool,
    stored: Variant | None,
) -> Prepared:
    """Make ready what `galirep.training.train` is given; `stored` is the variant of a run that goes on.

    Raises:
        GalirepError: a setting, the data or the adapter does not fit.
    """
    gone = (
        stored is not None and config.variant.endswith(".toml") and not Path(config.variant).exists()
    )  # a run keeps its variant's text
    variant, device = stored if stored is not None and gone else get_variant(config.variant), device_of(config.device)
    autocast_of(device, config.precision)
    if variant.needs_features and config.adapter is None and adapter is None:
        raise ConfigError(
            f"the variant {variant.name!r} uses M(.): name a feature extractor, e.g. --adapter timm:resnet18@weights.pth or classifier:DIR"
        )
    if not variant.needs_features and (config.adapter is not None or adapter is not None):
        raise ConfigError(
            f"the variant {variant.name!r} has no M(.), so it takes no adapter: leave --adapter out, or take gali-pt"
        )
    images = data if isinstance(data, Images) else _load(config, data, download)
    config = _complete(config, images)
    assert config.holdout is not None
    rows, held = split_rows(len(images), config.holdout)
    batches = Batches(images.tensor(), config.batch_size, config.seed, device, rows)
    held_out = HeldOut(images, held, rows, batches) if config.evaluate_every else None
    if config.best_by == "knn_error" and not (held_out and held_out.labelled):
        what = f"of which {images.spec} has none" if held_out else "and none are evaluated on"
        raise ConfigError(f"best_by knn_error needs labels of held-out images, {what}: choose pixel_mse")
    shapes = Shapes(
        images.pixels.shape[-1], images.pixels.shape[1], config.latent_dim or 0, config.width, norm=config.norm
    )
    knowledge = Knowledge()
    if variant.needs_features:
        knowledge = load_knowledge(config.adapter, adapter, images, rows, batches, download=download)
        shapes = dataclasses.replace(shapes, features=knowledge.dim)
    session = Session(config, variant, shapes, batches, knowledge.extract, knowledge.features)
    about = {
        "spec": images.spec,
        "split": images.split,
        "fingerprint": images.fingerprint,
        "images": len(rows),
        "held_out": len(held),
    }
    info = new_info(data={**about, "errors": images.errors}, variant=variant.to_dict(), adapter=knowledge.about)
    return Prepared(config, session, held_out, info)


def _load(config: TrainConfig, data: ImageSource | None, download: bool) -> Images:
    source = (
        data if data is not None else open_data(config.data, config.split, root=config.data_root, download=download)
    )
    size = config.image_size or native_side(source)
    family(config.networks, size)  # a size that no network takes is told before any image is decoded
    return load_images(
        source,
        size,
        config.channels,
        num_workers=config.num_workers,
        on_error="skip" if config.on_error == "skip" else "fail",
        max_upscale=config.max_upscale,
    )


def native_side(source: ImageSource) -> int:
    """The side of the centre square of the first readable image, pixels.

    Raises:
        DataError: none of the first ten images can be read.
    """
    for index in range(min(10, len(source))):
        with contextlib.suppress(DataError):
            return int(min(source.read(index).shape[:2]))
    raise DataError(
        f"none of the first images of {source.spec} can be read, so their size is unknown: pass --image-size"
    )


def _complete(config: TrainConfig, images: Images) -> TrainConfig:
    """The settings with everything filled in that the data decides.

    Raises:
        ConfigError: too many images are held out, or there is none to evaluate on.
    """
    n = len(images)
    holdout = config.holdout if config.holdout is not None else default_count(n, config.batch_size)
    if holdout and n - holdout < config.batch_size:
        raise ConfigError(
            f"holdout {holdout} leaves {max(0, n - holdout)} of {n} images, fewer than a batch of {config.batch_size}: hold out fewer"
        )
    if config.evaluate_every and not holdout:
        raise ConfigError(
            f"evaluate_every {config.evaluate_every} needs images to evaluate on, and holdout is 0: hold some out"
        )
    every = config.evaluate_every if config.evaluate_every is not None else 1000 if holdout else 0
    networks, found = family(config.networks, images.pixels.shape[-1])
    per_step = config.batch_size * config.d_steps
    epochs = config.epochs if config.epochs is not None else 100.0
    return dataclasses.replace(
        config,
        data=images.spec,
        split=images.split,
        image_size=images.pixels.shape[-1],
        channels=images.pixels.shape[1],
        networks=networks,
        latent_dim=config.latent_dim or found.latent,
        steps=config.steps or max(1, math.ceil(epochs * (n - holdout) / per_step)),
        epochs=None,
        holdout=holdout,
        evaluate_every=every,
    )
