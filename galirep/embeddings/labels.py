"""Classes of two data sets matched by name."""

from collections.abc import Sequence

import numpy as np

from galirep.metrics.arrays import Ints
from galirep.metrics.ranking import NO_LABEL


def renumber_labels(labels: Ints, names: Sequence[str], reference: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """Renumber `labels` (N,), whose classes are called `names`, as the classes of the same name in `reference`.

    Returns the labels and the names they now index: those of `reference`, then those only `names` has. Two files number
    the same classes differently when one of them lacks a class. Where either side has no names, numbers are names.
    """
    if not names or not reference:
        return labels, tuple(reference or names)
    together = tuple(dict.fromkeys([*reference, *names]))
    number = {name: i for i, name in enumerate(together)}
    table = np.array([*(number[name] for name in names), NO_LABEL], dtype=np.int64)  # the last is read by -1
    return table[labels], together
