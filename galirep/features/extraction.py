"""Build an extractor from a spec or an object, also as E's body, and extract features of a few images into memory."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from galirep.data.sources import ImageSource
from galirep.errors import CheckpointError, DataError, GalirepError
from galirep.features.pipeline import BATCH_SIZE, BatchExtractor, read_batches, to_numpy
from galirep.features.preparation import prepare_extractor, select_layers
from galirep.features.protocol import Description, FeatureExtractor, describe, origin_of
from galirep.features.registry import load_extractor, parse, require_no_code, split_layers
from galirep.networks.body import Body
from galirep.networks.export_file import export_folder, run_folder, sha256_tensors
from galirep.networks.header import NamedHeader, check_header
from galirep.networks.saved import BODY_FOLDER, read_export
from galirep.system.devices import device_of
from galirep.system.reading.documents import read_json
from galirep.system.threads import prefetched


def extract(
    extractor: FeatureExtractor,
    source: ImageSource,
    *,
    batch_size: int = BATCH_SIZE,
    num_workers: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
    max_upscale: float = 2.0,
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Extract the features of a few images into memory.

    Returns (N, dim) float32, and for each row of an image that could not be read (zeros) the reason.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    torch_device, description = device_of(device), describe(extractor)
    if isinstance(extractor, torch.nn.Module):
        extractor.to(torch_device)
    batch_size = min(batch_size, len(source))
    extract_batch = BatchExtractor(extractor, description.dim, batch_size, torch_device, precision)
    features = np.zeros((len(source), description.dim), np.float32)
    errors: dict[int, str] = {}
    batches = read_batches(source, description, batch_size, num_workers=num_workers, max_upscale=max_upscale)
    with prefetched(batches) as ready:
        for batch in ready:
            features[batch.start : batch.start + batch.size] = to_numpy(extract_batch(batch))
            errors.update({batch.start + position: reason for position, reason in batch.errors.items()})
    if len(bad_rows := np.flatnonzero(~np.isfinite(features).all(axis=1))):
        raise DataError(
            f"{description.name} gives NaN or infinite features for {source.ids[int(bad_rows[0])]} "
            f"({len(bad_rows)} of {len(source)} images)"
        )
    return features, errors


def build_extractor(
    encoder: str | Path | FeatureExtractor,
    *,
    layers: Sequence[str] | None = None,
    download: bool = False,
    device: torch.device | str = "cpu",
    seed: int = 0,
    trust_encoder: bool = False,
) -> tuple[FeatureExtractor, Description]:
    """Return the extractor of a spec, or the given one, checked and on `device`, with its description.

    torch's seed is `seed` while it is built, and as before afterwards. `trust_encoder` is as in `load_extractor`.

    Raises:
        PluginError: it cannot be built, or a layer does not exist.
    """
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if isinstance(encoder, str | Path):
            extractor = load_extractor(
                encoder, layers=layers, download=download, device=device, trust_encoder=trust_encoder
            )
            return extractor, describe(extractor, str(encoder))
        extractor = select_layers(encoder, layers, encoder.name)
        extractor = prepare_extractor(extractor, extractor.name, device)
        return extractor, describe(extractor)


def note_of_best(spec: str) -> str:
    """Return what is worth telling of a run that an extractor spec names: that its best networks are others.

    Empty where the spec is no run, chooses by itself (RUN@last), or has no other best networks.
    """
    name, argument = parse(split_layers(spec)[0])
    if name != "run" or argument.endswith("@last"):
        return ""
    folder = run_folder(argument)
    steps = []
    for export in (folder / "export", folder / "best"):
        if not (export / "encoder.json").is_file():
            return ""
        header = check_header(read_json(export / "encoder.json", CheckpointError), NamedHeader, export)
        steps.append(header["step"])
    if steps[0] == steps[1]:
        return ""
    return (
        f"{argument} stands for its last networks, of step {steps[0]}; the best on held-out images are those of step "
        f"{steps[1]}: {argument}@best"
    )


_OWN = ("run", "classifier")
"""Adapters of galirep's own nets: an export of a net on one of these has a copy of it."""


def make_body(extractor: FeatureExtractor, spec: str | None, rate: float = 0.0) -> Body:
    """Return an extractor as the body of E: what is recorded of it, and the files that an export gets a copy of.

    `spec` None stands for an object that was handed over in Python.
    """
    description = describe(extractor)
    sha256 = description.sha256
    if not sha256 and isinstance(extractor, torch.nn.Module):
        sha256 = sha256_tensors(extractor.state_dict())
    adapter, argument = ("", "") if spec is None else parse(split_layers(spec)[0])
    own = adapter in _OWN
    record: dict[str, Any] = {
        "spec": spec,
        "name": description.name,
        "tag": description.tag,
        "sha256": sha256,
        "layers": dict(description.layers),
        "preprocessing": dict(description.preprocessing),
        "origin": origin_of(extractor),
        "rate": rate,
        "copy": adapter if own else None,
    }
    # as it will be read back, tuples as lists
    record = json.loads(json.dumps(record))
    files = read_export(export_folder(Path(argument))) if own else {}
    return Body(extractor, record["layers"], record, files)


def body_by_hand(given: str | Path | FeatureExtractor) -> Callable[[Mapping[str, Any], Path], Body]:
    """Return a loader that takes this extractor for the body of an export, whatever the export says of it.

    Like `load_body` it checks that the extractor is what the encoder was trained on.
    """

    def load(record: Mapping[str, Any], folder: Path) -> Body:
        return _as_recorded(build_extractor(given)[0], record, folder)

    return load


def load_body(record: Mapping[str, Any], folder: Path, *, trust_encoder: bool = False) -> Body:
    """Build what the encoder exported to `folder` stands on: from the copy in it, or else from the recorded spec.

    The spec may be code if `trust_encoder` is true.

    Raises:
        CheckpointError: it is not there any more, is another one by now, or is code, which a file may not name.
    """
    spec = record["spec"]
    try:
        if record["copy"]:
            spec = f"{record['copy']}:{folder / BODY_FOLDER}"
        elif spec is None:
            raise CheckpointError("it was an object in Python")
        else:
            require_no_code(spec, trust_encoder=trust_encoder)
        extractor = load_extractor(spec, trust_encoder=trust_encoder)
    except GalirepError as err:
        raise CheckpointError(
            f"{folder}: the encoder stands on the body {record['name']!r}, which cannot be loaded: {err}; "
            f"from Python, galirep.features.gali.load_run({str(folder)!r}, body=...) takes it by hand"
        ) from err
    return _as_recorded(extractor, record, folder)


def _as_recorded(extractor: FeatureExtractor, record: Mapping[str, Any], folder: Path) -> Body:
    """Return the body with the recorded layers; raise CheckpointError if it is not the one that was recorded."""
    changed = f"{folder}: the encoder stands on the body {record['name']!r}, which is another one by now"
    names, found = tuple(record["layers"]), make_body(extractor, None).record
    if names != tuple(found["layers"]) and found["name"] == record["name"]:
        try:
            extractor = select_layers(extractor, names, extractor.name)
        except GalirepError as err:
            raise CheckpointError(f"{changed}: {err}") from err
        found = make_body(extractor, None).record
    for key in ("name", "sha256", "layers"):
        if found[key] != record[key]:
            raise CheckpointError(f"{changed}: {key} {found[key]!r}, not {record[key]!r}")
    files = read_export(folder / BODY_FOLDER) if record["copy"] else {}
    return Body(extractor, record["layers"], record, files)
