"""The classes of two files matched by name."""

import numpy as np

from galirep.metrics.ranking import NO_LABEL, Ints


def same_labels(
    gallery_names: tuple[str, ...], query_names: tuple[str, ...], query_labels: Ints
) -> tuple[Ints, tuple[str, ...]]:
    """Query labels in the gallery's numbering, matched by class name, and all names: the gallery's, then those only queries have.

    Two files number the same classes differently when one of them lacks a class. Where either side has no names, numbers are names.
    """
    if not gallery_names or not query_names:
        return query_labels, gallery_names or query_names
    names = list(gallery_names) + [name for name in query_names if name not in set(gallery_names)]
    place = {name: i for i, name in enumerate(names)}
    table = np.array([place[name] for name in query_names] + [NO_LABEL], dtype=np.int64)
    return table[query_labels], tuple(names)
