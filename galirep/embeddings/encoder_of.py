"""Which encoder made an embedding file, and the same one built again."""

import dataclasses
import json
from typing import Any

from galirep.embeddings.schema import StoreMeta, differences
from galirep.errors import DataError
from galirep.features.extraction import build_extractor
from galirep.features.protocol import Description, FeatureExtractor
from galirep.system.devices import device_of


def extractor_of(
    meta: StoreMeta, encoder: str | FeatureExtractor | None = None, *, download: bool = False, device: str = "auto"
) -> FeatureExtractor:
    """The extractor that made an embedding file, with the same layers: the one it names, or `encoder` if that is the same.

    Raises:
        DataError: it is another one now: each difference listed.
        PluginError: it cannot be built.
    """
    wanted = tuple(name for name, _ in meta.layers)
    where = device_of(device)
    extractor, about = build_extractor(encoder or meta.encoder_spec, download=download, device=where, seed=meta.seed)
    if tuple(name for name, _ in about.layers) != wanted and hasattr(extractor, "with_layers"):
        extractor, about = build_extractor(extractor, layers=wanted, device=where)
    if differ := differences(meta, dataclasses.replace(meta, **identity(about)), StoreMeta.ENCODER):
        raise DataError(f"the encoder {about.spec!r} is not the one that made the file: {'; '.join(differ)}")
    return extractor


def identity(about: Description) -> dict[str, Any]:
    """The fields of `StoreMeta` that say which encoder made the features: `StoreMeta.ENCODER`."""
    return {
        "encoder": about.name,
        "encoder_tag": about.tag,
        "encoder_sha256": about.sha256,
        "preprocessing": json.loads(
            json.dumps(dict(about.preprocessing))
        ),  # as it will be read again: tuples are lists
        "layers": tuple((name, int(width)) for name, width in about.layers),
    }
