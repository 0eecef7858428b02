"""Checks of the rows of an embedding file: their checksums, and values that no encoder should give."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.integrity.checksums import find_damaged_rows
from galirep.embeddings.integrity.findings import Findings
from galirep.embeddings.reader import Embeddings
from galirep.errors import format_list
from galirep.system.reading.hdf5 import reading


def check_checksums(embeddings: Embeddings, findings: Findings) -> None:
    """Compare the rows of a file that was opened with all of them with their checksums; schema 1 has none."""
    if embeddings.schema_version > 1:
        with reading(embeddings.path):
            damaged = find_damaged_rows(embeddings.file)
        findings.list_problem("rows that do not have their checksums", embeddings.ids[damaged])


def check_rows(embeddings: Embeddings, findings: Findings) -> None:
    """Check the valid rows: finite, not constant, not all equal."""
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
    findings.list_problem("rows with NaN or infinity", not_finite)
    findings.list_problem("constant rows", constant)
    _check_repeated_rows(embeddings, hashes, findings)


def _hash_row(row: NDArray[np.float32]) -> int:
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little")


def _check_repeated_rows(embeddings: Embeddings, hashes: NDArray[np.uint64], findings: Findings) -> None:
    order = np.argsort(hashes, kind="stable")
    # positions in `order` whose row equals the next one
    repeated = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(embeddings) > 1 and len(repeated) == len(embeddings) - 1:
        findings.problems.append(f"all {len(embeddings)} rows are equal: the encoder returns the same for every image")
    elif len(repeated):
        ids = embeddings.ids
        pairs = format_list(f"{ids[order[i]]} = {ids[order[i + 1]]}" for i in repeated)
        findings.warnings.append(f"rows equal to another one, as of equal images ({len(repeated)}): {pairs}")
