"""`verify`: is an embedding file complete and sane, and does its encoder still give these features for these images?"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galirep.data.catalog import open_data
from galirep.data.sources import ImageSource
from galirep.embeddings.encoder_of import extractor_of
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.errors import ConfigError, DataError, format_list
from galirep.features.extraction import extract
from galirep.features.protocol import FeatureExtractor

SAMPLE = 64


@dataclass
class VerifyResult:
    """What `verify` found: `problems` make the file unfit for use, `warnings` are worth a look; both hold one line for each finding.

    `compared` images were embedded again; `worst` is the largest relative difference among them.
    """

    path: Path
    rows: int
    valid: int
    dim: int
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    compared: int = 0
    worst: float | None = None
    tolerance: float | None = None


def verify(
    path: str | Path,
    *,
    encoder: str | FeatureExtractor | None = None,
    data: str | ImageSource | None = None,
    split: str | None = None,
    sample: int = SAMPLE,
    tolerance: float | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    file_locking: bool | None = None,
) -> VerifyResult:
    """Check an embedding file: completeness, ids, labels, each row for NaN, constant or repeated values. Findings are returned, not raised.

    With `encoder` or `data` (default of the other: what the file names), `sample` random images are embedded again. The distance of the new
    vector from the stored one, relative to the length of the stored one, must not exceed `tolerance` (default: `tolerance_of`).

    Raises:
        DataError: `path` is no embedding file that can be read, or `data` cannot be read.
        ConfigError: `sample` is less than 1.
        PluginError: the encoder cannot be built.
    """
    if sample < 1:
        raise ConfigError(f"sample {sample}: compare at least 1 image")
    with load_embeddings(path, valid_only=False, incomplete=True, locking=file_locking) as found:
        result = VerifyResult(Path(path), len(found), len(found) - len(found.errors), found.dim)
        if not found.complete:
            result.problems.append(f"not complete: {len(found)} of {found.meta.n_expected} rows")
        if found.errors:
            reasons = format_list((f"{name}: {reason}" for name, reason in found.errors), separator="; ")
            result.warnings.append(
                f"{len(found.errors)} images could not be read, so their rows are not valid: {reasons}"
            )
        _check_ids(found, result)
        _check_labels(found, result)
    with load_embeddings(path, incomplete=True, locking=file_locking) as found:
        _check_rows(found, result)
        if encoder is not None or data is not None:
            meta = found.meta
            if data is None or isinstance(data, str):
                data = open_data(data or meta.source, split or meta.split, root=data_root, download=download)
            try:
                extractor = extractor_of(meta, encoder, download=download, device=device)
            except DataError as err:
                result.problems.append(str(err))
                return result
            result.tolerance = tolerance_of(meta) if tolerance is None else tolerance
            rows = _sample(found, data, sample, seed, result)
            if len(rows):
                _compare(found, data, rows, extractor, result, num_workers=num_workers, device=device)
    return result


def tolerance_of(meta: StoreMeta) -> float:
    """The relative difference that rounding explains: 1e-3 for fp32, 5e-3 if stored as float16, 5e-2 if computed in bf16 or fp16."""
    return 5e-2 if meta.precision != "fp32" else 5e-3 if meta.dtype == "float16" else 1e-3


def _check_ids(found: Embeddings, result: VerifyResult) -> None:
    counts = Counter(found.ids.tolist())
    if twice := [name for name, count in counts.items() if count > 1]:
        result.problems.append(f"duplicate ids ({len(twice)}): {format_list(twice)}")
    if counts[""]:
        result.problems.append(f"empty ids ({counts['']})")


def _check_labels(found: Embeddings, result: VerifyResult) -> None:
    if found.labels is None:
        if found.label_names:
            result.warnings.append(f"{len(found.label_names)} label names, but no row has a label")
        return
    classes = len(found.label_names) or int(found.labels.max()) + 1
    if len(wrong := np.flatnonzero((found.labels < -1) | (found.labels >= classes))):
        result.problems.append(f"labels outside -1 to {classes - 1} ({len(wrong)}): {format_list(found.ids[wrong])}")
    if missing := int((found.labels == -1).sum()):
        result.warnings.append(f"{missing} of {len(found.labels)} rows have no label")
    if len(set(found.label_names)) < len(found.label_names):
        result.problems.append(f"label names repeat: {format_list(found.label_names, 20)}")


def _check_rows(found: Embeddings, result: VerifyResult) -> None:
    hashes = np.empty(
        len(found), np.uint64
    )  # among a million different rows, two share their 64 bits once in 40 million files
    broken: list[NDArray[np.object_]] = []
    constant: list[NDArray[np.object_]] = []
    for rows, block in found.blocks():
        finite = np.isfinite(block).all(axis=1)
        broken.append(found.ids[rows][~finite])
        constant.append(found.ids[rows][finite & (block.min(axis=1) == block.max(axis=1)) & (found.dim > 1)])
        hashes[rows] = [
            int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in block
        ]
    for parts, what in ((broken, "rows with NaN or infinity"), (constant, "constant rows")):
        if names := [name for part in parts for name in part]:
            result.problems.append(f"{what} ({len(names)}): {format_list(names)}")
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(found) > 1 and len(again) == len(found) - 1:
        result.problems.append(f"all {len(found)} rows are equal: the encoder gives one answer for every image")
    elif len(again):
        pairs = format_list(f"{found.ids[order[i]]} = {found.ids[order[i + 1]]}" for i in again)
        result.warnings.append(f"rows equal to another one, as of equal images ({len(again)}): {pairs}")


def _sample(found: Embeddings, source: ImageSource, sample: int, seed: int, result: VerifyResult) -> NDArray[np.int64]:
    if source.fingerprint != found.meta.fingerprint:
        result.warnings.append(
            f"the images of {source.spec} are not just those that were embedded: their fingerprint differs"
        )
    known = set(source.ids)
    if missing := [name for name in found.ids if name not in known]:
        result.problems.append(f"ids that {source.spec} does not have ({len(missing)}): {format_list(missing)}")
    there = np.array([row for row, name in enumerate(found.ids) if name in known], np.int64)
    return np.sort(np.random.default_rng(seed).permutation(there)[:sample])


def _compare(
    found: Embeddings,
    source: ImageSource,
    rows: NDArray[np.int64],
    extractor: FeatureExtractor,
    result: VerifyResult,
    *,
    num_workers: int | None,
    device: str,
) -> None:
    place = {name: index for index, name in enumerate(source.ids)}
    chosen = source.subset([place[name] for name in found.ids[rows]])
    precision, no_limit = (
        found.meta.precision,
        float("inf"),
    )  # how much they may be enlarged was settled when they were embedded
    features, errors = extract(
        extractor, chosen, num_workers=num_workers, device=device, precision=precision, max_upscale=no_limit
    )
    if errors:
        result.problems.append(
            f"images that could be read once and cannot now ({len(errors)}): {format_list(chosen.ids[i] for i in errors)}"
        )
    readable = np.setdiff1d(np.arange(len(rows)), list(errors))
    stored = found.features[rows[readable]]
    distance = np.linalg.norm(features[readable] - stored, axis=1) / np.maximum(np.linalg.norm(stored, axis=1), 1e-12)
    result.compared, result.worst = len(readable), float(distance.max(initial=0))
    if len(off := np.flatnonzero(~(distance <= (result.tolerance or 0)))):
        names = format_list(f"{chosen.ids[readable[i]]} ({distance[i]:.2g})" for i in off)
        result.problems.append(
            f"{len(off)} of {len(readable)} images embedded again differ by more than {result.tolerance:g}: {names}"
        )
