"""Features of real images, which never change: computed once for an extractor and a data set, kept on disk, checked when read."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from galirep.data.tensors import image_blocks, to_float
from galirep.errors import DataError, PluginError
from galirep.features.protocol import Description, FeatureExtractor, describe
from galirep.metrics.arrays import F32
from galirep.system.files import atomic_write, sha256_file, sha256_json, write_json

_log = logging.getLogger(__name__)


def default_folder() -> Path:
    """Where features are kept unless said otherwise: $GALIREP_CACHE, or galirep/ in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("GALIREP_CACHE"):
        return Path(own)
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
    """The features of `pixels` (N, C, S, S) uint8: (N, dim) float32, a read-only memory map of a file in `folder` (see `default_folder`).

    The file is named by what decides its content: the extractor's name, weights, layers and preprocessing, and the images' fingerprint,
    number and shape. It is read if it is there and whole, else computed in one pass over the images and put there in one step. An extractor
    that records no hash of its weights is told apart by what it makes of four images. `progress` is called with the number of images done.

    Raises:
        PluginError: the extractor does not give (B, dim) finite float32.
        DataError: the file is there, but of another extractor or of other images than its name says, or there is no space for it.
    """
    about = describe(extractor)
    where = torch.device(device)
    key = _key(extractor, about, pixels, fingerprint, where)
    folder = default_folder() if folder is None else folder
    path = folder / f"features-{sha256_json(key)[:32]}.npy"
    found = _read(path, key, (len(pixels), about.dim))
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").unlink(
            missing_ok=True
        )  # whoever is stopped between the two files leaves none that looks whole
        with atomic_write(path) as temporary:
            features = open_memmap(temporary, "w+", np.float32, (len(pixels), about.dim))
            done = 0
            for images in image_blocks(pixels, batch_size, where):
                features[done : done + len(images)] = _extract(extractor, about, images)
                done += len(images)
                if progress is not None:
                    progress(done)
            features.flush()
        write_json(path.with_suffix(".json"), {"key": key, "sha256": sha256_file(path)})
        found = np.load(path, mmap_mode="r")
    return found


def _key(
    extractor: FeatureExtractor, about: Description, pixels: Tensor, fingerprint: str, device: torch.device
) -> dict[str, Any]:
    weights = about.sha256
    if not weights:
        shown = pixels[torch.linspace(0, len(pixels) - 1, min(4, len(pixels))).long()]
        weights = "output " + hashlib.sha256(_extract(extractor, about, to_float(shown, device)).tobytes()).hexdigest()
    return {
        "extractor": about.name,
        "weights": weights,
        "layers": [list(layer) for layer in about.layers],
        "preprocessing": json.loads(json.dumps(dict(about.preprocessing))),
        "data": fingerprint,
        "images": list(pixels.shape),
    }


def _read(path: Path, key: dict[str, Any], shape: tuple[int, int]) -> F32 | None:
    """The cached features, or None where they have to be computed."""
    if not path.exists() or not path.with_suffix(".json").exists():
        return None
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        theirs, digest = card["key"], card["sha256"]
    except (ValueError, KeyError, TypeError):
        theirs, digest = None, ""
    if theirs is not None and theirs != key:
        differing = "; ".join(
            f"{name}: {theirs.get(name)!r}, not {key[name]!r}" for name in key if theirs.get(name) != key[name]
        )
        raise DataError(f"{path} holds features of something else ({differing}): delete it")
    if sha256_file(path) != digest:
        _log.warning("%s is damaged: its features are computed again", path)
        return None
    features: F32 = np.load(path, mmap_mode="r")
    assert features.shape == shape and features.dtype == np.float32
    return features


@torch.no_grad()
def _extract(extractor: FeatureExtractor, about: Description, images: Tensor) -> F32:
    features = extractor(images)
    wanted = (len(images), about.dim)
    if not isinstance(features, Tensor) or tuple(features.shape) != wanted or not bool(features.isfinite().all()):
        raise PluginError(f"the extractor {about.name!r} must give {wanted} finite float32 for as many images")
    array: F32 = features.float().cpu().numpy()
    return array
