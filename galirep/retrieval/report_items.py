"""The images on a retrieval report and the lists that refer to them: queries, near-duplicates, outliers."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from galirep.retrieval.curation import similarity_or_distance
from galirep.retrieval.result import Retrieval

_MAX_NEIGHBORS = 10
_MAX_PAIRS = 24


class PageImage(NamedTuple):
    """An image on the page: a row of the gallery, or of the queries if those are another file."""

    is_query: bool
    row: int


class PageItems:
    """The images on the page, each listed once; their position in the list is the number that the page refers to."""

    def __init__(self, result: Retrieval) -> None:
        self.leave_one_out = result.leave_one_out
        self._result = result
        self._positions: dict[PageImage, int] = {}

    @property
    def images(self) -> list[PageImage]:
        """The images in the order of their numbers."""
        return list(self._positions)

    def add_gallery_row(self, row: int) -> int:
        """Return the number of a gallery row; add it if it is new."""
        return self._add(PageImage(False, row))

    def add_query(self, row: int) -> int:
        """Return the number of a query; add it if it is new."""
        return self._add(PageImage(not self.leave_one_out, row))

    def _add(self, image: PageImage) -> int:
        return self._positions.setdefault(image, len(self._positions))

    def describe_query(self, i: int) -> dict[str, Any]:
        """Return query i with its score and neighbours.

        A neighbour is [number, similarity or distance, 1 for a hit, 0 for a miss or -1 without labels].
        """
        result = self._result
        label = -1 if result.query_labels is None else result.query_labels[i]
        rows = result.neighbors[i, :_MAX_NEIGHBORS].tolist()
        distances = result.distances[i, :_MAX_NEIGHBORS].tolist()
        neighbors = []
        for row, distance in zip(rows, distances, strict=True):
            if row >= 0:
                gallery_label = -1 if result.gallery_labels is None else result.gallery_labels[row]
                hit = int(label == gallery_label) if label >= 0 and gallery_label >= 0 else -1
                neighbors.append([self.add_gallery_row(row), self._rounded(distance), hit])
        score = result.measured.map_at_r[i] if result.measured else np.nan
        return {
            "item": self.add_query(i),
            "score": None if np.isnan(score) else round(float(score), 4),
            "neighbors": neighbors,
        }

    def list_pairs(self) -> list[list[Any]]:
        """Return the near-duplicates of the result or, without them, the nearest pairs of a query and its neighbour.

        A pair is [number of the query, number of the gallery row, similarity or distance].
        """
        pairs: dict[tuple[int, int], list[Any]] = {}
        for query, row, distance in self._nearest_pairs():
            key = (min(query, row), max(query, row)) if self.leave_one_out else (query, row)
            if len(pairs) < _MAX_PAIRS and key not in pairs:
                pairs[key] = [self.add_query(query), self.add_gallery_row(row), self._rounded(distance)]
        return list(pairs.values())

    def _nearest_pairs(self) -> Iterable[tuple[int, int, float]]:
        result = self._result
        if result.duplicates is not None:
            duplicates = result.duplicates
            return zip(
                duplicates.queries.tolist(), duplicates.rows.tolist(), duplicates.distances.tolist(), strict=True
            )
        # within one file a pair may come from both of its rows
        nearest = np.argsort(result.distances[:, 0], kind="stable")[: 2 * _MAX_PAIRS]
        return [
            (int(i), int(result.neighbors[i, 0]), float(result.distances[i, 0]))
            for i in nearest
            if result.neighbors[i, 0] >= 0
        ]

    def list_outliers(self) -> list[list[Any]]:
        """Return [number of the query, mean distance] of each outlier."""
        if self._result.outliers is None:
            return []
        rows, mean_distances = self._result.outliers
        return [
            [self.add_query(row), mean_distance]
            for row, mean_distance in zip(rows.tolist(), mean_distances.tolist(), strict=True)
        ]

    def describe_images(self) -> list[list[Any]]:
        """Return [id, label or -1, 1 for a query of another file] of each image."""
        return [[self.id_of(image), self._label_of(image), int(image.is_query)] for image in self._positions]

    def id_of(self, image: PageImage) -> str:
        """Return the id of an image."""
        ids = self._result.query_ids if image.is_query else self._result.gallery_ids
        return str(ids[image.row])

    def _label_of(self, image: PageImage) -> int:
        labels = self._result.query_labels if image.is_query else self._result.gallery_labels
        return -1 if labels is None else int(labels[image.row])

    def _rounded(self, distance: float) -> float:
        _, value = similarity_or_distance(distance, self._result.metric)
        return round(value, 4)
