"""`verify`: check that an embedding file is complete and valid, and that its encoder still gives the same features."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class VerifyResult:
    """The outcome of `verify`: `problems` make the file unfit for use, `warnings` do not; both are lists of messages.

    `compared` images were embedded again; `worst` is the largest relative difference among them.
    """

    path: Path
    rows: int
    valid: int
    dim: int
    problems: list[str]
    warnings: list[str]
    compared: int = 0
    worst: float | None = None
    tolerance: float | None = None

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {"ok": self.ok, **vars(self), "path": str(self.path)}


@dataclass
class _Findings:
    """What the checks collect for a `VerifyResult`."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    compared: int = 0
    worst: float | None = None
    tolerance: float | None = None


def verify(  # noqa: PLR0913
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
    trust_encoder: bool = False,
    file_locking: bool | None = None,
) -> VerifyResult:
    """Check an embedding file: completeness, ids, labels, and each row for NaN, constant or repeated values.

    With `encoder` or `data` (the default of the other one is what the file names), `sample` random images are embedded
    again (`trust_encoder`: by code too, if the file names it). The distance of the new vector from the stored one,
    relative to the length of the stored one, must not exceed `tolerance` (default: `tolerance_of`). Problems are
    returned, not raised.

    Raises:
        DataError: `path` is not a readable embedding file, or `data` cannot be read.
        ConfigError: `sample` is less than 1.
        PluginError: the encoder cannot be built.
    """
    if sample < 1:
        raise ConfigError(f"sample is {sample}, but must be 1 or more")
    findings = _Findings()
    with load_embeddings(path, valid_only=False, incomplete=True, locking=file_locking) as embeddings:
        rows, errors, dim = len(embeddings), embeddings.errors, embeddings.dim
        if not embeddings.complete:
            findings.problems.append(f"not complete: {rows} of {embeddings.meta.n_expected} rows")
        if errors:
            reasons = format_list((f"{name}: {reason}" for name, reason in errors), separator="; ")
            findings.warnings.append(f"{len(errors)} images could not be read, so their rows are not valid: {reasons}")
        _check_ids(embeddings, findings)
        _check_labels(embeddings, findings)
    with load_embeddings(path, incomplete=True, locking=file_locking) as embeddings:
        _check_rows(embeddings, findings)
        if encoder is not None or data is not None:
            meta = embeddings.meta
            if data is None or isinstance(data, str):
                spec, split = data or meta.source, split or meta.split
                data = open_data(spec, split, splits=meta.splits, root=data_root, download=download)
            try:
                extractor = extractor_of(meta, encoder, download=download, device=device, trust_encoder=trust_encoder)
            except DataError as err:
                findings.problems.append(str(err))
            else:
                findings.tolerance = tolerance_of(meta) if tolerance is None else tolerance
                sampled = _sample_rows(embeddings, data, sample, seed, findings)
                _compare(embeddings, data, sampled, extractor, findings, num_workers=num_workers, device=device)
    return VerifyResult(
        path=Path(path),
        rows=rows,
        valid=rows - len(errors),
        dim=dim,
        problems=findings.problems,
        warnings=findings.warnings,
        compared=findings.compared,
        worst=findings.worst,
        tolerance=findings.tolerance,
    )


def tolerance_of(meta: StoreMeta) -> float:
    """Return the relative difference that rounding explains.

    1e-3 for fp32, 5e-3 if stored as float16, 5e-2 if computed in bf16 or fp16.
    """
    if meta.precision != "fp32":
        return 5e-2
    return 5e-3 if meta.dtype == "float16" else 1e-3


def _check_ids(embeddings: Embeddings, findings: _Findings) -> None:
    counts = Counter(embeddings.ids.tolist())
    if repeated := [name for name, count in counts.items() if count > 1]:
        findings.problems.append(f"duplicate ids ({len(repeated)}): {format_list(repeated)}")
    if counts[""]:
        findings.problems.append(f"empty ids ({counts['']})")


def _check_labels(embeddings: Embeddings, findings: _Findings) -> None:
    labels, names = embeddings.labels, embeddings.label_names
    if labels is None:
        if names:
            findings.warnings.append(f"{len(names)} label names, but no row has a label")
        return
    classes = len(names) or int(labels.max()) + 1
    out_of_range = np.flatnonzero((labels < -1) | (labels >= classes))
    if len(out_of_range):
        ids = format_list(embeddings.ids[out_of_range])
        findings.problems.append(f"labels outside -1 to {classes - 1} ({len(out_of_range)}): {ids}")
    if missing := int((labels == -1).sum()):
        findings.warnings.append(f"{missing} of {len(labels)} rows have no label")
    if len(set(names)) < len(names):
        findings.problems.append(f"label names repeat: {format_list(names, 20)}")


def _check_rows(embeddings: Embeddings, findings: _Findings) -> None:
    # 64 bits each: among a million different rows, two have the same hash in one of 40 million files
    hashes = np.empty(len(embeddings), np.uint64)
    not_finite: list[str] = []
    constant: list[str] = []
    for rows, block in embeddings.blocks():
        ids = embeddings.ids[rows]
        finite = np.isfinite(block).all(axis=1)
        equal_columns = block.min(axis=1) == block.max(axis=1)
        not_finite += ids[~finite].tolist()
        constant += ids[finite & equal_columns & (embeddings.dim > 1)].tolist()
        hashes[rows] = [_hash_row(row) for row in block]
    for ids_of_rows, what in ((not_finite, "rows with NaN or infinity"), (constant, "constant rows")):
        if ids_of_rows:
            findings.problems.append(f"{what} ({len(ids_of_rows)}): {format_list(ids_of_rows)}")
    _check_repeated_rows(embeddings, hashes, findings)


def _hash_row(row: NDArray[np.float32]) -> int:
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little")


def _check_repeated_rows(embeddings: Embeddings, hashes: NDArray[np.uint64], findings: _Findings) -> None:
    order = np.argsort(hashes, kind="stable")
    # positions in `order` whose row equals the next one
    repeated = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(embeddings) > 1 and len(repeated) == len(embeddings) - 1:
        findings.problems.append(f"all {len(embeddings)} rows are equal: the encoder returns the same for every image")
    elif len(repeated):
        ids = embeddings.ids
        pairs = format_list(f"{ids[order[i]]} = {ids[order[i + 1]]}" for i in repeated)
        findings.warnings.append(f"rows equal to another one, as of equal images ({len(repeated)}): {pairs}")


def _sample_rows(
    embeddings: Embeddings, source: ImageSource, sample: int, seed: int, findings: _Findings
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


def _compare(
    embeddings: Embeddings,
    source: ImageSource,
    rows: NDArray[np.int64],
    extractor: FeatureExtractor,
    findings: _Findings,
    *,
    num_workers: int | None,
    device: str,
) -> None:
    """Embed the images of `rows` again and compare them with the stored features."""
    if not len(rows):
        return
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
    findings.compared, findings.worst = len(readable), float(distance.max(initial=0))
    tolerance = findings.tolerance or 0
    # not `distance > tolerance`, which is false for NaN
    too_far = np.flatnonzero(~(distance <= tolerance))
    if len(too_far):
        ids = format_list(f"{images.ids[readable[i]]} ({distance[i]:.2g})" for i in too_far)
        share = f"{len(too_far)} of {len(readable)}"
        findings.problems.append(f"{share} images embedded again differ by more than {tolerance:g}: {ids}")
