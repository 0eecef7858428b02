"""A trained E as a feature extractor (`run:RUN`), the untrained one as a baseline (`random:NETWORKS`), and the files of an exported run."""

import dataclasses
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from galirep.checkpoint import sha256_tensors
from galirep.errors import CheckpointError, ConfigError, PluginError, unknown
from galirep.exports import export_folder, load_export, save_export
from galirep.files import replacing, write_json, write_text
from galirep.networks import NETWORKS, Encoder, Generator, Shapes, family

EXPORTED = ("encoder.safetensors", "generator.safetensors", "encoder.json", "README.md")
DEFAULT_LAYERS = 4
"""How many of E's layers make its features where none are named: the last three hidden ones and mu."""
Self = TypeVar("Self", bound="GaliEncoder")


class GaliEncoder(nn.Module):
    """E as a `FeatureExtractor`: images of exactly its size -> the chosen layers side by side; frozen, in eval mode, with gradients to the
    input.
    """

    exact_size = True

    def __init__(self, encoder: Encoder, shapes: Shapes, *, name: str, tag: str = "", layers: Sequence[str] | None = None) -> None:
        super().__init__()
        # in the layout of training: pooling and convolutions on a CPU take up to twice as long in the other
        self.encoder = encoder.requires_grad_(False).to(memory_format=torch.channels_last)
        self.shapes, self.name, self.tag = shapes, name, tag
        self.eval()
        with torch.no_grad():
            probe = encoder.layers(torch.zeros(1, shapes.channels, shapes.size, shapes.size, device=encoder.head.weight.device))
        self.known_layers = {layer: value.shape[1] for layer, value in probe.items()}
        chosen = tuple(layers) if layers is not None else tuple(self.known_layers)[-DEFAULT_LAYERS:]
        for layer in chosen:
            if layer not in self.known_layers:
                raise PluginError(unknown("layer", layer, self.known_layers) + f" (of {name})")
        if not chosen or len(set(chosen)) < len(chosen):
            raise PluginError(f"layers {', '.join(chosen) or '(none)'}: name each layer once, of {', '.join(self.known_layers)}")
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


def export_networks(folder: Path, nets: Mapping[str, nn.Module], about: Mapping[str, Any], card: str) -> None:
    """Write `encoder.safetensors` and `generator.safetensors` with `about` in their header, `encoder.json` with the same, and the model
    card README.md.

    `about` needs `networks`, `shapes` and `name`. Each file is replaced in one step and can be read alone.
    """
    for kind, net in nets.items():
        header = save_export(folder / f"{kind}.safetensors", kind, net, about)
        if kind == "encoder":
            write_json(folder / "encoder.json", header)
    write_text(folder / "README.md", card)


def load_network(run: Path, which: str, device: str | torch.device = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The exported `encoder` or `generator` of a run directory (or of an export folder itself) in eval mode, and what its header says.

    Raises:
        CheckpointError: see `galirep.exports.load_export`.
    """
    tensors, about = load_export(run, which, device)
    parts = NETWORKS[about["networks"]].build(Shapes(**about["shapes"]))
    net: nn.Module = parts.encoder if which == "encoder" else parts.generator
    net.load_state_dict(tensors)
    return net.requires_grad_(False).eval().to(device), about


def load_autoencoder(run: Path, device: str | torch.device = "cpu") -> tuple[Encoder, Generator, dict[str, Any]]:
    """The exported E and G of a run and what their header says. Raises as `load_network`."""
    encoder, about = load_network(run, "encoder", device)
    generator, _ = load_network(run, "generator", device)
    assert isinstance(encoder, Encoder) and isinstance(generator, Generator)
    return encoder, generator, about


def export_run(run: str | Path, out: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Copy what a run (or its folder `best`) exported, encoder, generator, encoder.json and model card, into the folder `out`, checked on
    the way; gives the files written.

    Raises:
        CheckpointError: see `load_network`.
        ConfigError: `out` exists, unless `overwrite`.
    """
    run, out = Path(run), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise ConfigError(f"{out} exists: choose another name or pass --overwrite")
    if not out.parent.is_dir():
        raise ConfigError(f"cannot write {out}: the folder {out.parent} does not exist")
    load_autoencoder(run)
    out.mkdir(exist_ok=True)
    written = []
    for name in EXPORTED:
        with replacing(out / name) as temporary:
            shutil.copyfile(export_folder(run) / name, temporary)
        written.append(out / name)
    return written


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
    values: dict[str, Any] = {"size": {"svhn32": 32, "celeba64": 64}.get(name, 32), "channels": 3, "width": 32, "latent": 0, "seed": 0}
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
            raise PluginError(f"random:{argument}: {option!r} is not one of {', '.join(f'{k}=N' for k in values)}, norm=batch, norm=group")
        values[match[1]] = int(match[2])
    seed = values.pop("seed")
    name, found = family(name or "compact", values["size"])
    values["latent"] = values["latent"] or found.latent
    shapes = Shapes(**values, norm=norm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = found.build(shapes).encoder
    text = ",".join(f"{k}={v}" for k, v in dataclasses.asdict(shapes).items() if v and v != "batch")  # the default goes unsaid
    return GaliEncoder(encoder, shapes, name=f"random-{name},{text},seed={seed}", tag=f"seed {seed}")
