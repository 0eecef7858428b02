"""A run's networks as a feature extractor: trained (`run:RUN`), or untrained as a baseline (`random:NETWORKS`)."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from galirep.errors import CheckpointError, PluginError
from galirep.features.extraction import body_by_hand, load_body
from galirep.features.protocol import FeatureExtractor
from galirep.networks.body import BodyEncoder
from galirep.networks.export_file import load_export, run_folder, sha256_tensors
from galirep.networks.families import family
from galirep.networks.header import NamedHeader, check_header
from galirep.networks.layers import PAPER, LayerReader, LoadTrunk, defaults_of
from galirep.networks.parts import Encoder, Shapes
from galirep.networks.saved import load_image_trunk, load_network
from galirep.system.pooling_record import POOLING

_NORMS = ("batch", "group")
_PAPER_SIZES = {"svhn32": 32, "celeba64": 64}
Self = TypeVar("Self", bound="GaliEncoder")


class GaliEncoder(nn.Module):
    """E, with D's image trunk, as a `FeatureExtractor`: images of exactly its size -> the chosen layers side by side.

    It is frozen, stays in eval mode, and lets gradients pass to its input. `layers` are those of
    `galirep.networks.layers`, by default `paper`; D's `trunk` is loaded, and is part of the module, only for layers of
    D. `sha256` is that of the network that the layers are of, E or D's trunk; where they are of both, of both.
    """

    exact_size = True

    def __init__(
        self,
        encoder: Encoder,
        shapes: Shapes,
        *,
        name: str,
        tag: str = "",
        layers: Sequence[str] | None = None,
        trunk: LoadTrunk | None = None,
    ) -> None:
        super().__init__()
        # in the layout of training: pooling and convolutions on a CPU take up to twice as long in the other
        self.encoder = encoder.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.shapes, self.name, self.tag = shapes, name, tag
        self._load_trunk = trunk
        self._reader = LayerReader(encoder, shapes, (PAPER,) if layers is None else layers, what=name, trunk=trunk)
        # registered, so that it is moved to another device with E; None where no layer is D's
        self.trunk = self._reader.trunk
        self.layers = self._reader.widths
        self.dim = sum(self.layers.values())
        self.image_size, self.channels = shapes.size, shapes.channels
        self.sha256 = _sha256_of(self._reader.networks())
        self.preprocessing: dict[str, Any] = {
            "size": shapes.size,
            "channels": shapes.channels,
            "range": [-1, 1],
            POOLING: {layer.text: layer.to_dict() for layer in self._reader.layers},
        }

    @property
    def known_layers(self) -> dict[str, int]:
        """Every layer without a choice of pooling and its width: E's, then D's where its trunk can be had."""
        return self._reader.known_widths()

    @property
    def map_layers(self) -> tuple[str, ...]:
        """The layers of E that are feature maps, in order; an E on a body has none."""
        return self._reader.maps

    def with_layers(self, layers: Sequence[str]) -> "GaliEncoder":
        """Return an extractor of the same networks giving `layers`, in that order.

        Raises:
            PluginError: a layer is unknown or repeated, or its pooling does not fit.
            CheckpointError: a layer is D's, and D's trunk cannot be read.
        """
        trunk = self.trunk
        load = self._load_trunk if trunk is None else lambda: trunk
        return GaliEncoder(self.encoder, self.shapes, name=self.name, tag=self.tag, layers=layers, trunk=load)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, S, S) float32 in [-1, 1] to (B, dim) float32.

        Raises:
            PluginError: the images have another shape.
        """
        expected = (self.channels, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != expected:
            shape = ", ".join(map(str, expected))
            raise PluginError(f"{self.name} takes images (B, {shape}), not {tuple(images.shape)}")
        return torch.cat(list(self._reader(images).values()), 1).float()

    def train(self: Self, mode: bool = True) -> Self:  # noqa: ARG002
        """Keep eval mode whatever `mode` is."""
        return super().train(False)


def _sha256_of(networks: Mapping[str, nn.Module]) -> str:
    """Return the hash of a network's tensors, or of those of two networks under the names of both.

    A frozen body of E is no part of its tensors: the hash is then over both hashes.
    """
    if len(networks) == 1:
        (network,) = networks.values()
        own = sha256_tensors(network.state_dict())
    else:
        own = sha256_tensors({f"{k}.{name}": v for k, net in networks.items() for name, v in net.state_dict().items()})
    encoder = networks.get("e")
    if isinstance(encoder, BodyEncoder) and not encoder.body_record["rate"]:
        return hashlib.sha256(f"{own};{encoder.body_record['sha256']}".encode()).hexdigest()
    return own


def build_run(
    argument: str,
    *,
    download: bool = False,  # noqa: ARG001 (nothing to download)
    trust_encoder: bool = False,
) -> GaliEncoder:
    """Build `run:RUN`: the encoder that a training run exported (its averaged weights), with D's image trunk.

    Its layers are those of the export's `default_layers`.

    Raises:
        PluginError: `argument` is empty.
        CheckpointError: see `load_run`.
    """
    if not argument:
        raise PluginError("run: needs a run directory, as in run:runs/mnist")
    return load_run(argument, trust_encoder=trust_encoder)


# the export of a run may name a body
build_run.__dict__["takes_trust"] = True


def load_run(
    run: str | Path, *, body: str | Path | FeatureExtractor | None = None, trust_encoder: bool = False
) -> GaliEncoder:
    """Load the encoder of a run directory or an export folder.

    `body` is what an encoder on a body stands on, a spec or an extractor, where the export cannot or may not say:
    a user's `module:function`, or an object in Python. With `trust_encoder` code that the export names is run.

    Raises:
        CheckpointError: the run directory does not exist; or see `load_network` and `load_body`.
    """
    run = run_folder(run)
    if not run.is_dir():
        raise CheckpointError(f"the run directory {run} does not exist")
    loader = partial(load_body, trust_encoder=trust_encoder) if body is None else body_by_hand(body)
    encoder, header = load_network(run, "encoder", body=loader)
    check_header(header, NamedHeader, run)
    assert isinstance(encoder, Encoder)
    return GaliEncoder(
        encoder,
        Shapes(**header["shapes"]),
        name=header["name"],
        tag=f"step {header['step']}",
        layers=_default_layers(header),
        trunk=lambda: load_image_trunk(run, header["step"]),
    )


def _default_layers(header: Mapping[str, Any]) -> Sequence[str]:
    """Return the layers of a run where none are chosen; exports of earlier versions record none."""
    layers: Sequence[str] = header.get("default_layers", (PAPER,))
    return layers


def build_random(argument: str, *, download: bool = False) -> GaliEncoder:  # noqa: ARG001 (nothing to download)
    """Build `random:NETWORKS[,OPTION...]` or `random:RUN[,OPTION...]`: untrained networks, the baseline for training.

    Options are size=N, channels=N, width=N, latent=N, norm=NORM and seed=N. The networks and defaults of RUN, and the
    layers that are read, are those of the run. BatchNorm has its initial statistics, D no spectral norm.

    Raises:
        PluginError: an option is unknown or its value is not a number.
        ConfigError: the networks are unknown, or do not take images of this size.
    """
    name, *options = argument.split(",")
    networks, defaults, layers = _default_settings(name)
    chosen = _parse_options(options, defaults, argument)
    settings = {**defaults, **chosen}
    seed = settings.pop("seed")
    networks, network_family = family(networks, settings["size"])
    settings["latent"] = settings["latent"] or network_family.latent
    shapes = Shapes(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = network_family.build(shapes)
    encoder, trunk = parts.encoder, parts.trunks["image"]
    # networks of another size may lack them
    if layers is None or "size" in chosen:
        layers = defaults_of(encoder.eval(), shapes, trunk)
    return GaliEncoder(
        encoder,
        shapes,
        name=f"random-{networks},{_shapes_text(shapes)},seed={seed}",
        tag=f"seed {seed}",
        layers=layers,
        trunk=lambda: trunk,
    )


def _default_settings(name: str) -> tuple[str, dict[str, Any], Sequence[str] | None]:
    """Return the networks that `name` (of networks or a run directory) means, the fields of `Shapes` with a seed, and
    the layers of the run.

    latent 0 stands for the usual one of the networks.
    """
    if run_folder(name).is_dir():
        _, header = load_export(Path(name), "encoder")
        if header.get("body"):
            about = f"stands on the trained body {header['body']['name']!r}, so it has no untrained counterpart"
            raise PluginError(f"random:{name}: E {about}: take random:{header['networks']},size=N,channels=N")
        return header["networks"], {"norm": "batch", **header["shapes"], "seed": 0}, _default_layers(header)
    size = _PAPER_SIZES.get(name, 32)
    return name, {"size": size, "channels": 3, "width": 32, "latent": 0, "seed": 0, "norm": "batch"}, None


def _parse_options(options: Sequence[str], defaults: Mapping[str, Any], argument: str) -> dict[str, Any]:
    """Parse `KEY=VALUE` texts: whole numbers for the keys of `defaults`, and `norm=NORM`."""
    number_keys = [key for key in defaults if key != "norm"]
    settings: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key in number_keys and value.isdecimal():
            settings[key] = int(value)
        elif key == "norm" and value in _NORMS:
            settings[key] = value
        else:
            allowed = [*(f"{key}=N" for key in number_keys), *(f"norm={norm}" for norm in _NORMS)]
            raise PluginError(f"random:{argument}: {option!r} is not one of {', '.join(allowed)}")
    return settings


def _shapes_text(shapes: Shapes) -> str:
    """Return `size=32,channels=3,...` without zeros and without the default norm."""
    fields = dataclasses.asdict(shapes).items()
    return ",".join(f"{key}={value}" for key, value in fields if value and value != "batch")
