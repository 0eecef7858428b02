"""The invariants of the schema of an embedding file, beside those of its features (`row_checks`)."""

import json
from collections import Counter
from datetime import datetime

import numpy as np

from galirep.embeddings.integrity.checksums import check_outline
from galirep.embeddings.integrity.findings import Findings
from galirep.embeddings.reader import Embeddings
from galirep.errors import format_list
from galirep.system.devices import PRECISIONS
from galirep.system.reading.hdf5 import reading


def check_invariants(embeddings: Embeddings, findings: Findings) -> None:
    """Check everything but the features of a file that was opened with all its rows (`valid_only=False`)."""
    with reading(embeddings.path):
        _check_outline(embeddings, findings)
        _check_progress(embeddings, findings)
        _check_metadata(embeddings, findings)
        _check_ids(embeddings, findings)
        _check_labels(embeddings, findings)
        _check_validity(embeddings, findings)


def _check_outline(embeddings: Embeddings, findings: Findings) -> None:
    if embeddings.schema_version == 1:
        findings.warnings.append(
            "it is of schema 1, which has no checksums: a value that was changed to another possible one is not "
            "noticed (galirep merge writes it as schema 2)"
        )
    elif not check_outline(embeddings.file):
        findings.problems.append("the metadata, ids, labels or label names are not those that were written")


def _check_progress(embeddings: Embeddings, findings: Findings) -> None:
    rows, expected, file = len(embeddings), embeddings.meta.n_expected, embeddings.file
    if not embeddings.complete:
        findings.problems.append(f"not complete: {rows} of {expected} rows")
    elif rows != expected:
        findings.problems.append(f"marked as complete, but {rows} of {expected} rows are written")
    for name in ("ids", "labels", "valid", "features"):
        if len(file[name]) != expected:
            findings.problems.append(f"the dataset {name} has {len(file[name])} rows, not {expected}")
    if "parts" in file:
        told = sum(json.loads(text)["rows"] for text in file["parts"].asstr()[:])
        if told != expected:
            findings.problems.append(f"its parts have {told} rows, not {expected}")


def _check_metadata(embeddings: Embeddings, findings: Findings) -> None:
    meta = embeddings.meta
    if meta.precision not in PRECISIONS:
        findings.problems.append(f"the precision is {meta.precision!r}, not one of {', '.join(PRECISIONS)}")
    if not meta.encoder:
        findings.problems.append("the name of the encoder is empty")
    created = str(embeddings.attributes.get("created", ""))
    try:
        datetime.fromisoformat(created)
    except ValueError:
        findings.problems.append(f"the time of creation is {created!r}, not such as 2026-01-31T12:00:00+00:00")
    if not str(embeddings.attributes.get("file_id", "")):
        findings.problems.append("it has no file_id")


def _check_ids(embeddings: Embeddings, findings: Findings) -> None:
    counts = Counter(embeddings.ids.tolist())
    findings.list_problem("duplicate ids", (name for name, count in counts.items() if count > 1))
    if counts[""]:
        findings.problems.append(f"empty ids ({counts['']})")


def _check_labels(embeddings: Embeddings, findings: Findings) -> None:
    labels, names = embeddings.file["labels"][: len(embeddings)].astype(np.int64), embeddings.label_names
    if len(set(names)) < len(names):
        findings.problems.append(f"label names repeat: {format_list(names, 20)}")
    if "" in names:
        findings.problems.append("a label name is empty")
    if not len(labels):
        return
    classes = len(names) or max(0, int(labels.max()) + 1)
    out_of_range = np.flatnonzero((labels < -1) | (labels >= classes) & (labels != -1))
    findings.list_problem(f"labels outside -1 to {classes - 1}", embeddings.ids[out_of_range])
    missing = int((labels == -1).sum())
    if missing == len(labels):
        if names:
            findings.warnings.append(f"{len(names)} label names, but no row has a label")
    elif missing:
        findings.warnings.append(f"{missing} of {len(labels)} rows have no label")


def _check_validity(embeddings: Embeddings, findings: Findings) -> None:
    file, rows = embeddings.file, len(embeddings)
    flags = file["valid"][:rows].view(np.uint8)
    findings.list_problem("validity that is neither true nor false", embeddings.ids[np.flatnonzero(flags > 1)])
    listed = file["errors"]["row"]
    # rows of -1 are room for more, those beyond the rows written of a block that was killed
    listed = listed[(listed >= 0) & ((listed < rows) | embeddings.complete)]
    if len(np.unique(listed)) < len(listed):
        findings.problems.append("errors names a row twice")
    if (listed >= rows).any():
        findings.problems.append(f"errors names rows beyond the {rows} that are written")
    listed = listed[listed < rows]
    invalid = np.flatnonzero(flags == 0)
    ids = embeddings.ids
    findings.list_problem("rows that are not valid, without a reason", ids[np.setdiff1d(invalid, listed)])
    findings.list_problem("valid rows with a reason why they are not", ids[np.setdiff1d(listed, invalid)])
    filled = [row for row in invalid.tolist() if embeddings.features[row].any()]
    findings.list_problem("rows that are not valid, but have features", ids[filled])
