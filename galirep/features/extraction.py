"""Build an extractor from a spec or an object, and extract the features of a few images into memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from galirep.data.sources import ImageSource
from galirep.errors import DataError
from galirep.features.pipeline import BATCH_SIZE, BatchExtractor, read_batches, to_numpy
from galirep.features.preparation import prepare_extractor, select_layers
from galirep.features.protocol import Description, FeatureExtractor, describe
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
) -> tuple[FeatureExtractor, Description]:
    """Return the extractor of a spec, or the given one, checked and on `device`, with its description.

    torch's seed is `seed` while it is built, and as before afterwards.

    Raises:
        PluginError: it cannot be built, or a layer does not exist.
    """
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if isinstance(encoder, str | Path):
            extractor = load_extractor(encoder, layers=layers, download=download, device=device)
            return extractor, describe(extractor, str(encoder))
        extractor = select_layers(encoder, layers, encoder.name)
        extractor = prepare_extractor(extractor, extractor.name, device)
        return extractor, describe(extractor)
