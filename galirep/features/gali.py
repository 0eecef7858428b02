"""A trained E as a feature extractor (`run:RUN`), the untrained one as a baseline (`random:NETWORKS`), and the files of an exported run."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from galirep.errors import CheckpointError, PluginError, unknown
from galirep.networks.export_file import sha256_tensors
from galirep.networks.families import family
from galirep.networks.parts import Encoder, Shapes
from galirep.networks.saved import load_network

DEFAULT_LAYERS = 4
"""How many of E's layers make its features where none are named: the last three hidden ones and mu."""
Self = TypeVar("Self", bound="GaliEncoder")


class GaliEncoder(nn.Module):
    """E as a `FeatureExtractor`: images of exactly its size -> the chosen layers side by side; frozen, in eval mode, with gradients to the
    input.
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
        with torch.no_grad():
            probe = encoder.layers(
                torch.zeros(1, shapes.channels, shapes.size, shapes.size, device=encoder.head.weight.device)
            )
        self.known_layers = {layer: value.shape[1] for layer, value in probe.items()}
        chosen = tuple(layers) if layers is not None else tuple(self.known_layers)[-DEFAULT_LAYERS:]
        for layer in chosen:
            if layer not in self.known_layers:
                raise PluginError(unknown("layer", layer, self.known_layers) + f" (of {name})")
        if not chosen or len(set(chosen)) < len(chosen):
            raise PluginError(
                f"layers {', '.join(chosen) or '(none)'}: name each layer once, of {', '.join(self.known_layers)}"
            )
        self.layers = {layer: self.known_layers[layer] for layer in chosen}
        self.dim = sum(self.layers.values())
        self.image_size, self.channels = shapes.size, shapes.channels
        self.sha256 = sha256_tensors(encoder.state_dict())
        self.preprocessing: dict[str, Any] = {"size": shapes.size, "channels": shapes.channels, "range": [-1, 1]}

    def with_layers(self, layers: Sequence[str]) -> "GaliEncoder":
        """The same encoder giving other layers, in the order named.

        Raises:
            PluginError: a layer is unknown or named twice.
        """
        return GaliEncoder(self.encoder, self.shapes, name=self.name, tag=self.tag, layers=layers)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) float32 in [-1, 1] -> (B, dim) float32.

        Raises:
            PluginError: the images have another shape.
        """
        wanted = (self.channels, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != wanted:
            raise PluginError(f"{self.name} takes images (B, {', '.join(map(str, wanted))}), not {tuple(images.shape)}")
        values = self.encoder.layers(images)
        return torch.cat([values[layer] for layer in self.layers], 1).float()

    def train(self: Self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stays in eval mode, whatever module this one sits in."""
        return super().train(False)


def build_run(argument: str, *, download: bool = False) -> GaliEncoder:  # noqa: ARG001 (nothing to download)
    """`run:RUN`: the encoder that a training run exported (its averaged weights).

    Raises:
        PluginError: no path is given.
        CheckpointError: see `load_network`.
    """
    if not argument:
        raise PluginError("run: needs a run directory, as in run:runs/mnist")
    if not Path(argument).is_dir():
        raise CheckpointError(f"there is no run directory {argument}")
    encoder, about = load_network(Path(argument), "encoder")
    assert isinstance(encoder, Encoder)
    return GaliEncoder(encoder, Shapes(**about["shapes"]), name=about["name"], tag=f"step {about['step']}")


def build_random(argument: str, *, download: bool = False) -> GaliEncoder:  # noqa: ARG001
    """`random:NETWORKS[,size=N][,channels=N][,width=N][,latent=N][,norm=NORM][,seed=N]` or `random:RUN`: an untrained E, the baseline
    that training has to beat.

    With a run directory the networks are those of the run. BatchNorm stands at its initial statistics.

    Raises:
        PluginError: the text cannot be read.
        ConfigError: unknown networks, or a size they do not take.
    """
    name, *options = argument.split(",")
    values: dict[str, Any] = {
        "size": {"svhn32": 32, "celeba64": 64}.get(name, 32),
        "channels": 3,
        "width": 32,
        "latent": 0,
        "seed": 0,
    }
    norm = "batch"
    if Path(name).is_dir():
        about = load_network(Path(name), "encoder")[1]
        name, values = about["networks"], {**about["shapes"], "seed": 0}
        norm = values.pop("norm", norm)
    for option in options:
        if option in ("norm=batch", "norm=group"):
            norm = option[5:]
            continue
        if not (match := re.fullmatch(r"(\w+)=(\d+)", option)) or match[1] not in values:
            raise PluginError(
                f"random:{argument}: {option!r} is not one of {', '.join(f'{k}=N' for k in values)}, norm=batch, norm=group"
            )
        values[match[1]] = int(match[2])
    seed = values.pop("seed")
    name, found = family(name or "compact", values["size"])
    values["latent"] = values["latent"] or found.latent
    shapes = Shapes(**values, norm=norm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = found.build(shapes).encoder
    text = ",".join(
        f"{k}={v}" for k, v in dataclasses.asdict(shapes).items() if v and v != "batch"
    )  # the default goes unsaid
    return GaliEncoder(encoder, shapes, name=f"random-{name},{text},seed={seed}", tag=f"seed {seed}")
