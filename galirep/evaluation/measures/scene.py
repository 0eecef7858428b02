"""What a metric is given (`Scene`), what it returns (`Score`), and what a metric is (`Measure`)."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from galirep.data.memory import Images
from galirep.data.sources import ImageSource
from galirep.data.tensors import BLOCK, ImageFunction, image_blocks
from galirep.errors import CheckpointError, ConfigError, DataError, PluginError
from galirep.evaluation.subjects import Subject
from galirep.features.gali import GaliEncoder
from galirep.features.protocol import Description, FeatureExtractor
from galirep.metrics.arrays import F32
from galirep.probing.probe import DEFAULT_PROTOCOL

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """Numbers of an evaluation, beside its subject and data; see `galirep.evaluate`."""

    seed: int = 0
    samples: int | None = None
    protocol: str = DEFAULT_PROTOCOL
    protocol_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """A feature network with its description."""

    extract: FeatureExtractor
    about: Description

    def record(self) -> dict[str, Any]:
        """Return what a result says of it."""
        values = dataclasses.asdict(self.about)
        chosen = {key: values[key] for key in ("spec", "name", "tag", "sha256", "dim", "preprocessing")}
        return {**chosen, "layers": dict(values["layers"])}

    def key(self) -> dict[str, Any]:
        """Return the record without where the network lies: equal keys give equal features."""
        return {name: value for name, value in self.record().items() if name != "spec"}


@dataclass(frozen=True)
class Score:
    """The result of a metric.

    Attributes:
        mean: the headline number.
        std: its spread, None where there is none.
        spread: what `std` is over.
        n: how many images, samples or rows it is of.
        details: other keys of its JSON object.
        values: arrays that --save-values writes, one row an image.
        warnings: what a reader must know, one sentence each.
    """

    mean: float
    std: float | None
    spread: str
    n: int
    details: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """One subject and the images that it is measured on: `load()` decodes what `source` and `shape` say.

    `network` is that of --extractor, `fidelity` what fid and kid take (the same, or FID's Inception). `train` returns
    up to so many training images (None: all), or None where there are none; `train_about` says which. `cache` keeps
    features of real images for the next subject, `own` what two metrics of one subject share.
    """

    subject: Subject
    source: ImageSource | Images
    shape: tuple[int, int]
    load: Callable[[], Images]
    options: Options
    device: torch.device
    network: Network | None = None
    fidelity: Network | None = None
    train: Callable[[int | None], Images | None] = lambda _: None
    train_about: Mapping[str, Any] | None = None
    progress: bool = False
    cache: dict[Any, Any] = field(default_factory=dict)
    own: dict[Any, Any] = field(default_factory=dict)

    @property
    def images(self) -> Images:
        """The images, decoded when they are first asked for."""
        return self.load()

    def blocks(self, what: str, pixels: Pixels | None = None) -> Iterator[Tensor]:
        """Yield the images (default: those evaluated) as blocks in [-1, 1] on the device, with a progress bar."""
        pixels = self.images.pixels if pixels is None else pixels
        blocks = image_blocks(pixels, device=self.device)
        yield from tqdm(blocks, what, -(-len(pixels) // BLOCK), unit="block", disable=not self.progress, leave=False)

    def latents(self, count: int, what: str) -> Iterator[Tensor]:
        """Yield `count` draws of z ~ N(0, I), (B, latent) on the device, which the seed decides."""
        random = torch.Generator().manual_seed(self.options.seed)
        parts = torch.split(torch.randn(count, self.subject.latent, generator=random), BLOCK)
        for part in tqdm(parts, what, unit="block", disable=not self.progress, leave=False):
            yield part.to(self.device)

    def need(self, name: str) -> Any:
        """Return a function of the subject, which `Measure.needs` lists."""
        function = getattr(self.subject, name)
        assert function is not None
        return function


@dataclass(frozen=True)
class Measure:
    """A metric.

    Attributes:
        about: a line about it.
        needs: functions of `Subject` that it needs.
        plan: checks that it can be had, before anything long begins, and returns what decides its number beside the
            subject and the data.
        run: measures it.
        line: its JSON object as text for people.
        per_image: whether it has values of each image.
    """

    about: str
    needs: tuple[str, ...]
    plan: Callable[[Scene], dict[str, Any]]
    run: Callable[[Scene], Score]
    line: Callable[[Mapping[str, Any]], str]
    per_image: bool = False


def no_settings(_: Scene) -> dict[str, Any]:
    """Return the plan of a metric that the subject and the data decide alone."""
    return {}


def train_key(scene: Scene) -> dict[str, Any] | None:
    """Return what identifies the training images, wherever they lie; None without any."""
    about = scene.train_about
    return None if about is None else {key: about[key] for key in ("split", "fingerprint", "images")}


def require_network(scene: Scene, metric: str) -> Network:
    """Return the network of --extractor.

    Raises:
        ConfigError: none was given.
    """
    if scene.network is None:
        raise ConfigError(
            f"{metric} needs a feature network: name one with --extractor, e.g. classifier:DIR, "
            "timm:resnet18@weights.pth or inception:weights.pth (galirep list adapters)"
        )
    return scene.network


def require_fitting(network: Network, shape: tuple[int, int], device: torch.device) -> None:
    """Check that a network takes images of this size and number of channels.

    Raises:
        PluginError: it does not.
    """
    size, channels = shape
    try:
        with torch.inference_mode():
            network.extract(torch.zeros(2, channels, size, size, device=device))
    # code of the user or of another package may raise anything
    except Exception as err:
        reason = " ".join(str(err).split())[:200]
        raise PluginError(
            f"the extractor {network.about.spec!r} does not take the run's images {channels}x{size}x{size}: {reason}"
        ) from err


def features_of(extract: ImageFunction, blocks: Iterator[Tensor], who: str) -> F32:
    """Return the features (N, D) of blocks of images, on the host.

    Raises:
        DataError: NaN or infinity, or features that are equal in all rows.
    """
    with torch.inference_mode():
        features: F32 = torch.cat([extract(x).flatten(1).float().cpu() for x in blocks]).numpy()
    require_varied(features, who)
    return features


def require_varied(features: F32, who: str) -> None:
    """Raise DataError if features (N, D) are NaN, infinite or equal in all rows."""
    if bad := int((~np.isfinite(features).all(1)).sum()):
        raise DataError(f"{who}: {bad} of {len(features)} rows of features contain NaN or infinity")
    if not (features != features[:1]).any():
        raise DataError(
            f"{who}: the features are equal in all {len(features)} rows, so nothing can be measured in them"
        )


def warn_own_network(scene: Scene, network: Network) -> tuple[str, ...]:
    """Return a warning if a network is part of what is measured, else nothing.

    That is the M(.) that the subject was trained with, the body that its E stands on, or its own E or D.
    """
    subject, about = scene.subject, network.about
    who = f"{about.spec} is"
    if _is_recorded(subject.adapter, about):
        return (
            f"{who} the M(.) that {subject.name} was trained with: its error there says "
            "how well it learned M, not how good its reconstructions are",
        )
    if _is_recorded(subject.body, about):
        return (
            f"{who} the body that E of {subject.name} stands on: its error there says "
            "how well G inverts what E reads, not how good its reconstructions are",
        )
    if _is_own(subject, network):
        return (
            f"{who} of the networks of {subject.name} itself: its error there says "
            "how well they fit each other, not how good its reconstructions are",
        )
    return ()


def _is_recorded(record: Mapping[str, Any] | None, about: Description) -> bool:
    """Return whether a network is the one that an export records: of the same hash, or of the same name without any."""
    if not record:
        return False
    same_hash = bool(about.sha256) and record.get("sha256") == about.sha256
    return same_hash or (not about.sha256 and not record.get("sha256") and record.get("name") == about.name)


def _is_own(subject: Subject, network: Network) -> bool:
    """Return whether a network is E or D of the subject: its own networks, read at the same layers, have its hash."""
    own = subject.extract
    if subject.kind != "run" or not isinstance(own, GaliEncoder) or not isinstance(network.extract, GaliEncoder):
        return False
    with contextlib.suppress(PluginError, CheckpointError):
        return own.with_layers(list(network.extract.layers)).sha256 == network.extract.sha256
    return False


def format_spread(entry: Mapping[str, Any], digits: int = 4) -> str:
    """Return `0.0123 ± 0.0004`, or the mean alone."""
    std = entry["std"]
    return f"{entry['mean']:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")
