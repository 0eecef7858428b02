"""`verify`: check that an embedding file is complete and valid, and that its encoder still gives the same features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galirep.data.catalog import open_data
from galirep.data.sources import ImageSource
from galirep.embeddings.embedded_again import Comparison, compare_again, sample_rows
from galirep.embeddings.encoder_of import extractor_of
from galirep.embeddings.integrity.findings import Findings
from galirep.embeddings.integrity.invariants import check_invariants
from galirep.embeddings.integrity.row_checks import check_checksums, check_rows
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import SCHEMA_VERSION
from galirep.errors import ConfigError, DataError, format_list
from galirep.features.protocol import FeatureExtractor

SAMPLE = 64


@dataclass(frozen=True)
class VerifyResult:
    """The outcome of `verify`: `problems` make the file unfit for use, `warnings` do not; both are lists of messages.

    `kind` is embeddings, index, export of embeddings (a folder), or run or export (of a run), which have no rows;
    `checked` are the files of a run that were read.

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
    schema_version: int = SCHEMA_VERSION
    kind: str = "embeddings"
    checked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {"ok": self.ok, **vars(self), "path": str(self.path), "checked": list(self.checked)}


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
    """Check an embedding file: its checksums, the invariants of its schema, and each row for NaN or repeated values.

    With `encoder` or `data` (the default of the other one is what the file names), `sample` random images are embedded
    again (`trust_encoder`: by code too, if the file names it). The distance of the new vector from the stored one,
    relative to the length of the stored one, must not exceed `tolerance` (default: `embedded_again.tolerance_of`).
    Problems are returned, not raised.

    Raises:
        DataError: `path` is not a readable embedding file, or `data` cannot be read.
        ConfigError: `sample` is less than 1.
        PluginError: the encoder cannot be built.
    """
    if sample < 1:
        raise ConfigError(f"sample is {sample}, but must be 1 or more")
    findings = Findings()
    again = Comparison()
    with load_embeddings(path, valid_only=False, incomplete=True, locking=file_locking) as embeddings:
        rows, errors, dim, schema = len(embeddings), embeddings.errors, embeddings.dim, embeddings.schema_version
        check_invariants(embeddings, findings)
        if errors:
            reasons = format_list((f"{name}: {reason}" for name, reason in errors), separator="; ")
            findings.warnings.append(f"{len(errors)} images could not be read, so their rows are not valid: {reasons}")
        check_checksums(embeddings, findings)
    with load_embeddings(path, incomplete=True, locking=file_locking) as embeddings:
        check_rows(embeddings, findings)
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
                sampled = sample_rows(embeddings, data, sample, seed, findings)
                again = compare_again(
                    embeddings, data, sampled, extractor, findings, tolerance, num_workers=num_workers, device=device
                )
    return VerifyResult(
        path=Path(path),
        rows=rows,
        valid=rows - len(errors),
        dim=dim,
        problems=findings.problems,
        warnings=findings.warnings,
        compared=again.compared,
        worst=again.worst,
        tolerance=again.tolerance,
        schema_version=schema,
    )
