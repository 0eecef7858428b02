"""Writing, reading and copying the exported networks of a run."""

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


def export_networks(folder: Path, nets: Mapping[str, nn.Module], header: Mapping[str, Any], card: str) -> None:
    """Write `encoder.safetensors`, `generator.safetensors`, `encoder.json` (E's header) and README.md (the model card).

    `header` needs `networks`, `shapes` and `name`. Each file is replaced atomically and can be read alone.
    """
    for kind, net in nets.items():
        written_header = save_export(folder / f"{kind}.safetensors", kind, net, header)
        if kind == "encoder":
            write_json(folder / "encoder.json", written_header)
    write_text(folder / "README.md", card)


def load_network(run: Path, kind: str, device: str | torch.device = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Load the exported network of `kind` (`encoder` or `generator`), frozen and in eval mode, and its header.

    `run` is a run directory or an export folder.

    Raises:
        CheckpointError: see `load_export`.
    """
    tensors, header = load_export(run, kind, device)
    parts = NETWORKS[header["networks"]].build(Shapes(**header["shapes"]))
    net: nn.Module = parts.encoder if kind == "encoder" else parts.generator
    net.load_state_dict(tensors)
    return net.requires_grad_(False).eval().to(device), header


def load_autoencoder(run: Path, device: str | torch.device = "cpu") -> tuple[Encoder, Generator, dict[str, Any]]:
    """Load the exported E and G of a run, and E's header; raise as `load_network`."""
    encoder, header = load_network(run, "encoder", device)
    generator, _ = load_network(run, "generator", device)
    assert isinstance(encoder, Encoder) and isinstance(generator, Generator)
    return encoder, generator, header


def export_run(run: str | Path, out: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Check the export of a run (or of its folder `best`) and copy it into the folder `out`; return the files written.

    They are the encoder, the generator, encoder.json and the model card.

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
