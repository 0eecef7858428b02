"""Exported networks: safetensors files whose JSON header describes the network, so that each can be read alone."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galirep.errors import CheckpointError, unknown
from galirep.networks.header import ClassifierHeader, NetworkHeader, check_header
from galirep.system.files import SEAL, atomic_write, is_sealed, seal_json
from galirep.system.reading.documents import parse_json, read_json
from galirep.system.reading.files import kind_of, parsing
from galirep.system.reading.records import quoted

FORMAT = 1


def sha256_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, in hex: of names, types, shapes and values, in the order of the names.

    It does not depend on the file or the memory layout.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_export(
    path: Path, kind: str, net: nn.Module, header: Mapping[str, Any], extra: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Write a network's tensors, and `extra` ones, and a header atomically; return the header as written.

    To `header` are added `kind`, `format`, the `sha256` of the tensors and the hash of the header itself.
    """
    # only the files need safetensors; the hash of a network's tensors does not
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in {**net.state_dict(), **(extra or {})}.items()}
    full_header = seal_json({"kind": kind, "format": FORMAT, **header, "sha256": sha256_tensors(tensors)})
    with atomic_write(path) as temporary:
        # not safetensors' `save_file`, whose error for a full disk does not name the cause
        temporary.write_bytes(save(tensors, metadata={"galirep": json.dumps(full_header)}))
    return full_header


def run_folder(run: str | Path) -> Path:
    """Return the folder that RUN, RUN@last or RUN@best stands for: the run directory, or its folder `best`.

    `last` are the networks of the run's last checkpoint, which RUN alone means too, `best` those of the best evaluation
    on held-out images.

    Raises:
        CheckpointError: RUN@best of a run that has none, or RUN@ and neither.
    """
    name, _, which = str(run).rpartition("@")
    if not Path(name).is_dir() or not name or Path(run).exists():
        return Path(run)
    if which not in ("last", "best"):
        if Path(name, "run.json").is_file():
            raise CheckpointError(f"{run}: {unknown('networks of a run', which, ('last', 'best'))}")
        return Path(run)
    folder = Path(name, "best") if which == "best" else Path(name)
    if not folder.is_dir():
        raise CheckpointError(
            f"{name} has no best networks: it was not evaluated on held-out images (--holdout, --evaluate-every)"
        )
    return folder


def export_folder(run: Path) -> Path:
    """Return the folder of a run's exported networks (see `run_folder`); an export folder stands for itself."""
    folder = run_folder(run)
    return folder / "export" if (folder / "export").is_dir() else folder


def load_export(run: Path, kind: str, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the header of `kind`.safetensors from a run directory or an export folder.

    Raises:
        CheckpointError: the file does not exist, is damaged, was not exported by galirep or has another format.
    """
    from safetensors import safe_open

    path = export_folder(run) / f"{kind}.safetensors"
    if kind_of_file := kind_of(path):
        raise CheckpointError(f"{path} is {kind_of_file}, not a file")
    if not path.is_file():
        raise CheckpointError(
            f"{run} has no exported {kind} (export/{path.name}): a run has one from its first checkpoint on"
        )
    damaged = f"{path} is truncated or damaged"
    with parsing(damaged, CheckpointError), safe_open(path, "pt", device=str(device)) as file:
        text = (file.metadata() or {}).get("galirep")
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    header = parse_json(text, f"the header of {path}", CheckpointError) if text else {}
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise CheckpointError(f"{path} is not a galirep export of kind {kind!r}")
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has export format {quoted(header.get('format'))}; this galirep reads {FORMAT}")
    header = check_header(header, ClassifierHeader if kind == "classifier" else NetworkHeader, path)
    if sha256_tensors(tensors) != header["sha256"]:
        raise CheckpointError(f"{path} is damaged: its tensors do not match the SHA-256 in its header")
    # exports of earlier versions have no hash of the header
    if not is_sealed(header):
        raise CheckpointError(f"{path} is damaged: its header is not what was written")
    return tensors, header


def check_exports(folder: Path, problems: list[str], warnings: list[str], kind: str = "*") -> None:
    """Read every exported network of a folder, or that of `kind`; add what is not as it was written to the lists.

    Raises:
        CheckpointError: one cannot be read or is not what was written.
    """
    for path in sorted(folder.glob(f"{kind}.safetensors")):
        _, header = load_export(folder, path.stem)
        if SEAL not in header:
            warnings.append(f"{path.name} was written without a hash of its header")
        copy = path.with_suffix(".json")
        if copy.is_file() and read_json(copy, CheckpointError) != header:
            problems.append(f"{copy.name} is not the header of {path.name}")
