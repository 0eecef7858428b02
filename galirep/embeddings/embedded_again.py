"""Embedding a sample of the images of a file again, and comparing the features with those that it has."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galirep.data.sources import ImageSource
from galirep.embeddings.integrity.findings import Findings
from galirep.embeddings.reader import Embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.errors import format_list
from galirep.features.extraction import extract
from galirep.features.protocol import FeatureExtractor


@dataclass(frozen=True)
class Comparison:
    """How many images were embedded again, and the largest relative difference, of which `tolerance` is allowed."""

    compared: int = 0
    worst: float | None = None
    tolerance: float | None = None


def tolerance_of(meta: StoreMeta) -> float:
    """Return the relative difference that rounding explains.

    1e-3 for fp32, 5e-3 if stored as float16, 5e-2 if computed in bf16 or fp16.
    """
    if meta.precision != "fp32":
        return 5e-2
    return 5e-3 if meta.dtype == "float16" else 1e-3


def sample_rows(
    embeddings: Embeddings, source: ImageSource, sample: int, seed: int, findings: Findings
) -> NDArray[np.int64]:
    """Return the sorted numbers of up to `sample` random rows whose images `source` has."""
    if source.fingerprint != embeddings.meta.fingerprint:
        findings.warnings.append(
            f"the images of {source.spec} are not exactly those that were embedded: their fingerprint differs"
        )
    source_ids = set(source.ids)
    if missing := [name for name in embeddings.ids if name not in source_ids]:
        findings.problems.append(f"ids that {source.spec} does not have ({len(missing)}): {format_list(missing)}")
    candidates = np.array([row for row, name in enumerate(embeddings.ids) if name in source_ids], np.int64)
    return np.sort(np.random.default_rng(seed).permutation(candidates)[:sample])


def compare_again(
    embeddings: Embeddings,
    source: ImageSource,
    rows: NDArray[np.int64],
    extractor: FeatureExtractor,
    findings: Findings,
    tolerance: float | None = None,
    *,
    num_workers: int | None,
    device: str,
) -> Comparison:
    """Embed the images of `rows` again and compare them with the stored features."""
    tolerance = tolerance_of(embeddings.meta) if tolerance is None else tolerance
    if not len(rows):
        return Comparison(tolerance=tolerance)
    index = {name: i for i, name in enumerate(source.ids)}
    images = source.subset([index[name] for name in embeddings.ids[rows]])
    features, errors = extract(
        extractor,
        images,
        num_workers=num_workers,
        device=device,
        precision=embeddings.meta.precision,
        # the limit was applied when the images were embedded
        max_upscale=float("inf"),
    )
    if errors:
        ids = format_list(images.ids[i] for i in errors)
        findings.problems.append(f"images that could be read before and cannot be read now ({len(errors)}): {ids}")
    readable = np.setdiff1d(np.arange(len(rows)), list(errors))
    # in float64, where the squares of large features are finite
    stored = np.asarray(embeddings.features[rows[readable]], np.float64)
    distance = np.linalg.norm(features[readable] - stored, axis=1) / np.maximum(np.linalg.norm(stored, axis=1), 1e-12)
    # not `distance > tolerance`, which is false for NaN
    too_far = np.flatnonzero(~(distance <= tolerance))
    if len(too_far):
        ids = format_list(f"{images.ids[readable[i]]} ({distance[i]:.2g})" for i in too_far)
        share = f"{len(too_far)} of {len(readable)}"
        findings.problems.append(f"{share} images embedded again differ by more than {tolerance:g}: {ids}")
    return Comparison(len(readable), float(distance.max(initial=0)), tolerance)
