"""A cache on disk for the features of real images: computed once for an extractor and a data set, checked when read."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from galirep.data.tensors import image_blocks, to_float
from galirep.errors import DataError, PluginError
from galirep.features.protocol import Description, FeatureExtractor, describe
from galirep.metrics.arrays import F32
from galirep.system.files import atomic_write, sha256_file, sha256_json, write_json
from galirep.system.outputs.temporary import remove_leftovers_of_ended
from galirep.system.pooling_record import comparable
from galirep.system.reading.arrays import map_npy
from galirep.system.reading.documents import read_json
from galirep.system.reading.records import check


class _Record(TypedDict):
    """What stands beside a file of the cache."""

    key: dict[str, Any]
    sha256: str


_log = logging.getLogger(__name__)


def default_folder() -> Path:
    """Return the default folder of the cache: $GALIREP_CACHE, or galirep/ in $XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("GALIREP_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galirep"


def cached_features(
    extractor: FeatureExtractor,
    pixels: Tensor,
    fingerprint: str,
    *,
    folder: Path | None = None,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> F32:
    """Return the features of `pixels` (N, C, S, S) uint8 as a read-only memory map (N, dim) float32 of a cached file.

    The name of the file in `folder` (default: `default_folder`) is a hash of what decides its content: the extractor's
    name, weights, layers and preprocessing, and the images' fingerprint, number and shape. An existing, undamaged file
    is read; otherwise the features are computed in one pass over the images and the file is written in one step. An
    extractor that records no hash of its weights is identified by its output for four images. `progress` is called with
    the number of images done.

    Raises:
        PluginError: the extractor does not return (B, dim) finite float32.
        DataError: the file exists, but its record names another extractor or other images; or no space is left.
    """
    description = describe(extractor)
    torch_device = torch.device(device)
    key = _cache_key(extractor, description, pixels, fingerprint, torch_device)
    folder = default_folder() if folder is None else folder
    path = folder / f"features-{sha256_json(key)[:32]}.npy"
    cached = _read(path, key, (len(pixels), description.dim))
    if cached is not None:
        return cached

    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers_of_ended(path)
    # without its record, a file that is interrupted between the two writes does not look complete
    path.with_suffix(".json").unlink(missing_ok=True)
    with atomic_write(path) as temporary:
        features = open_memmap(temporary, "w+", np.float32, (len(pixels), description.dim))
        done = 0
        for images in image_blocks(pixels, batch_size, torch_device):
            features[done : done + len(images)] = _extract(extractor, description, images)
            done += len(images)
            if progress is not None:
                progress(done)
        features.flush()
    write_json(path.with_suffix(".json"), {"key": key, "sha256": sha256_file(path)})
    memory_map: F32 = map_npy(path)
    return memory_map


def _cache_key(
    extractor: FeatureExtractor, description: Description, pixels: Tensor, fingerprint: str, device: torch.device
) -> dict[str, Any]:
    weights = description.sha256
    if not weights:
        sample = pixels[torch.linspace(0, len(pixels) - 1, min(4, len(pixels))).long()]
        output = _extract(extractor, description, to_float(sample, device))
        weights = "output " + hashlib.sha256(output.tobytes()).hexdigest()
    return {
        "extractor": description.name,
        "weights": weights,
        "layers": [list(layer) for layer in description.layers],
        "preprocessing": json.loads(json.dumps(comparable(description.preprocessing))),
        "data": fingerprint,
        "images": list(pixels.shape),
    }


def _read(path: Path, key: dict[str, Any], shape: tuple[int, int]) -> F32 | None:
    """Return the cached features, or None if they must be computed."""
    record_path = path.with_suffix(".json")
    if not path.exists() or not record_path.exists():
        return None
    try:
        record = check(read_json(record_path, DataError), _Record, str(record_path), DataError)
        recorded_key, digest = record["key"], record["sha256"]
    except DataError:
        recorded_key, digest = None, ""
    if recorded_key is not None and recorded_key != key:
        differences = "; ".join(
            f"{name}: {recorded_key.get(name)!r}, not {value!r}"
            for name, value in key.items()
            if recorded_key.get(name) != value
        )
        raise DataError(f"{path} contains features of something else ({differences}): delete it")
    if sha256_file(path) == digest:
        with suppress(DataError):
            features: F32 = map_npy(path)
            if features.shape == shape and features.dtype == np.float32:
                return features
    _log.warning("%s is damaged: its features are computed again", path)
    return None


@torch.no_grad()
def _extract(extractor: FeatureExtractor, description: Description, images: Tensor) -> F32:
    features = extractor(images)
    shape = (len(images), description.dim)
    if not isinstance(features, Tensor) or tuple(features.shape) != shape or not bool(features.isfinite().all()):
        raise PluginError(
            f"the extractor {description.name!r} must give {shape} finite float32 for {len(images)} images"
        )
    array: F32 = features.float().cpu().numpy()
    return array
