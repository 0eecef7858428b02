"""`info`: tell what galirep made at a path, mostly by the content of the file, and what a set of images holds."""

import json
import tarfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from galirep.data.catalog import SPECS
from galirep.data.files.formats import is_picture
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import partial_path
from galirep.errors import ConfigError, DataError
from galirep.inspection.data import DataOptions, describe_data
from galirep.inspection.reproduction import reproduction_of
from galirep.networks.export_file import load_export
from galirep.runs.checkpoint import load_checkpoint
from galirep.runs.directory import RunDirectory, networks_instead_of_run
from galirep.search.index_file import is_index, read_info
from galirep.system.outputs.holding import locks_outputs
from galirep.system.reading.files import require_regular

_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"


@locks_outputs("out", inputs=("path",))
def info(
    path: str | Path,
    *,
    split: str | None = None,
    splits: str | Sequence[str] | None = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    num_workers: int | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    reproduce: bool = False,
) -> dict[str, Any]:
    """Describe what galirep made at `path`, or the set of images that it names.

    Returns a JSON object with `path`, `kind` (run, export, checkpoint, embeddings, index or data) and the contents. A
    folder that is a run is described as one. Of a set of images (a folder, a tar or any other spec of `open_data`) all
    splits are read, or `split` alone; `out` is a PNG file for a contact sheet. The other options are as in `open_data`.

    `reproduce` adds to a run, under that key, the command that makes it again (see `reproduction.Reproduction`).

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        DataError, CheckpointError: the path does not exist, is neither images nor made by galirep, or is damaged.
        ConfigError: `out`, `split` or `splits` with something else than images, `reproduce` with something else than
            a run, or `out` exists.
    """
    options = DataOptions(
        split, splits, data_root, download, num_workers, None if out is None else Path(out), overwrite
    )
    described = _describe(str(path), Path(path), options)
    if described["kind"] != "data" and (split is not None or splits not in (None, "auto") or out is not None):
        raise ConfigError(f"{path} is {described['kind']}, not images: leave --split, --splits and --out out")
    if not reproduce:
        return {"path": str(path), **described}
    if not RunDirectory(path).exists:
        raise ConfigError(f"{path} is {described['kind']}, not a run: --reproduce is for what train made")
    return {"path": str(path), **described, "reproduce": reproduction_of(path).to_dict()}


def _describe(spec: str, path: Path, options: DataOptions) -> dict[str, Any]:
    if not path.exists() and _is_spec(spec):
        return describe_data(spec, options)
    if path.is_dir():
        return _describe_folder(path, options)
    if not path.exists():
        if networks := networks_instead_of_run(path):
            raise DataError(networks)
        hint = f"; an interrupted run left {partial_path(path)}" if partial_path(path).exists() else ""
        raise DataError(f"{path}: no such file or directory{hint}")
    require_regular(path, str(path), DataError)
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
    if path.suffix == ".tar" or (tarfile.is_tarfile(path) and not is_picture(path.name)):
        return describe_data(spec, options)
    raise DataError(
        f"{path} was not made by galirep: it is not a run directory, checkpoint, embedding file (.h5) or index "
        "(.faiss), nor is it a set of images (a folder, a .tar, csv:FILE, npz:FILE, hdf5:FILE)"
    )


def _is_spec(spec: str) -> bool:
    """Return whether a text is a data set that is no folder or tar, such as csv:list.csv."""
    kind, colon, _ = spec.partition(":")
    return bool(colon) and kind in {known.partition(":")[0] for known in SPECS if ":" in known}


def _describe_folder(path: Path, options: DataOptions) -> dict[str, Any]:
    run = RunDirectory(path)
    if run.exists:
        return _describe_run(run)
    exports = sorted(file.stem for file in path.glob("*.safetensors"))
    if exports:
        # of a run's networks, E is what the export is named for
        chosen = "encoder" if "encoder" in exports else exports[0]
        return {**_describe_export(path / f"{chosen}.safetensors"), "exports": exports}
    try:
        return describe_data(str(path), options)
    except DataError as err:
        raise DataError(f"{path} is not a run of galirep (run.json, config.yaml), and as images: {err}") from err


def _describe_run(run: RunDirectory) -> dict[str, Any]:
    config, run_info, metrics = run.settings(), run.info(), run.metrics()
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
