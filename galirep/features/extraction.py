"""Extractors built and told apart, and the features of a few images in memory."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from galirep.data.sources import ImageSource
from galirep.errors import DataError, PluginError
from galirep.features.pipeline import BATCH_SIZE, extract_batch, read_batches, to_numpy
from galirep.features.protocol import Description, FeatureExtractor, check, describe
from galirep.features.registry import load_extractor
from galirep.system.devices import device_of
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
    """The features of a few images in memory: (N, dim) float32, and the reasons for the rows (zeros) of images that could not be read.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    where, about = device_of(device), describe(extractor)
    if isinstance(extractor, torch.nn.Module):
        extractor.to(where)
    features = np.zeros((len(source), about.dim), np.float32)
    errors: dict[int, str] = {}
    with prefetched(
        read_batches(source, about, min(batch_size, len(source)), num_workers=num_workers, max_upscale=max_upscale)
    ) as ready:
        for batch in ready:
            rows = to_numpy(extract_batch(extractor, about.dim, batch, min(batch_size, len(source)), where, precision))
            features[batch.start : batch.start + batch.size] = rows
            errors.update({batch.start + place: reason for place, reason in batch.errors.items()})
    if len(bad := np.flatnonzero(~np.isfinite(features).all(axis=1))):
        raise DataError(
            f"{about.name} gives NaN or infinite features for {source.ids[int(bad[0])]} ({len(bad)} of {len(source)} images)"
        )
    return features, errors


def build_extractor(
    encoder: str | FeatureExtractor,
    *,
    layers: Sequence[str] | None = None,
    download: bool = False,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> tuple[FeatureExtractor, Description]:
    """The extractor of a spec (or the one given) on `device`, checked, with what is recorded of it. torch's global seed stays as it was.

    Raises:
        PluginError: it cannot be built, or lacks a layer.
    """
    spec = encoder if isinstance(encoder, str) else ""
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if isinstance(encoder, str):
            extractor = load_extractor(encoder, layers=layers, download=download, device=device)
        else:
            extractor = encoder
            if layers is not None:
                if not hasattr(extractor, "with_layers"):
                    raise PluginError(f"the extractor {extractor.name!r} has one layer of features: leave layers out")
                extractor = extractor.with_layers(tuple(layers))
            if isinstance(extractor, torch.nn.Module):
                extractor = extractor.to(device).eval()
            extractor = check(extractor, extractor.name, device)
    return extractor, describe(extractor, spec)
