"""Match the classes of two data sets by name."""

from collections.abc import Sequence

import numpy as np

from galirep.metrics.arrays import Ints
from galirep.metrics.ranking import NO_LABEL


def renumber_labels(labels: Ints, names: Sequence[str], reference: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """Renumber `labels` (N,), which index `names`, to index the classes of the same name in `reference`.

    Returns the labels and the names that they now index: those of `reference`, then those that only `names` has. (Two
    files number the same classes differently if one of them lacks a class.) If either side has no names, the labels are
    returned unchanged.
    """
    if not names or not reference:
        return labels, tuple(reference or names)
    all_names = tuple(dict.fromkeys([*reference, *names]))
    number = {name: i for i, name in enumerate(all_names)}
    # label -1 indexes the last entry
    table = np.array([*(number[name] for name in names), NO_LABEL], dtype=np.int64)
    return table[labels], all_names
