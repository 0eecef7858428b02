"""Learned knowledge for training: M(.) as a fixed function of images with its features of the real ones; E's body."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galirep.data.batches import Batches
from galirep.data.memory import Images
from galirep.data.tensors import ImageFunction
from galirep.errors import ConfigError, GalirepError, PluginError
from galirep.features.cache import cached_features
from galirep.features.extraction import build_extractor, load_body, make_body
from galirep.features.protocol import Description, FeatureExtractor, describe, origin_of, require_gradient
from galirep.features.registry import load_extractor
from galirep.networks.body import Body
from galirep.networks.saved import BODY_FOLDER
from galirep.training.config import TrainConfig


@dataclass(frozen=True)
class Knowledge:
    """M(.) and what it makes of the real images; empty for a variant without M(.).

    `extract` maps images (B, C, S, S) in [-1, 1] to (B, dim), standardised; `features` (N, dim), on the host, are the
    same of every real image; `description` is recorded in run.json and the export.
    """

    extract: ImageFunction | None = None
    features: Tensor | None = None
    description: dict[str, Any] | None = None

    @property
    def dim(self) -> int:
        """The number of features, 0 without M."""
        return 0 if self.features is None else self.features.shape[1]


def load_knowledge(
    source: str | ImageFunction,
    images: Images,
    rows: Tensor,
    batches: Batches,
    *,
    layers: Sequence[str] | None = None,
    download: bool = False,
    trust_encoder: bool = False,
) -> Knowledge:
    """Build M(.) from an extractor's spec, or take a callable, and compute its features of the real images.

    Features are standardised: over the real images each dimension has mean 0, and all together mean square 1. That
    affine map changes nothing that M knows, and gives D inputs of one size whatever the network. The features are
    computed once and, for a spec, kept on disk (see `galirep.features.cache`): there those of all `images`, here those
    of the `rows` that `batches` hands out. `layers` chooses those of a spec.

    Raises:
        PluginError: the extractor cannot be built, does not return (B, d) finite numbers, or lets no gradient pass.
    """
    if isinstance(source, str):
        extractor = load_extractor(
            source, layers=layers, download=download, device=batches.device, trust_encoder=trust_encoder
        )
        extract, features, description = _from_extractor(extractor, source, images, rows, batches)
    else:
        extract, features, description = _from_function(source, batches)
    mean = features.mean(0)
    rms = (features - mean).square().mean().sqrt().clamp_min(1e-12)
    shift, scale = mean.to(batches.device), 1 / rms.to(batches.device)

    def standardized(x: Tensor) -> Tensor:
        return (extract(x) - shift) * scale

    return Knowledge(standardized, (features - mean) / rms, description)


def _from_extractor(
    extractor: FeatureExtractor, spec: str, images: Images, rows: Tensor, batches: Batches
) -> tuple[ImageFunction, Tensor, dict[str, Any]]:
    """Return the extractor, its features of the `rows`, and what is recorded of it."""
    record = dataclasses.asdict(describe(extractor, spec))
    description = {key: record[key] for key in ("spec", "name", "tag", "sha256", "preprocessing")}
    description["layers"] = dict(record["layers"])
    description["origin"] = origin_of(extractor)
    _require_useful(extractor, batches, record["name"])
    cached = cached_features(extractor, images.tensor(), images.fingerprint, device=batches.device)
    return extractor, torch.from_numpy(cached[rows.numpy()]), description


def _from_function(function: ImageFunction, batches: Batches) -> tuple[ImageFunction, Tensor, dict[str, Any]]:
    """Return a callable (frozen, if it is a module), its features of the images, and what is recorded of it."""
    name = str(getattr(function, "name", type(function).__name__))
    description = {"spec": None, "name": name, **{key: getattr(function, key, "") for key in ("tag", "sha256")}}
    description["origin"] = origin_of(function)
    if isinstance(function, nn.Module):
        function = function.requires_grad_(False).eval().to(batches.device)
    _require_useful(function, batches, name)
    with torch.no_grad():
        features = torch.cat([function(x).float().cpu() for x in batches.blocks()])
    return function, features, description


def _require_useful(extract: ImageFunction, batches: Batches, name: str) -> None:
    """Raise if an extractor cannot serve as M(.), before anything long begins."""
    images = batches.images(torch.arange(2))
    _require_vectors(extract, images, name)
    require_gradient(extract, images)


def _require_vectors(extract: ImageFunction, images: Tensor, name: str) -> None:
    output = extract(images)
    shaped = isinstance(output, Tensor) and output.ndim == 2 and len(output) == 2
    if not shaped or not bool(output.isfinite().all()):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PluginError(f"the extractor {name!r} must return (2, d) finite numbers for two images, not {got}")


def build_body(
    config: TrainConfig,
    images: Tensor,
    *,
    given: FeatureExtractor | None = None,
    stored: tuple[Mapping[str, Any], Path] | None = None,
    download: bool = False,
    trust_encoder: bool = False,
) -> Body | None:
    """Build what E stands on from `config.body`, or `given` in its place; None where neither is set.

    `images`: two of the training images, (2, C, S, S) in [-1, 1] on the device. `stored` is the record and the export
    folder of a run that is resumed: if that has a copy of the body, what it was copied from is not needed any more.

    Raises:
        ConfigError: the body does not take images of this size or these channels, or has no weights to train.
        PluginError: it cannot be built, has no such layers, gives no finite numbers, or lets no gradient pass.
    """
    source = config.body if given is None else given
    if source is None:
        return None
    if stored is not None and given is None and stored[0]["copy"] and (stored[1] / BODY_FOLDER).is_dir():
        # as it was found fit when the run began
        return load_body(*stored, trust_encoder=trust_encoder)
    layers = None if config.body_layers is None else [name.strip() for name in config.body_layers.split(",")]
    extractor, description = build_extractor(
        source, layers=layers, download=download, device=images.device, trust_encoder=trust_encoder
    )
    _require_fit(description, images)
    try:
        _require_vectors(extractor, images, description.name)
        require_gradient(extractor, images, "a body of E")
    except GalirepError:
        raise
    # code of the user or of another package may raise anything; the message says whose code it was
    except Exception as err:
        side = images.shape[-1]
        raise PluginError(
            f"the body {description.name!r} fails on two {side}x{side} images: {type(err).__name__}: {err}"
        ) from err
    if config.body_lr and not (isinstance(extractor, nn.Module) and any(True for _ in extractor.parameters())):
        raise ConfigError(
            f"body_lr {config.body_lr:g}: the body {description.name!r} has no weights to train: leave it at 0"
        )
    return make_body(extractor, source if isinstance(source, str) else None, config.body_lr)


def _require_fit(description: Description, images: Tensor) -> None:
    """Raise if an extractor that takes images of one size and number of channels does not take these."""
    channels, side = images.shape[1:3]
    if description.exact_size and description.image_size not in (None, side):
        raise ConfigError(
            f"the body {description.name!r} takes images of {description.image_size} pixels, not {side}: "
            f"pass --image-size {description.image_size}"
        )
    if description.exact_size and description.channels != channels:
        raise ConfigError(
            f"the body {description.name!r} takes images of {description.channels} channels, not {channels}: "
            f"pass --channels {description.channels}"
        )
