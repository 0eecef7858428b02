"""The map on a retrieval report: queries and gallery rows projected to a plane."""

from typing import Any

import numpy as np

from galirep.metrics.arrays import Ints
from galirep.retrieval.queries import Queries
from galirep.retrieval.report_items import PageItems
from galirep.retrieval.report_options import ReportOptions
from galirep.search.distances import prepare_vectors
from galirep.search.gallery import Gallery
from galirep.visuals.projection import project

_MAX_POINTS = 1000


def sample_rows(n: int, size: int, seed: int) -> Ints:
    """Draw `size` of n rows without replacement, or all n in random order if there are fewer."""
    return np.random.default_rng(seed).choice(n, min(n, size), replace=False)


def build_map(
    items: PageItems, gallery: Gallery, queries: Queries, shown: Ints, options: ReportOptions
) -> dict[str, Any]:
    """Project the `shown` queries and a sample of the gallery; a point is [number of the item, x, y].

    An index that stores codes has no vectors to project, so its map has only the queries.
    """
    query_vectors = prepare_vectors(
        queries.rows.features[shown], gallery.metric, lambda i: str(queries.ids[shown[i]]), queries.name
    )
    numbers = [items.add_query(int(i)) for i in shown]
    vectors = [query_vectors]
    if gallery.vectors is not None:
        rows = sample_rows(len(gallery), _MAX_POINTS - len(shown), options.seed + 1)
        if items.leave_one_out:
            rows = np.setdiff1d(rows, shown)
        numbers += [items.add_gallery_row(int(row)) for row in rows]
        vectors.append(gallery.vectors[rows])
    points = project(np.concatenate(vectors), options.projection, options.seed)
    return {
        "method": options.projection,
        "points": [[number, *xy] for number, xy in zip(numbers, points.round(4).tolist(), strict=True)],
    }
