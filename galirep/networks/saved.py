"""Exported networks of a run: written, read, copied."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from galirep.errors import ConfigError
from galirep.networks.export_file import export_folder, load_export, save_export
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Encoder, Generator, Shapes
from galirep.system.files import atomic_write, write_json, write_text

EXPORTED = ("encoder.safetensors", "generator.safetensors", "encoder.json", "README.md")


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
        CheckpointError: see `load_export`.
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
        with atomic_write(out / name) as temporary:
            shutil.copyfile(export_folder(run) / name, temporary)
        written.append(out / name)
    return written
