"""What a path holds: a run, an export, a checkpoint, an embedding file or an index, told by looking inside, not at the name."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import partial_path
from galirep.errors import CheckpointError, DataError
from galirep.networks.export_file import load_export
from galirep.runs.checkpoint import load_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.search.index_file import is_index, read_info

_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"


def info(path: str | Path) -> dict[str, Any]:
    """Say what galirep made at `path`: a JSON object with `path`, `kind` (run, export, checkpoint, embeddings, index) and what it holds.

    Raises:
        DataError, CheckpointError: nothing is there, it is none of galirep's, or it is damaged.
    """
    path = Path(path)
    found = _inspect(path)
    return {"path": str(path), **found}


def _inspect(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return _directory(path)
    if not path.exists():
        hint = f"; an interrupted run left {partial_path(path)}" if partial_path(path).exists() else ""
        raise DataError(f"{path}: no such file or directory{hint}")
    with path.open("rb") as file:
        start = file.read(8)
    if start == _HDF5:
        return _embeddings(path)
    if path.suffix == ".safetensors":
        return _export(path)
    if is_index(path):
        return {"kind": "index", **read_info(path).to_dict()}
    if start.startswith(_ZIP) or path.suffix == ".pt":
        return _checkpoint(path)
    raise DataError(
        f"{path} is nothing that galirep made: no run directory, checkpoint, embedding file (.h5) or index (.faiss)"
    )


def _directory(path: Path) -> dict[str, Any]:
    run = RunDirectory(path)
    if run.exists:
        try:
            config, run_info, metrics = (
                yaml.safe_load(run.config_file.read_text(encoding="utf-8")),
                run.info(),
                run.metrics(),
            )
        except (ValueError, yaml.YAMLError) as err:
            raise CheckpointError(f"{path}: a file of the run is damaged: {err}") from err
        exports = sorted(str(file.relative_to(path)) for file in run.export.glob("*.safetensors"))
        checkpoints = {
            str(file.relative_to(path)): file.stat().st_size for file in sorted(run.last.parent.glob("*.pt"))
        }
        return {
            "kind": "run",
            **run_info,
            "config": config,
            "last_metrics": metrics[-1] if metrics else None,
            "checkpoints": checkpoints,
            "exports": exports,
        }
    for export in sorted(path.glob("*.safetensors")):
        return _export(export)
    raise DataError(f"{path} is no run of galirep: it has neither run.json with config.yaml, nor an exported network")


def _export(path: Path) -> dict[str, Any]:
    tensors, about = load_export(path.parent, path.stem)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return {**about, "kind": "export", "network": about["kind"], "tensors": len(tensors), "parameters": parameters}


def _checkpoint(path: Path) -> dict[str, Any]:
    content = load_checkpoint(path)
    plain = {name: value for name, value in content.items() if isinstance(value, str | int | float | bool)}
    return {"kind": "checkpoint", "bytes": path.stat().st_size, **plain, "parts": sorted(content.keys() - plain.keys())}


def _embeddings(path: Path) -> dict[str, Any]:
    with load_embeddings(path, incomplete=True) as file:
        labels = file.labels
        return {
            "kind": "embeddings",
            **asdict(file.meta),
            "layers": dict(file.meta.layers),
            "complete": file.complete,
            "rows": len(file),
            "unreadable": len(file.errors),
            "dim": file.dim,
            "labelled": 0 if labels is None else int(np.sum(labels >= 0)),
            "classes": 0 if labels is None else len(np.unique(labels[labels >= 0])),
            "first_ids": [str(name) for name in file.ids[:3]],
            "bytes": path.stat().st_size,
            "created": file.attributes.get("created"),
            "versions": json.loads(file.attributes.get("versions", "{}")),
        }
