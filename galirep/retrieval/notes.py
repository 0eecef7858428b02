"""What a reader of a retrieval should know: pictures on both sides, classes that do not meet, how queries were read."""

import numpy as np

from galirep.embeddings.overlap import Side, note_overlap
from galirep.metrics.arrays import F32, Ints
from galirep.metrics.overlap import hash_rows, match_rows
from galirep.retrieval.measures import Measures
from galirep.retrieval.queries import Queries
from galirep.search.gallery import Gallery

# relative; vectors of one picture that is embedded twice differ by rounding
_ROUNDING = 1e-6


def find_equal(gallery: Gallery, vectors: F32, nearest: Ints, distances: F32) -> Ints:
    """Return for each query (Q, D) the row of the gallery with the same vector but for rounding, -1 for none; (Q,).

    `nearest` and `distances` (Q,) are those of the nearest row. Under ip, which need not find the equal row first, rows
    are compared by hash, and not at all in an index that stores codes.
    """
    if gallery.metric == "ip":
        return match_rows(hash_rows([vectors]), gallery.row_hashes)
    scale = np.linalg.norm(vectors, axis=1) if gallery.metric == "l2" else 1.0
    equal = (nearest >= 0) & (distances <= _ROUNDING * scale)
    if gallery.vectors is not None:
        # a cosine near 1 says less than the vectors
        near = np.flatnonzero(equal)
        difference = np.abs(vectors[near] - gallery.vectors[nearest[near]]).max(axis=1)
        equal[near] = difference <= 10 * _ROUNDING * np.abs(vectors[near]).max(axis=1)
    return np.where(equal, nearest, -1)


def list_notes(gallery: Gallery, queries: Queries, measured: Measures | None, equal: Ints | None) -> tuple[str, ...]:
    """List the notes of a retrieval; `equal` is that of `find_equal`, None if the queries are the gallery's rows."""
    notes = []
    if queries.source is not None:
        report = queries.source.report
        notes += [f"{entry.count} left out of the queries, {entry.reason}" for entry in report.left_out]
        notes += report.notes
    if measured is not None and measured.without_relevant and np.isnan(measured.mrr).all():
        notes.append("no labelled query is of a class that the gallery has: nothing is measured")
    if equal is not None:
        notes += note_overlap(
            Side("the queries", queries.ids, queries.meta),
            Side("the gallery", gallery.ids, gallery.meta),
            equal,
            "such a query finds itself, so measures are higher than for new pictures",
        )
    return tuple(notes)
