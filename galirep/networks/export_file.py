"""Exported networks: a safetensors file whose header says what it is, so that it can be read alone, without code and without doubt."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galirep.errors import CheckpointError
from galirep.system.files import atomic_write


def sha256_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of named tensors, whatever file they lie in: names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


FORMAT = 1


def save_export(path: Path, kind: str, net: nn.Module, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write a network's tensors with `about` and their hash in the header, in one step; gives the header."""
    # only the files need safetensors; the hash of a network's tensors does not
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    header = {"kind": kind, "format": FORMAT, **about, "sha256": sha256_tensors(tensors)}
    with atomic_write(path) as temporary:
        # not safetensors' own writer of files, which turns a full disk into an error that names none
        temporary.write_bytes(save(tensors, metadata={"galirep": json.dumps(header)}))
    return header


def export_folder(run: Path) -> Path:
    """Where a run directory's exported networks lie; an export folder stands for itself."""
    return run / "export" if (run / "export").is_dir() else run


def load_export(run: Path, kind: str, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of `kind`.safetensors in a run directory's export (or in an export folder itself) and what their header says.

    Raises:
        CheckpointError: there is none, or the file is damaged, foreign or of another format.
    """
    from safetensors import SafetensorError, safe_open

    path = export_folder(run) / f"{kind}.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"{run} holds no exported {kind} (export/{path.name}): a run has one from its first checkpoint on"
        )
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            text = (file.metadata() or {}).get("galirep")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as err:
        raise CheckpointError(f"{path} is truncated or damaged: {err}") from None
    about: dict[str, Any] = json.loads(text) if text else {}
    if about.get("kind") != kind:
        raise CheckpointError(f"{path} is no {kind} that galirep exported")
    if about["format"] != FORMAT:
        raise CheckpointError(f"{path} has export format {about['format']}; this galirep reads {FORMAT}")
    if sha256_tensors(tensors) != about["sha256"]:
        raise CheckpointError(f"{path} is damaged: its tensors do not have the hash that was written with them")
    return tensors, about
