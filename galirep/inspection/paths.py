"""`info`: tell what galirep made at a path, mostly by the content of the file and not by its name."""

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
    """Describe what galirep made at `path`.

    Returns a JSON object with `path`, `kind` (run, export, checkpoint, embeddings or index) and the contents.

    Raises:
        DataError, CheckpointError: the path does not exist, was not made by galirep, or is damaged.
    """
    path = Path(path)
    return {"path": str(path), **_describe(path)}


def _describe(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return _describe_folder(path)
    if not path.exists():
        hint = f"; an interrupted run left {partial_path(path)}" if partial_path(path).exists() else ""
        raise DataError(f"{path}: no such file or directory{hint}")
    with path.open("rb") as file:
        first_bytes = file.read(8)
    if first_bytes == _HDF5:
        return _describe_embeddings(path)
    if path.suffix == ".safetensors":
        return _describe_export(path)
    if is_index(path):
        return {"kind": "index", **read_info(path).to_dict()}
    if first_bytes.startswith(_ZIP) or path.suffix == ".pt":
        return _describe_checkpoint(path)
    raise DataError(
        f"{path} was not made by galirep: it is not a run directory, checkpoint, embedding file (.h5) or index (.faiss)"
    )


def _describe_folder(path: Path) -> dict[str, Any]:
    run = RunDirectory(path)
    if run.exists:
        return _describe_run(run)
    exports = sorted(path.glob("*.safetensors"))
    if not exports:
        raise DataError(
            f"{path} is not a run of galirep: it has neither run.json with config.yaml, nor an exported network"
        )
    return _describe_export(exports[0])


def _describe_run(run: RunDirectory) -> dict[str, Any]:
    try:
        config = yaml.safe_load(run.config_file.read_text(encoding="utf-8"))
        run_info = run.info()
        metrics = run.metrics()
    except (ValueError, yaml.YAMLError) as err:
        raise CheckpointError(f"{run.path}: a file of the run is damaged: {err}") from err
    checkpoints = sorted(run.last.parent.glob("*.pt"))
    return {
        "kind": "run",
        **run_info,
        "config": config,
        "last_metrics": metrics[-1] if metrics else None,
        "checkpoints": {str(file.relative_to(run.path)): file.stat().st_size for file in checkpoints},
        "exports": sorted(str(file.relative_to(run.path)) for file in run.export.glob("*.safetensors")),
    }


def _describe_export(path: Path) -> dict[str, Any]:
    tensors, header = load_export(path.parent, path.stem)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return {**header, "kind": "export", "network": header["kind"], "tensors": len(tensors), "parameters": parameters}


def _describe_checkpoint(path: Path) -> dict[str, Any]:
    content = load_checkpoint(path)
    plain = {name: value for name, value in content.items() if isinstance(value, str | int | float | bool)}
    return {"kind": "checkpoint", "bytes": path.stat().st_size, **plain, "parts": sorted(content.keys() - plain.keys())}


def _describe_embeddings(path: Path) -> dict[str, Any]:
    with load_embeddings(path, incomplete=True) as embeddings:
        labels = np.empty(0, np.int64) if embeddings.labels is None else embeddings.labels
        labelled = labels[labels >= 0]
        return {
            "kind": "embeddings",
            **asdict(embeddings.meta),
            "layers": dict(embeddings.meta.layers),
            "complete": embeddings.complete,
            "rows": len(embeddings),
            "unreadable": len(embeddings.errors),
            "dim": embeddings.dim,
            "labelled": len(labelled),
            "classes": len(np.unique(labelled)),
            "first_ids": [str(name) for name in embeddings.ids[:3]],
            "bytes": path.stat().st_size,
            "created": embeddings.attributes.get("created"),
            "versions": json.loads(embeddings.attributes.get("versions", "{}")),
        }
