"""E as a feature extractor: trained (`run:RUN`), or untrained as a baseline (`random:NETWORKS`)."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from galirep.errors import CheckpointError, PluginError
from galirep.features.extraction import body_by_hand, load_body
from galirep.features.protocol import FeatureExtractor
from galirep.networks.export_file import load_export, sha256_tensors
from galirep.networks.families import family
from galirep.networks.parts import Encoder, Shapes
from galirep.networks.saved import load_network
from galirep.system.layer_names import check_layer_names

DEFAULT_LAYERS = 4
"""Number of E's layers that are its features by default: the last three hidden ones and mu."""
_NORMS = ("batch", "group")
_PAPER_SIZES = {"svhn32": 32, "celeba64": 64}
Self = TypeVar("Self", bound="GaliEncoder")


class GaliEncoder(nn.Module):
    """E as a `FeatureExtractor`: images of exactly its size -> the chosen layers side by side.

    It is frozen, stays in eval mode, and lets gradients pass to its input.
    """

    exact_size = True

    def __init__(
        self, encoder: Encoder, shapes: Shapes, *, name: str, tag: str = "", layers: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        # in the layout of training: pooling and convolutions on a CPU take up to twice as long in the other
        self.encoder = encoder.requires_grad_(False).to(memory_format=torch.channels_last)
        self.shapes, self.name, self.tag = shapes, name, tag
        self.eval()
        device = encoder.head.weight.device
        with torch.no_grad():
            probe = encoder.layers(torch.zeros(1, shapes.channels, shapes.size, shapes.size, device=device))
        self.known_layers = {layer: value.shape[1] for layer, value in probe.items()}
        if layers is None:
            layers = tuple(self.known_layers)[-DEFAULT_LAYERS:]
        chosen = check_layer_names(layers, self.known_layers, name)
        self.layers = {layer: self.known_layers[layer] for layer in chosen}
        self.dim = sum(self.layers.values())
        self.image_size, self.channels = shapes.size, shapes.channels
        self.sha256 = sha256_tensors(encoder.state_dict())
        self.preprocessing: dict[str, Any] = {"size": shapes.size, "channels": shapes.channels, "range": [-1, 1]}

    def with_layers(self, layers: Sequence[str]) -> "GaliEncoder":
        """Return an extractor of the same encoder giving `layers`, in that order.

        Raises:
            PluginError: a layer is unknown or repeated.
        """
        return GaliEncoder(self.encoder, self.shapes, name=self.name, tag=self.tag, layers=layers)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, S, S) float32 in [-1, 1] to (B, dim) float32.

        Raises:
            PluginError: the images have another shape.
        """
        expected = (self.channels, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != expected:
            shape = ", ".join(map(str, expected))
            raise PluginError(f"{self.name} takes images (B, {shape}), not {tuple(images.shape)}")
        values = self.encoder.layers(images)
        return torch.cat([values[layer] for layer in self.layers], 1).float()

    def train(self: Self, mode: bool = True) -> Self:  # noqa: ARG002
        """Keep eval mode whatever `mode` is."""
        return super().train(False)


def build_run(argument: str, *, download: bool = False) -> GaliEncoder:  # noqa: ARG001 (nothing to download)
    """Build `run:RUN`: the encoder that a training run exported (its averaged weights).

    Raises:
        PluginError: `argument` is empty.
        CheckpointError: see `load_run`.
    """
    if not argument:
        raise PluginError("run: needs a run directory, as in run:runs/mnist")
    return load_run(argument)


def load_run(run: str | Path, *, body: str | Path | FeatureExtractor | None = None) -> GaliEncoder:
    """Load the encoder of a run directory or an export folder.

    `body` is what an encoder on a body stands on, a spec or an extractor, where the export cannot or may not say:
    a user's `module:function`, or an object in Python.

    Raises:
        CheckpointError: the run directory does not exist; or see `load_network` and `load_body`.
    """
    if not Path(run).is_dir():
        raise CheckpointError(f"the run directory {run} does not exist")
    loader = load_body if body is None else body_by_hand(body)
    encoder, header = load_network(Path(run), "encoder", body=loader)
    assert isinstance(encoder, Encoder)
    return GaliEncoder(encoder, Shapes(**header["shapes"]), name=header["name"], tag=f"step {header['step']}")


def build_random(argument: str, *, download: bool = False) -> GaliEncoder:  # noqa: ARG001 (nothing to download)
    """Build `random:NETWORKS[,OPTION...]` or `random:RUN[,OPTION...]`: an untrained E, the baseline for training.

    Options are size=N, channels=N, width=N, latent=N, norm=NORM and seed=N. The networks and defaults of RUN are those
    of the run. BatchNorm has its initial statistics.

    Raises:
        PluginError: an option is unknown or its value is not a number.
        ConfigError: the networks are unknown, or do not take images of this size.
    """
    name, *options = argument.split(",")
    networks, defaults = _default_settings(name)
    settings = {**defaults, **_parse_options(options, defaults, argument)}
    seed = settings.pop("seed")
    networks, network_family = family(networks, settings["size"])
    settings["latent"] = settings["latent"] or network_family.latent
    shapes = Shapes(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = network_family.build(shapes).encoder
    return GaliEncoder(
        encoder, shapes, name=f"random-{networks},{_shapes_text(shapes)},seed={seed}", tag=f"seed {seed}"
    )


def _default_settings(name: str) -> tuple[str, dict[str, Any]]:
    """Return the networks that `name` (of networks or a run directory) means, and the fields of `Shapes` with a seed.

    latent 0 stands for the usual one of the networks.
    """
    if Path(name).is_dir():
        _, header = load_export(Path(name), "encoder")
        return header["networks"], {"norm": "batch", **header["shapes"], "seed": 0}
    size = _PAPER_SIZES.get(name, 32)
    return name, {"size": size, "channels": 3, "width": 32, "latent": 0, "seed": 0, "norm": "batch"}


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
