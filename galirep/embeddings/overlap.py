"""Pictures that are on both sides of a comparison: rows with equal vectors, and ids of one data set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galirep.embeddings.schema import StoreMeta
from galirep.metrics.arrays import Ints


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what a note calls it, its ids (None for arrays), and where its images are from."""

    name: str
    ids: NDArray[np.object_] | None = None
    meta: StoreMeta | None = None

    def describe(self, row: int) -> str:
        """Return the id of a row, quoted, or its number."""
        return f"row {row}" if self.ids is None else repr(str(self.ids[row]))


def note_overlap(side: Side, other: Side, equal: Ints, consequence: str) -> list[str]:
    """Return a note if pictures of `side` are in `other` too, or none.

    `equal` (N,) is for each row of `side` a row of `other` with the same vector, -1 for none. Ids count where the
    vectors are equal, and otherwise within one split of one data set: `0001.png` of two splits are two pictures. Row
    numbers of a set that is not known tell nothing.
    """
    rows = np.flatnonzero(equal >= 0)
    shared = _shared_ids(side, other)
    parts = []
    if len(rows):
        first = int(rows[0])
        pair = f"{side.describe(first)} and {other.describe(int(equal[first]))}"
        count = f"{len(rows)} of {len(equal)} rows of {side.name}"
        parts.append(f"{count} have the vector of a row of {other.name} ({pair})")
    if len(shared):
        parts.append(f"{len(shared)} of its ids are in {other.name} too ({side.describe(int(shared[0]))})")
        if not len(rows):
            parts[-1] = f"{len(shared)} of {len(equal)} ids of {side.name} are in {other.name} too "
            parts[-1] += f"({side.describe(int(shared[0]))}), with other vectors"
    return [f"pictures that may be on both sides: {' and '.join(parts)}: {consequence}"] if parts else []


def _shared_ids(side: Side, other: Side) -> Ints:
    """Return the rows of `side` whose ids tell a picture that `other` has."""
    none = np.empty(0, np.int64)
    if side.ids is None or other.ids is None or side.meta is None or other.meta is None:
        return none
    first, second = ((meta.source, meta.split) for meta in (side.meta, other.meta))
    if first != second:
        return none
    known = set(other.ids)
    if not side.meta.source:
        known = {name for name in known if not name.isdecimal()}
    return np.array([row for row, name in enumerate(side.ids) if name in known], dtype=np.int64)
