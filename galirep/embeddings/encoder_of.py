"""The encoder that made an embedding file: what the file records of it, and building the same one again."""

import dataclasses
import json
from typing import Any

from galirep.embeddings.schema import StoreMeta, differences
from galirep.errors import DataError
from galirep.features.extraction import build_extractor
from galirep.features.protocol import Description, FeatureExtractor
from galirep.features.registry import require_no_code
from galirep.system.devices import device_of


def extractor_of(
    meta: StoreMeta,
    encoder: str | FeatureExtractor | None = None,
    *,
    download: bool = False,
    device: str = "auto",
    trust_encoder: bool = False,
) -> FeatureExtractor:
    """Build the extractor that made an embedding file, with the same layers.

    It is built from the spec in the file, or is `encoder` if that is the same one. A spec in the file that is code is
    run only if `trust_encoder` is true; `encoder` may be any.

    Raises:
        DataError: the extractor differs from the recorded one; each difference is listed.
        PluginError: it cannot be built, or the file names code and is not trusted.
    """
    if encoder is None:
        require_no_code(meta.encoder_spec, trust_encoder=trust_encoder, by_hand="--encoder")
    recorded_layers = tuple(name for name, _ in meta.layers)
    torch_device = device_of(device)
    extractor, description = build_extractor(
        encoder or meta.encoder_spec,
        download=download,
        device=torch_device,
        seed=meta.seed,
        trust_encoder=trust_encoder,
    )
    layers = tuple(name for name, _ in description.layers)
    if layers != recorded_layers and hasattr(extractor, "with_layers"):
        extractor, description = build_extractor(extractor, layers=recorded_layers, device=torch_device)
    built_meta = dataclasses.replace(meta, **encoder_fields(description))
    if mismatches := differences(meta, built_meta, StoreMeta.ENCODER):
        raise DataError(f"the encoder {description.spec!r} is not the one that made the file: {'; '.join(mismatches)}")
    return extractor


def encoder_fields(description: Description) -> dict[str, Any]:
    """Return the fields of `StoreMeta` that identify the encoder (`StoreMeta.ENCODER`)."""
    return {
        "encoder": description.name,
        "encoder_tag": description.tag,
        "encoder_sha256": description.sha256,
        # through JSON, as it will be read from the file: tuples become lists
        "preprocessing": json.loads(json.dumps(dict(description.preprocessing))),
        "layers": tuple((name, int(width)) for name, width in description.layers),
    }
